//! Faults in private memory that bring in a folio, where the machine is set so.

use crate::common::{World, at};
use emmu::{
    MachineConfig, MemConfig, Mm, PAGE_SIZE,
    mm::{Advice, FolioPolicies, FolioPolicy, FolioSize, PageState, PinKind, Prot},
    notifier::Access,
};
use std::sync::Arc;

const FOLIO: u64 = 16;
const RW: Prot = Prot::READ.union(Prot::WRITE);

fn world(folios: FolioPolicy) -> World {
    World::with(MachineConfig {
        memory: MemConfig {
            frames: 4096,
            swap: 64,
            ..MemConfig::default()
        },
        folios: FolioPolicies::default().with(FolioSize::Kib64, folios),
        ..MachineConfig::default()
    })
}

/// The pages of `[from, to)` that are present.
fn present(w: &mut World, from: u64, to: u64) -> Vec<u64> {
    let first = World::pages(from, to).start().0;
    let pages = w.mm.pagemap(&mut w.thread.cx(), World::pages(from, to));
    pages
        .iter()
        .map(|(page, _)| from + page.0 - first)
        .collect()
}

/// A world with `n` pages of memory from page 0 on, which is advised.
fn advised(n: u64) -> World {
    let mut w = world(FolioPolicy::Advise);
    w.map(0, n, RW);
    w.advise(0, n, Advice::HugePage).unwrap();
    w
}

#[test]
fn the_setting_and_the_advice_decide() {
    let cases = [
        (FolioPolicy::Never, Some(Advice::HugePage), 1),
        (FolioPolicy::Advise, None, 1),
        (FolioPolicy::Advise, Some(Advice::HugePage), 16),
        (FolioPolicy::Advise, Some(Advice::NoHugePage), 1),
        (FolioPolicy::Always, None, 16),
        (FolioPolicy::Always, Some(Advice::NoHugePage), 1),
    ];
    for (policy, advice, pages) in cases {
        let mut w = world(policy);
        w.map(0, 4 * FOLIO, RW);
        if let Some(advice) = advice {
            w.advise(0, 4 * FOLIO, advice).unwrap();
        }
        w.put(21, 1);
        let there = present(&mut w, 0, 4 * FOLIO);
        assert_eq!(there.len(), pages, "{policy:?} {advice:?}");
        assert!(there.contains(&21));
        w.end();
    }
}

/// Populating goes as faults do, and finds the pages of a folio there.
#[test]
fn populated_memory_has_folios_too() {
    let mut w = advised(40);
    w.advise(0, 40, Advice::PopulateWrite).unwrap();
    assert_eq!(present(&mut w, 0, 40).len(), 40);
    // An advice for a part of one splits it; page 3, and it alone, is written.
    w.put(3, 1);
    w.windows();
    w.advise(0, 4, Advice::Cold).unwrap();
    assert_eq!(w.windows(), [(0, 16)]);
    w.end();
}

#[test]
fn a_folio_lies_in_its_mapping_and_on_nothing() {
    let mut w = advised(64);
    w.get(17).unwrap(); // the zero page
    w.put(18, 1);
    assert_eq!(present(&mut w, 0, 64), [17, 18]);
    w.mm.munmap(&mut w.thread.cx(), at(35), PAGE_SIZE).unwrap();
    w.put(36, 1);
    w.put(50, 1);
    let there: Vec<u64> = [17, 18, 36].into_iter().chain(48..64).collect();
    assert_eq!(present(&mut w, 0, 64), there);
    w.end();
}

/// Memory that a folio would exceed may have room for a page.
#[test]
fn a_page_alone_is_mapped_where_no_folio_is_free() {
    let mut w = advised(64);
    w.put(63, 1); // The tables are there, and the last pages.
    let inject = w.machine.mem().inject();
    inject.arm(1);
    w.mm.store(&mut w.thread.cx(), at(0), 1).unwrap();
    inject.disarm();
    assert_eq!(present(&mut w, 0, 48), [0]);
    w.machine
        .set_memory_limit(&mut w.thread.cx(), Some(30))
        .unwrap();
    w.put(20, 1);
    assert_eq!(present(&mut w, 0, 48), [0, 20]);
    w.end();
}

/// Each page of a folio goes when nothing maps it, and the last one with the folio.
#[test]
fn a_folio_goes_page_by_page() {
    let mut w = advised(FOLIO);
    w.put(0, 1);
    let before = w.machine.mem().in_use();
    for page in (0..FOLIO).rev() {
        w.advise(page, 1, Advice::DontNeed).unwrap();
        assert_eq!(u64::from(before - w.machine.mem().in_use()), FOLIO - page);
    }
    w.put(9, 1);
    assert_eq!(present(&mut w, 0, FOLIO).len(), 16);
    w.end();
}

/// A page that was given back, and is in other use, has no part in what its folio goes through.
#[test]
fn a_page_that_left_its_folio_is_left_alone() {
    let mut w = advised(FOLIO);
    w.fill(0, FOLIO);
    w.map(100, 1, RW);
    w.advise(0, 1, Advice::DontNeed).unwrap();
    w.put(100, 7); // The frame that was the first of the folio.
    w.windows();
    w.advise(1, 3, Advice::Cold).unwrap();
    assert_eq!(w.windows(), [(0, 16)], "the folio is split");
    assert!(w.mm.migrate(&mut w.thread.cx(), at(100)).unwrap().is_some());
    assert_eq!(w.windows(), [(100, 101)]);
    assert_eq!(w.get(100), Ok(7));
    w.check_rmap();
    w.end();
}

/// It moves as one, and stays one: an advice for a part splits it at its new place.
#[test]
fn a_folio_moves_as_one() {
    let mut w = advised(2 * FOLIO);
    w.fill(0, FOLIO);
    let frames = |w: &mut World| {
        let pages = w.mm.pagemap(&mut w.thread.cx(), World::pages(0, FOLIO));
        let anon = pages.into_iter().map(|(_, state)| match state {
            PageState::Anon(pfn) => pfn,
            other => panic!("{other:?}"),
        });
        anon.collect::<Vec<_>>()
    };
    let old = frames(&mut w);
    w.windows();
    assert!(w.mm.migrate(&mut w.thread.cx(), at(5)).unwrap().is_some());
    assert_eq!(w.windows(), [(0, 16)]);
    let new = frames(&mut w);
    assert!(old.iter().all(|pfn| !new.contains(pfn)));
    assert_eq!(
        (0..FOLIO).map(|p| w.get(p)).collect::<Vec<_>>(),
        [Ok(1); 16]
    );
    w.advise(3, 1, Advice::Cold).unwrap();
    assert_eq!(w.windows(), [(0, 16)]);
    w.check_rmap();
    w.end();
}

/// Reclaim asks all mappings of a folio for their use, and gives its pages up from the last one on,
/// but for the first.
#[test]
fn a_folio_is_one_page_to_reclaim() {
    let mut w = advised(FOLIO);
    w.fill(0, FOLIO);
    w.windows();
    w.advise(0, FOLIO, Advice::PageOut).unwrap();
    let mut expected = vec![(0, 16), (0, 1)];
    expected.extend((1..FOLIO).rev().map(|page| (page, page + 1)));
    assert_eq!(w.windows(), expected);
    w.fill(0, FOLIO);
    w.end();
}

/// The agings of these pages, one after the other.
fn aged(pages: std::ops::Range<u64>) -> String {
    let words: Vec<_> = pages.map(|page| format!("A{page}")).collect();
    words.join(" ")
}

/// A process and its child with a folio that was written, and that the process frees lazily; the
/// child too if `both`. The windows and agings of the process after that are told.
fn freed_folio(both: bool) -> (World, Arc<Mm>) {
    let mut w = advised(FOLIO);
    w.fill(0, 3);
    let child = w.mm.fork(&mut w.thread.cx()).unwrap();
    w.advise(0, FOLIO, Advice::Free).unwrap();
    if both {
        advise(&mut w, &child, Advice::Free);
    }
    w.told();
    (w, child)
}

fn advise(w: &mut World, mm: &Mm, advice: Advice) {
    let cx = &mut w.thread.cx();
    mm.madvise(cx, at(0), FOLIO * PAGE_SIZE, advice).unwrap();
}

/// Linux goes by one flag of the folio: it is marked although the child has it as well, and goes in
/// one window if the child has marked it too and nothing in it was written.
#[test]
fn a_folio_that_is_freed_lazily_goes_as_a_whole() {
    let (mut w, child) = freed_folio(true);
    w.machine.reclaim_all(&mut w.thread.cx());
    assert_eq!(w.told(), format!("{} W0..16", aged(0..16)));
    let all = w.mm.pagemap(&mut w.thread.cx(), World::pages(1, FOLIO));
    let is_out = |(_, state): &(_, PageState)| matches!(state, PageState::Swap);
    assert!(all.iter().all(is_out), "{all:?}");
    assert_eq!(child.load(&mut w.thread.cx(), at(0)), Ok(0));
    child.exit(&mut w.thread.cx());
    w.end();
}

/// The child has not given its pages up: the parent's go, in the window that finds that out, and
/// the folio stays. When the child pages it out it is split, and goes to swap page by page.
#[test]
fn a_folio_that_a_child_still_needs_goes_to_swap() {
    let (mut w, child) = freed_folio(false);
    w.machine.reclaim_all(&mut w.thread.cx());
    assert_eq!(w.told(), format!("{} W0..16", aged(0..16)));
    let all = w.mm.pagemap(&mut w.thread.cx(), World::pages(1, FOLIO));
    let is_out = |(_, state): &(_, PageState)| matches!(state, PageState::Swap);
    assert!(all.iter().all(is_out), "{all:?}");
    advise(&mut w, &child, Advice::PageOut);
    // The parent's mapping might have them still.
    assert_eq!(w.told(), "W0..16 W0..1 W2..3 W1..2");
    assert_eq!(child.load(&mut w.thread.cx(), at(2)), Ok(1));
    child.exit(&mut w.thread.cx());
    w.end();
}

/// `alloc_anon_folio`: the largest size that fits between the edges of the mapping and the pages
/// that are there.
#[test]
fn a_fault_takes_the_largest_size_that_fits() {
    let sizes = [FolioSize::Kib16, FolioSize::Kib64, FolioSize::Mib1];
    let folios = sizes.iter().fold(FolioPolicies::default(), |all, &size| {
        all.with(size, FolioPolicy::Always)
    });
    let mut w = World::with(MachineConfig {
        memory: MemConfig {
            frames: 2048,
            ..MemConfig::default()
        },
        folios,
        ..MachineConfig::default()
    });
    w.map(3, 600, RW);
    for (store, from, to) in [
        (3, 3, 4),
        (7, 4, 8),
        (8, 8, 12),
        (20, 16, 32),
        (255, 240, 256),
        (300, 256, 512),
        (513, 512, 528),
        (602, 602, 603),
    ] {
        let before = present(&mut w, 0, 604);
        w.put(store, 1);
        let mut came = present(&mut w, 0, 604);
        came.retain(|page| !before.contains(page));
        assert_eq!(
            came,
            (from..to).collect::<Vec<_>>(),
            "a store to page {store}"
        );
    }
    w.end();
}

/// `try_to_map_unused_to_zeropage`: locked memory keeps frames that hold only zeros.
#[test]
fn a_split_leaves_locked_pages_their_frames() {
    for locks in [false, true] {
        let mut w = advised(FOLIO);
        w.put(0, 1);
        let child = w.fork();
        w.put(0, 2);
        w.reap(&child);
        if locks {
            w.mm.mlock(&mut w.thread.cx(), at(0), FOLIO * PAGE_SIZE)
                .unwrap();
        }
        let cx = &mut w.thread.cx();
        assert_eq!(w.machine.split_deferred(cx), 1, "its first page went");
        let kept = w.pfn(5) != Some(w.machine.mem().zero_pfn());
        assert_eq!(kept, locks);
        w.end();
    }
}

/// `shrink_folio_list`: of a pinned folio that `MADV_FREE` has marked the mappings are looked at.
/// It stays, as one that is not marked does without a window.
#[test]
fn a_pinned_folio_stays_when_it_was_given_up() {
    for gives_up in [false, true] {
        let mut w = advised(FOLIO);
        w.put(0, 7);
        let mm = Arc::clone(&w.mm);
        let cx = &mut w.thread.cx();
        let pin = mm.pin(cx, at(3), 8, Access::Read, PinKind::LongTerm);
        if gives_up {
            w.advise(0, FOLIO, Advice::Free).unwrap();
        }
        w.told();
        w.advise(0, FOLIO, Advice::PageOut).unwrap();
        assert_eq!(w.told(), if gives_up { "W0..16" } else { "" });
        assert_eq!(w.get(0), Ok(7));
        drop(pin.unwrap());
        w.end();
    }
}

/// A part of a folio that is locked does not lock the folio, and does not so either when it comes
/// back from a move: its pages have places on the lists of reclaim, whichever of them is split off.
#[test]
fn a_locked_part_locks_no_folio_that_moves() {
    let mut w = advised(FOLIO);
    (0..FOLIO).for_each(|n| w.put(n, 1));
    w.lock(2, FOLIO - 2).unwrap();
    let moved = w.mm.migrate(&mut w.thread.cx(), at(0)).unwrap();
    assert!(moved.is_some(), "as a whole");
    // Without its first page it moves page by page.
    w.munmap(0, 1).unwrap();
    let moved = w.mm.migrate(&mut w.thread.cx(), at(1)).unwrap();
    assert!(moved.is_some());
    assert!((1..FOLIO).all(|n| w.get(n) == Ok(1)));
    w.unlock(2, FOLIO - 2).unwrap();
    w.advise(1, FOLIO - 1, Advice::PageOut).unwrap();
    let all = w.mm.pagemap(&mut w.thread.cx(), World::pages(1, FOLIO));
    let is_out = |(_, state): &(_, PageState)| matches!(state, PageState::Swap);
    assert!(all.iter().all(is_out), "{all:?}");
    w.end();
}
