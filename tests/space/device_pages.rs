//! Pages that lie on a device, under every operation: `docs/entries.md` has the table, and names
//! the tests here.

use crate::common::{
    PAGE, RW, World, at,
    mirror::{Board, Mirror, There, bytes, fill, pattern, world_of},
};
use emmu::{
    Errno, FaultError,
    addr::Vpn,
    error::UserfaultError,
    frame::AtomicOp,
    mm::{
        Advice, ForkMode, MapFlags, MigrateSelect, MigrateTo, MoveMode, MremapFlags, PageState,
        PinKind, Prot, ProtectMode, Pte, RegisterMode, Stays, UffdFeatures,
    },
    notifier::Access,
    oracle::Oracle,
};
use std::sync::{Arc, atomic::Ordering};

/// Two windows: one in which pages become marks, one in which holes are filled; a page comes home
/// in one.
#[test]
fn windows_of_a_migration() {
    let mut t = There::at_home(4);
    t.w.map(4, 4, RW);
    t.w.told();
    assert_eq!(t.go(2, 4), [Ok(()); 4]);
    assert_eq!(t.w.told(), "W2..6 W4..6");
    assert_eq!((t.there(3), t.there(4)), (Some(true), Some(true)));
    assert_eq!(t.w.told(), "");
    assert_eq!(bytes(&mut t.w, 2, 4), [3, 4, 0, 0]);
    assert_eq!(t.w.told(), "W2..3 W3..4 W4..5 W5..6");
    t.end();
}

/// Home by request, without a fault.
#[test]
fn pages_come_home_by_request() {
    let mut t = There::new(4);
    let (cx, select) = (&mut t.w.thread.cx(), MigrateSelect::DEVICE_PRIVATE);
    let mut seen = Vec::new();
    let args = emmu::mm::MigrateArgs {
        memory: &t.board.memory,
        range: World::pages(0, 4),
        select,
    };
    let done = t.w.mm.migrate_vma(cx, &args, |page| {
        seen.push((page.is_hole, page.on_device));
        match page.at == Vpn::containing(at(1)) {
            true => MigrateTo::Nowhere,
            false => MigrateTo::System,
        }
    });
    let outcome: Vec<_> = done
        .unwrap()
        .pages
        .into_iter()
        .map(|(_, why)| why)
        .collect();
    assert_eq!(outcome, [Ok(()), Err(Stays::Driver), Ok(()), Ok(())]);
    assert_eq!(seen, [(false, true); 4]);
    assert_eq!(t.w.told(), "W0..4");
    assert_eq!((t.there(0), t.there(1)), (None, Some(true)));
    assert!(!t.copies(2), "it is still nobody else's");
    t.end();
}

#[test]
fn a_fork_shares_a_page_on_a_device() {
    for mode in [ForkMode::Copy, ForkMode::Share] {
        let mut t = There::new(2);
        let child = t.w.mm.fork_with(&mut t.w.thread.cx(), mode).unwrap();
        assert_eq!((t.there(0), t.board.memory.in_use()), (Some(false), 2));
        // It comes home for both, read-only for both.
        assert_eq!(t.w.inside(&child, |w| w.get(0)), Ok(1), "{mode:?}");
        assert_eq!(t.there(0), None);
        assert!(matches!(t.w.pte(0), Pte::Present { write: false, .. }));
        t.w.inside(&child, |w| w.put(0, 0xee));
        t.w.inside(&child, |w| w.put(1, 0xee));
        assert_eq!((t.w.get(0), t.w.get(1)), (Ok(1), Ok(2)), "{mode:?}");
        t.w.reap(&child);
        t.end();
        // One that ends leaves it to the other.
        let mut t = There::new(1);
        let child = t.w.mm.fork_with(&mut t.w.thread.cx(), mode).unwrap();
        t.w.reap(&child);
        assert_eq!((t.board.memory.in_use(), t.w.get(0)), (1, Ok(1)));
        t.end();
    }
}

/// A page that several processes have goes to the device for all, and comes home for all.
#[test]
fn a_shared_page_goes_for_all() {
    let mut t = There::at_home(2);
    let child = t.w.fork();
    t.w.told();
    assert_eq!(t.go(0, 2), [Ok(()), Ok(())]);
    let there =
        t.w.inside(&child, |w| matches!(w.pte(0), Pte::Device { .. }));
    assert!(there && t.there(0) == Some(false) && t.board.memory.in_use() == 2);
    let cx = &mut t.w.thread.cx();
    assert_eq!(t.w.machine.evict_device(cx, &t.board.memory), 0);
    assert_eq!(t.w.inside(&child, |w| w.get(1)), Ok(2));
    assert_eq!(t.w.get(1), Ok(2));
    t.w.reap(&child);
    t.end();
}

#[test]
fn rights_change_on_a_device() {
    let mut t = There::new(2);
    t.w.protect(0, 1, Prot::READ).unwrap();
    assert_eq!(t.there(0), Some(false));
    t.w.protect(0, 1, RW).unwrap();
    assert_eq!(t.there(0), Some(false), "as on Linux, it stays read-only");
    assert_eq!(t.w.get(0), Ok(1));
    assert!(!t.copies(0), "it is still nobody else's");
    t.w.protect(1, 1, Prot::empty()).unwrap();
    assert_eq!(t.w.get(1), Err(FaultError::Denied(at(1))));
    assert_eq!(t.there(1), Some(false));
    t.end();
}

#[test]
fn a_page_moves_is_cut_and_given_up_with_its_entry() {
    let mut t = There::new(6);
    let how = MremapFlags::MAYMOVE | MremapFlags::FIXED;
    t.w.remap(0, 1, 1, how, 20);
    t.w.remap(1, 1, 1, how | MremapFlags::DONTUNMAP, 21);
    assert_eq!((t.there(20), t.there(21)), (Some(true), Some(true)));
    assert_eq!(bytes(&mut t.w, 20, 2), pattern(0, 2));
    t.w.advise(2, 1, Advice::DontNeed).unwrap();
    t.w.advise(3, 1, Advice::GuardInstall).unwrap();
    t.w.munmap(4, 1).unwrap();
    assert_eq!((t.board.memory.in_use(), t.w.get(2)), (1, Ok(0)));
    // The frames hold nothing of the pages before.
    assert_eq!(t.go(2, 1), [Ok(())]);
    assert_eq!(t.w.get(2), Ok(0));
    t.end();
}

#[test]
fn what_looks_for_pages_in_memory_passes_it_by() {
    let mut t = There::new(4);
    for advice in [Advice::Cold, Advice::PageOut, Advice::Free] {
        t.w.advise(0, 4, advice).unwrap();
    }
    let cx = &mut t.w.thread.cx();
    assert_eq!(t.w.machine.reclaim_all(cx), 0);
    assert_eq!(t.w.mm.migrate(cx, at(0)), Ok(None));
    let mm = Arc::clone(&t.w.mm);
    let merged =
        t.w.machine
            .merge_same_pages(cx, &[(&*mm, at(0)), (&*mm, at(0))]);
    assert_eq!(merged, 0);
    assert_eq!(t.w.in_core(0, 4), Ok(vec![true; 4]));
    let map = mm.pagemap(&mut t.w.thread.cx(), World::pages(0, 1));
    assert_eq!(map[0].1, PageState::Swap);
    assert_eq!(t.board.memory.in_use(), 4);
    t.end();
}

#[test]
fn what_needs_the_page_brings_it_home() {
    let mut t = There::new(512);
    t.w.lock(1, 1).unwrap();
    assert_eq!((t.there(1), t.w.locked()), (None, 1));
    t.w.unlock(1, 1).unwrap();
    let cx = &mut t.w.thread.cx();
    let pin =
        t.w.mm
            .pin(cx, at(2), 1, Access::Write, PinKind::Short)
            .unwrap();
    let mut byte = [0];
    t.w.mm.read_remote(cx, at(3), &mut byte).unwrap();
    assert_eq!((byte, t.there(2), t.there(3)), ([4], None, None));
    assert_eq!(t.go(2, 2), [Err(Stays::InUse), Ok(())], "pinned, free");
    drop(pin);
    t.end();

    let mut t = There::at_home(0);
    t.w.map(512, 512, RW);
    t.w.fill(512, 512);
    t.go(600, 2);
    t.w.advise(512, 512, Advice::Collapse).unwrap();
    assert_eq!((t.board.memory.in_use(), t.w.get(601)), (0, Ok(1)));
    t.end();
}

#[test]
fn write_protection_of_userfaultfd_goes_along() {
    let mut t = There::at_home(2);
    let uffd = t.w.userfaultfd(UffdFeatures::empty());
    t.w.register(&uffd, 0, 2, RegisterMode::WP);
    t.w.write_protect(&uffd, 0, 1, ProtectMode::WP);
    assert_eq!(t.go(0, 2), [Ok(()), Ok(())]);
    assert_eq!((t.there(0), t.there(1)), (Some(false), Some(true)));
    t.w.write_protect(&uffd, 1, 1, ProtectMode::WP);
    assert_eq!(
        (t.there(1), t.w.get(0), t.w.get(1)),
        (Some(false), Ok(1), Ok(2))
    );
    for n in 0..2 {
        let stored = t.w.mm.store(&mut t.w.thread.cx(), at(n), 9);
        assert_eq!(stored, Err(FaultError::Userfault(at(n))));
    }
    t.end();
}

#[test]
fn userfaultfd_neither_moves_nor_covers_it() {
    let mut t = There::new(2);
    t.w.map(8, 4, RW);
    let uffd = t.w.userfaultfd(UffdFeatures::empty());
    t.w.register(&uffd, 8, 4, RegisterMode::MISSING);
    let cx = &mut t.w.thread.cx();
    let moved = uffd.move_pages(cx, at(8), (at(0), PAGE), MoveMode::empty());
    assert_eq!(moved.map_err(UserfaultError::errno), Err(Errno::EFAULT));
    // The fault of a hole there is the handler's.
    assert_eq!(t.go(8, 1), [Err(Stays::Changed)]);
    assert_eq!((t.there(8), t.board.memory.in_use()), (None, 2));
    t.end();
}

/// `VM_FAULT_SIGBUS`: the device has lost the page, which stays there.
#[test]
fn a_page_that_is_lost_is_sigbus() {
    let mut t = There::new(2);
    t.board.lost.store(true, Ordering::Relaxed);
    let cx = &mut t.w.thread.cx();
    let lost = t.w.mm.load(cx, at(0) + 5);
    assert_eq!(lost, Err(FaultError::DeviceLost(at(0) + 5)));
    assert_eq!(lost.unwrap_err().signal(), Some(emmu::Signal::Bus));
    assert_eq!(t.w.machine.evict_device(cx, &t.board.memory), 2);
    assert_eq!((t.there(0), t.there(1)), (Some(true), Some(true)));
    t.board.lost.store(false, Ordering::Relaxed);
    assert_eq!(bytes(&mut t.w, 0, 2), [1, 2]);
    t.end();
}

/// Without a frame for it the page stays on the device, and nothing is lost.
#[test]
fn a_page_stays_when_memory_is_full() {
    let mut t = There::new(2);
    t.w.machine.mem().inject().arm(1);
    assert!(matches!(t.w.get(0), Err(FaultError::NoMemory(_))));
    assert_eq!(t.there(0), Some(true));
    t.w.machine.mem().inject().disarm();
    assert_eq!(t.w.get(0), Ok(1));
    t.end();
}

#[test]
fn what_stays_says_why() {
    let mut t = There::at_home(6);
    t.w.map(6, 2, Prot::READ);
    assert_eq!(t.w.get(6), Ok(0));
    t.w.advise(0, 1, Advice::PageOut).unwrap();
    t.w.advise(1, 1, Advice::GuardInstall).unwrap();
    t.w.mm
        .madvise(&mut t.w.thread.cx(), at(2), 2 * PAGE, Advice::Mergeable)
        .unwrap();
    t.w.put(3, 3);
    let mm = Arc::clone(&t.w.mm);
    let pages = [(&*mm, at(2)), (&*mm, at(3))];
    let merged = t.w.machine.merge_same_pages(&mut t.w.thread.cx(), &pages);
    assert_eq!(merged, 1);
    let held = t.w.mm.get_pages(&mut t.w.thread.cx(), at(4), 1).unwrap();
    let absent = Err(Stays::Absent);
    let merged = Err(Stays::Merged);
    assert_eq!(
        [t.go(0, 2), t.go(2, 2), t.go(4, 2), t.go(6, 2)].concat(),
        [
            absent,
            absent,
            merged,
            merged,
            Err(Stays::InUse),
            Ok(()),
            Ok(()),
            Ok(())
        ],
        "in swap, a guard, merged, held, free, the zero page, a hole"
    );
    assert_eq!(t.go(5, 1), [Err(Stays::NotSelected)], "it is there");
    drop(held);
    assert_eq!((t.there(5), t.there(6)), (Some(true), Some(false)));
    assert_eq!(bytes(&mut t.w, 5, 3), [6, 0, 0]);
    t.end();

    let mut t = There::at_home(0);
    let file = crate::common::objects::shmem(&mut t.w, 2);
    t.w.map_file(0, 2, &file, 0, MapFlags::PRIVATE);
    t.w.get(0).unwrap();
    assert_eq!(t.go(0, 2), [Err(Stays::OfObject); 2]);
    t.w.advise(0, 2, Advice::DontNeed).unwrap();
    assert_eq!(t.go(0, 2), [Err(Stays::Absent); 2]);
    assert_eq!(t.board.memory.in_use(), 0);
}

/// A device that is full takes what it can.
#[test]
fn a_full_device_takes_no_more() {
    let mut w = world_of(4, RW, 0);
    fill(&mut w, 0, 4);
    let (board, registration) = Board::add(&w, 3);
    let mirror = Mirror::with(&mut w.thread.cx(), &w.mm, Some(board.clone()));
    let mut t = There {
        w,
        board,
        mirror,
        registration,
    };
    assert_eq!(t.go(0, 4), [Ok(()), Ok(()), Ok(()), Err(Stays::NoFrame)]);
    assert_eq!(bytes(&mut t.w, 0, 4), pattern(0, 4));
    t.end();
}

/// Huge pages go as single pages; a page in the swap cache leaves it.
#[test]
fn huge_and_cached_pages_go_as_single_pages() {
    let mut t = There::at_home(0);
    t.w.map(512, 512, RW);
    t.w.advise(512, 512, Advice::HugePage).unwrap();
    t.w.put(512, 1);
    t.w.put(700, 7);
    assert_eq!(t.go(699, 3).len(), 3);
    assert_eq!(t.there(700), Some(true));
    assert_eq!((t.w.get(700), t.w.get(512)), (Ok(7), Ok(1)));
    t.end();

    let mut t = There::at_home(2);
    t.w.advise(0, 2, Advice::PageOut).unwrap();
    assert_eq!(bytes(&mut t.w, 0, 2), [1, 2]);
    assert_eq!(t.go(0, 2), [Ok(()), Ok(())]);
    assert_eq!(t.w.machine.mem().swap().used(), 0);
    assert_eq!(bytes(&mut t.w, 0, 2), [1, 2]);
    t.end();
}

/// The machine keeps the driver until every page is home.
#[test]
fn a_device_is_removed_when_its_pages_are_home() {
    let mut t = There::new(2);
    let weak = Arc::downgrade(&t.board);
    let child = t.w.fork();
    t.board.lost.store(true, Ordering::Relaxed);
    let cx = &mut t.w.thread.cx();
    let registration = t.w.machine.remove_device(cx, t.registration).unwrap_err();
    t.board.lost.store(false, Ordering::Relaxed);
    t.w.mm.exit(cx);
    drop((t.board, t.mirror));
    assert_eq!(
        t.w.inside(&child, |w| w.get(0)),
        Ok(1),
        "the driver is there"
    );
    t.w.machine
        .remove_device(&mut t.w.thread.cx(), registration)
        .unwrap();
    assert_eq!(t.w.inside(&child, |w| w.get(1)), Ok(2));
    t.w.reap(&child);
    drop(t.w);
    assert!(weak.upgrade().is_none());
}

/// Pages go to the device and come home, by request, by eviction and by accesses, while processes
/// count in them and fork: no count is lost, and no page is left behind.
#[test]
fn no_store_is_lost_while_pages_come_and_go() {
    const ROUNDS: u32 = 200;
    let mut t = There::at_home(4);
    (0..4).for_each(|n| t.w.put(n, 0));
    let oracle = Oracle::new(&t.w.machine);
    oracle.watch(&t.w.mm, t.mirror.clone());
    let (machine, mm) = (&t.w.machine, &t.w.mm);
    let (mirror, board) = (&t.mirror, &t.board);
    let (select, to) = (MigrateSelect::SYSTEM, MigrateTo::Device);
    std::thread::scope(|s| {
        for first in 0..2 {
            s.spawn(move || {
                let mut thread = machine.enter().unwrap();
                for round in 0..ROUNDS {
                    let page = at(u64::from(first + round) % 4);
                    let add = AtomicOp::Add(1_u32);
                    let cx = &mut thread.cx();
                    mm.atomic(cx, page, add, Ordering::Relaxed).unwrap();
                }
            });
        }
        s.spawn(|| {
            let mut thread = machine.enter().unwrap();
            for _ in 0..ROUNDS / 10 {
                let cx = &mut thread.cx();
                let child = mm.fork(cx).unwrap();
                (0..4).for_each(|n| assert!(child.load(cx, at(n)).is_ok()));
                child.exit(cx);
            }
        });
        for round in 0..ROUNDS {
            let cx = &mut t.w.thread.cx();
            mirror.migrate(cx, mm, (0, 4), select, to).unwrap();
            for page in World::pages(0, 4).iter() {
                mirror.map(cx, mm, page);
            }
            if round % 2 == 0 {
                machine.evict_device(cx, &board.memory);
            }
        }
    });
    let cx = &mut t.w.thread.cx();
    let counts = (0..4).map(|n| {
        t.w.mm
            .atomic(cx, at(n), AtomicOp::<u32>::Load, Ordering::Relaxed)
    });
    assert_eq!(counts.sum::<Result<u32, _>>(), Ok(2 * ROUNDS));
    oracle.assert_silent();
    t.end();
}
