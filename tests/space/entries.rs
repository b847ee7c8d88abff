//! What an entry says of a page that is in swap, must not be touched, belongs to an object out of
//! order, or is protected from all use: `docs/entries.md` has the table, and each of its cells
//! names a test or a recorded script.

use crate::common::{
    PAGE, RW, World, at,
    objects::{shmem, swapping},
};
use emmu::{
    FaultError,
    ctx::{CallbackCx, Sleepable},
    mm::{Advice, ForkMode, MapFlags, MremapFlags, PinKind, Prot, Pte, RemapMode},
    notifier::{Access, Ack, ExternalMmu, Gate, Invalidation, OrderedStore, Seat},
    replay::{Report, Summary, load, replay},
};
use std::{
    path::Path,
    sync::{Arc, Mutex},
};

/// Page `n` of the world is `n + 1`, in pages 0..4.
fn world() -> World {
    let mut w = swapping(256, 64);
    w.map(0, 4, RW);
    (0..4).for_each(|n| w.put(n, n as u8 + 1));
    w.told();
    w
}
/// The same, all of it in swap alone.
fn in_swap() -> World {
    let mut w = world();
    w.advise(0, 4, Advice::PageOut).unwrap();
    assert_eq!((used(&w), w.machine.mem().in_use()), (4, 0));
    w.told();
    w
}
fn used(w: &World) -> u64 {
    w.machine.mem().swap().used()
}
fn copies(w: &mut World, page: u64) -> bool {
    w.told();
    w.put(page, 77);
    !w.told().is_empty()
}
fn mincore(w: &mut World, from: u64, n: u64) -> Vec<bool> {
    w.mm.mincore(&mut w.thread.cx(), at(from), n * PAGE)
        .unwrap()
}

/// Slots, guards and protected pages under every operation, and where a page belongs that is one
/// mapping's alone: as Linux recorded it.
#[test]
fn entries_go_as_on_linux() {
    let scripts = load(Path::new("data/entries")).unwrap();
    assert_eq!(scripts.len(), 4);
    let done: Vec<_> = scripts.iter().map(|s| replay(s).unwrap()).collect();
    let reports: String = done
        .iter()
        .filter_map(Report::of)
        .map(|r| r.to_string())
        .collect();
    assert!(reports.is_empty(), "{}\n{reports}", Summary::of(&done));
}

/// `pte_swp_exclusive`: what was nobody else's comes back so; a fork makes it everybody's, whatever
/// it does with tables.
#[test]
fn a_slot_keeps_whether_its_page_is_shared() {
    let mut w = in_swap();
    assert_eq!(w.get(0), Ok(1));
    assert!(matches!(w.pte(0), Pte::Present { write: true, .. }) && !copies(&mut w, 0));
    for mode in [ForkMode::Copy, ForkMode::Share] {
        w.put(1, 2);
        w.advise(1, 1, Advice::PageOut).unwrap();
        let child = w.mm.fork_with(&mut w.thread.cx(), mode).unwrap();
        w.inside(&child, |w| w.put(1, 0xee));
        assert_eq!(w.get(1), Ok(2), "{mode:?}");
        w.put(1, 3);
        assert_eq!(w.inside(&child, |w| w.get(1)), Ok(0xee), "{mode:?}");
        w.reap(&child);
    }
    w.end();
}

/// A slot has no rights: they are those of the VMA that the page comes back to.
#[test]
fn rights_over_a_slot_are_its_vma_s() {
    let mut w = in_swap();
    w.protect(0, 1, Prot::READ).unwrap();
    assert_eq!(w.get(0), Ok(1));
    assert!(matches!(w.pte(0), Pte::Present { write: false, .. }));
    w.protect(0, 1, RW).unwrap();
    assert!(!copies(&mut w, 0), "it is still nobody else's");
    w.protect(1, 1, Prot::empty()).unwrap();
    assert_eq!(w.get(1), Err(FaultError::Denied(at(1))));
    w.protect(1, 1, RW).unwrap();
    assert!(w.get(1) == Ok(2) && !copies(&mut w, 1));
    w.end();
}

#[test]
fn a_slot_moves_is_cut_and_given_up_with_its_entry() {
    let mut w = in_swap();
    let how = MremapFlags::MAYMOVE | MremapFlags::FIXED;
    w.remap(0, 1, 1, how, 9);
    w.remap(1, 1, 1, how | MremapFlags::DONTUNMAP, 10);
    assert_eq!((w.get(9), w.get(10), w.get(1)), (Ok(1), Ok(2), Ok(0)));
    assert!(!copies(&mut w, 9) && !copies(&mut w, 10));
    w.advise(9, 2, Advice::PageOut).unwrap();
    w.advise(9, 1, Advice::DontNeed).unwrap();
    w.advise(10, 1, Advice::Free).unwrap();
    w.advise(2, 1, Advice::GuardInstall).unwrap();
    assert_eq!(used(&w), 1);
    w.mm.munmap(&mut w.thread.cx(), at(3), PAGE).unwrap();
    assert_eq!(used(&w), 0);
    assert_eq!((w.get(9), w.get(10)), (Ok(0), Ok(0)));
    assert_eq!(w.get(2), Err(FaultError::Guarded(at(2))));
    w.end();
}

#[test]
fn what_looks_for_pages_in_memory_passes_a_slot_by() {
    let mut w = in_swap();
    for advice in [Advice::Cold, Advice::PageOut] {
        w.advise(0, 4, advice).unwrap();
    }
    assert_eq!(w.mm.migrate(&mut w.thread.cx(), at(0)), Ok(None));
    let mm = Arc::clone(&w.mm);
    let pages = [(&*mm, at(0)), (&*mm, at(1))];
    assert_eq!(
        w.machine
            .clone()
            .merge_same_pages(&mut w.thread.cx(), &pages),
        0
    );
    assert_eq!(w.machine.reclaim_all(&mut w.thread.cx()), 0);
    assert_eq!((w.told().as_str(), used(&w)), ("", 4));
    w.end();
}

/// `mincore_pte_range`: the entry decides, not what the object has at its place; of a marker the
/// object's page counts.
#[test]
fn residence_is_what_the_entry_says() {
    let mut w = swapping(256, 64);
    let file = shmem(&mut w, 4);
    w.map_file(0, 4, &file, 0, MapFlags::PRIVATE);
    w.put(0, 9);
    w.put(1, 9);
    assert_eq!(mincore(&mut w, 0, 4), [true; 4]);
    w.advise(0, 2, Advice::PageOut).unwrap();
    assert_eq!(
        mincore(&mut w, 0, 4),
        [false, false, true, true],
        "private copies in swap"
    );
    w.advise(1, 1, Advice::GuardInstall).unwrap();
    assert_eq!(
        mincore(&mut w, 0, 4),
        [false, true, true, true],
        "the object's"
    );
    w.protect(0, 4, Prot::empty()).unwrap();
    assert_eq!(mincore(&mut w, 0, 4), [false, true, true, true]);
    drop(file);
    w.end();
}

/// A cut takes private copies in swap with it, a hole leaves them.
#[test]
fn a_cut_takes_slots_and_a_hole_does_not() {
    let mut w = swapping(256, 64);
    let file = shmem(&mut w, 4);
    w.map_file(0, 4, &file, 0, MapFlags::PRIVATE);
    w.put(1, 9);
    w.put(2, 9);
    w.advise(0, 4, Advice::PageOut).unwrap();
    assert_eq!(used(&w), 2);
    file.punch_hole(w.thread.cx(), PAGE, PAGE).unwrap();
    assert_eq!((used(&w), w.get(1)), (2, Ok(9)));
    file.truncate(w.thread.cx(), 2 * PAGE).unwrap();
    assert_eq!(w.get(2), Err(FaultError::Beyond(at(2))));
    drop(file);
    w.end();
}

/// `folio_migrate_mapping`: a page that is in the swap cache moves with its slot, which others may
/// refer to.
#[test]
fn a_page_in_the_swap_cache_moves_with_its_slot() {
    let mut w = in_swap();
    let child = w.fork();
    assert_eq!(w.get(0), Ok(1));
    let (slots, old) = (used(&w), w.pfn(0));
    let moved = w.mm.migrate(&mut w.thread.cx(), at(0)).unwrap();
    assert!(moved.is_some() && moved != old && moved == w.pfn(0));
    assert_eq!(used(&w), slots, "none was given up");
    assert_eq!(w.inside(&child, |w| w.get(0)), Ok(1));
    assert_eq!(w.inside(&child, |w| w.pfn(0)), moved, "found in the cache");
    w.put(0, 5);
    assert_eq!(w.inside(&child, |w| w.get(0)), Ok(1));
    w.check_rmap();
    w.reap(&child);
    w.end();
}

/// Holds a window up, once, until something else is done.
struct Meanwhile {
    gate: Gate<OrderedStore<u64>, (), Sleepable>,
    does: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl ExternalMmu for Meanwhile {
    fn invalidate_start<'i>(&self, cx: CallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> {
        let does = self.does.lock().unwrap().take();
        does.into_iter().for_each(|does| does());
        self.gate.exclude(cx, inv, |(), _, _| ())
    }
}

/// Reclaim has chosen the slot that the page is cached for, and is about to make its entry refer to
/// that. `MADV_FREE` would give the slot up; it passes a page by that somebody is at work on
/// (`folio_trylock`).
#[test]
fn given_up_lazily_while_reclaim_has_it() {
    // Two slots: the next page that goes out gets the one that was given up last.
    let mut w = swapping(256, 2);
    w.map(0, 1, RW);
    w.put(0, 1);
    w.advise(0, 1, Advice::PageOut).unwrap();
    assert_eq!(
        (w.get(0), used(&w)),
        (Ok(1), 1),
        "back, and still in the cache"
    );
    let mm = Arc::clone(&w.mm);
    let frees = move || {
        let mm = Arc::clone(&mm);
        let free = move || {
            let mut thread = mm.machine().enter().unwrap();
            mm.madvise(&mut thread.cx(), at(0), PAGE, Advice::Free)
                .unwrap();
        };
        std::thread::spawn(free).join().unwrap();
    };
    let (_there, registration) = w.mm.register(&mut w.thread.cx(), |seat: Seat| {
        Arc::new(Meanwhile {
            gate: Gate::new(seat, OrderedStore::default(), ()),
            does: Mutex::new(Some(Box::new(frees))),
        })
    });
    // Without the mmap lock, which an advice waits for.
    w.machine.reclaim_all(&mut w.thread.cx());
    w.map(8, 1, RW);
    w.put(8, 0x99);
    w.advise(8, 1, Advice::PageOut).unwrap();
    let seen = w.get(0).unwrap();
    assert!(seen == 1 || seen == 0, "somebody else's page: {seen:#x}");
    assert_eq!(w.get(8), Ok(0x99));
    w.mm.unregister(&mut w.thread.cx(), registration);
    w.end();
}

/// Linux moves and merges what nobody may touch, as anything that is present.
#[test]
fn protected_pages_move_and_merge() {
    let mut w = world();
    w.put(1, 1);
    w.protect(0, 4, Prot::empty()).unwrap();
    for page in 0..4 {
        let old = w.pfn(page);
        let moved = w.mm.migrate(&mut w.thread.cx(), at(page)).unwrap();
        assert!(moved.is_some() && moved != old && moved == w.pfn(page));
    }
    assert_eq!(w.get(0), Err(FaultError::Denied(at(0))));
    let mm = Arc::clone(&w.mm);
    let pages = [(&*mm, at(0)), (&*mm, at(1))];
    assert_eq!(
        w.machine
            .clone()
            .merge_same_pages(&mut w.thread.cx(), &pages),
        1
    );
    assert_eq!(w.get(1), Err(FaultError::Denied(at(1))));
    w.protect(0, 4, RW).unwrap();
    assert!(copies(&mut w, 1) && !copies(&mut w, 2));
    assert_eq!((w.get(0), w.get(3)), (Ok(1), Ok(4)));
    w.end();
}

/// Protected entries lead to their pages as before; those alone who have them write in place when
/// they may again.
#[test]
fn protected_pages_are_forked_moved_and_collapsed() {
    for mode in [ForkMode::Copy, ForkMode::Share] {
        let mut w = world();
        w.protect(0, 4, Prot::empty()).unwrap();
        let child = w.mm.fork_with(&mut w.thread.cx(), mode).unwrap();
        w.inside(&child, |w| {
            w.protect(0, 4, RW).unwrap();
            w.put(0, 0xee);
        });
        let how = MremapFlags::MAYMOVE | MremapFlags::FIXED;
        w.remap(0, 1, 1, how, 9);
        w.protect(9, 1, RW).unwrap();
        assert_eq!(w.get(9), Ok(1), "{mode:?}");
        w.put(9, 2);
        assert_eq!(w.inside(&child, |w| w.get(0)), Ok(0xee));
        w.reap(&child);
        w.end();
    }
    let mut w = swapping(2048, 64);
    w.map(0, 512, RW);
    w.put(3, 4);
    w.protect(0, 512, Prot::empty()).unwrap();
    w.advise(0, 512, Advice::Collapse).unwrap();
    assert_eq!(w.get(3), Err(FaultError::Denied(at(3))));
    w.protect(0, 512, RW).unwrap();
    assert_eq!((w.get(3), w.get(4)), (Ok(4), Ok(0)));
    w.end();
}

/// `__collapse_huge_page_swapin`.
#[test]
fn slots_come_in_and_guards_keep_a_collapse_out() {
    let mut w = swapping(2048, 64);
    w.map(0, 512, RW);
    w.put(3, 4);
    w.put(4, 5);
    w.advise(3, 2, Advice::PageOut).unwrap();
    w.advise(9, 1, Advice::GuardInstall).unwrap();
    assert!(w.advise(0, 512, Advice::Collapse).is_err());
    assert_eq!(w.get(9), Err(FaultError::Guarded(at(9))));
    w.advise(9, 1, Advice::GuardRemove).unwrap();
    w.advise(3, 2, Advice::PageOut).unwrap();
    w.advise(0, 512, Advice::Collapse).unwrap();
    assert_eq!((w.get(3), w.get(4), w.get(9)), (Ok(4), Ok(5), Ok(0)));
    assert_eq!(used(&w), 0);
    w.end();
}

/// The entry of a nonlinear mapping keeps the number of its page whatever goes over it, until the
/// mapping goes.
#[test]
fn a_place_outlives_all_but_its_mapping() {
    let mut w = swapping(256, 64);
    let file = shmem(&mut w, 4);
    w.map_file(0, 4, &file, 0, MapFlags::SHARED);
    w.mm.set_remap_mode(&mut w.thread.cx(), RemapMode::Nonlinear);
    let mm = Arc::clone(&w.mm);
    for page in 0..4 {
        let (none, lazily) = (Prot::empty(), MapFlags::NONBLOCK);
        mm.remap_file_pages(&mut w.thread.cx(), at(page), PAGE, none, 3 - page, lazily)
            .unwrap();
    }
    w.protect(0, 4, Prot::READ).unwrap();
    w.protect(0, 4, RW).unwrap();
    for advice in [Advice::DontNeed, Advice::Cold, Advice::PageOut] {
        w.advise(0, 4, advice).unwrap();
    }
    assert_eq!(w.mm.migrate(&mut w.thread.cx(), at(0)), Ok(None));
    assert_eq!(w.machine.reclaim_all(&mut w.thread.cx()), 4);
    assert_eq!(mincore(&mut w, 0, 4), [false; 4]);
    let child = w.fork();
    let how = MremapFlags::MAYMOVE | MremapFlags::FIXED;
    w.remap(0, 4, 4, how, 8);
    let bytes = |w: &mut World, from: u64| [0, 1, 2, 3].map(|n| w.get(from + n).unwrap());
    assert_eq!(bytes(&mut w, 8), [4, 3, 2, 1]);
    assert_eq!(w.inside(&child, |w| bytes(w, 0)), [4, 3, 2, 1]);
    w.reap(&child);
    file.punch_hole(w.thread.cx(), 3 * PAGE, PAGE).unwrap();
    assert_eq!(bytes(&mut w, 8), [0, 3, 2, 1]);
    w.mm.munmap(&mut w.thread.cx(), at(8), 4 * PAGE).unwrap();
    w.map_file(8, 4, &file, 0, MapFlags::SHARED);
    assert_eq!(bytes(&mut w, 8), [1, 2, 3, 0]);
    drop(file);
    w.end();
}

/// `folio_move_anon_rmap`: what is found to be one mapping's alone is looked for nowhere else; its
/// sharers keep the oldest.
#[test]
fn a_page_of_a_child_alone_opens_no_window_elsewhere() {
    let mut w = world();
    let child = w.fork();
    w.advise(0, 2, Advice::DontNeed).unwrap();
    w.inside(&child, |w| w.put(0, 9));
    w.told();
    w.inside(&child, |w| w.advise(0, 2, Advice::PageOut).unwrap());
    assert_eq!(w.told(), "W1..2", "the one that was not written");
    w.inside(&child, |w| {
        w.put(1, 8);
        w.advise(0, 2, Advice::PageOut).unwrap();
    });
    assert_eq!(w.told(), "");
    assert_eq!(w.inside(&child, |w| (w.get(0), w.get(1))), (Ok(9), Ok(8)));
    w.inside(&child, World::check_rmap);
    w.reap(&child);
    w.end();
}

/// Every test and every mutant that the table names is there.
#[test]
fn the_table_names_what_is_there() {
    let read = |path: &str| std::fs::read_to_string(path).unwrap();
    let table = read("docs/entries.md");
    let there: String = [
        "tests/space/not_present.rs",
        "tests/space/daemons.rs",
        "tests/space/entries.rs",
        "tests/space/userfault.rs",
        "tests/space/device_entries.rs",
        "tests/space/device_pages.rs",
        "tests/shuttle/device.rs",
        "tests/shuttle/entries.rs",
        "tests/shuttle/races.rs",
        "mutants/table.txt",
    ]
    .map(read)
    .concat();
    let mut named = 0;
    for name in table.split('`').skip(1).step_by(2) {
        let test = name.rsplit("::").next().expect("a name");
        let is_test = test.matches('_').count() >= 2 || name.contains("::");
        let is_mutant = name.matches('-').count() >= 2;
        if is_test
            && name
                .chars()
                .all(|c| c.is_ascii_lowercase() || "_:".contains(c))
        {
            let defined =
                there.contains(&format!("fn {test}(")) || there.contains(&format!("    {test}: "));
            assert!(defined, "no test: {name}");
            named += 1;
        } else if is_mutant {
            assert!(
                there.contains(&format!("== {name} | ")),
                "no mutant: {name}"
            );
            named += 1;
        }
    }
    assert!(named > 50, "the table is read: {named}");
}

/// A copy that is made for a reader has its bytes nowhere else, though its entry is clean.
#[test]
fn a_page_that_one_process_frees_lazily_stays_that_of_its_child() {
    let mut w = world();
    let cx = &mut w.thread.cx();
    let first = w.mm.fork(cx).unwrap();
    let held = w.mm.pin(cx, at(0), 1, Access::Read, PinKind::LongTerm);
    drop(held.unwrap());
    let child = w.mm.fork(cx).unwrap();
    w.mm.madvise(cx, at(0), PAGE, Advice::Free).unwrap();
    w.machine.reclaim_all(cx);
    assert_eq!(
        (child.load(cx, at(0)), first.load(cx, at(0))),
        (Ok(1), Ok(1))
    );
    child.exit(cx);
    first.exit(cx);
    w.end();
}
