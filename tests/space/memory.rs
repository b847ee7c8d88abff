//! What becomes of pages: zero page, copy-on-write, forks, guards, advice, locks, table pages.

use crate::common::{
    PAGE, RW, World, at,
    calls::{FIXED, NONE, READ, STAY, ToErrno, private, shared},
};
use emmu::{
    FaultError, TASK_SIZE,
    mm::{Advice, MapFlags, MlockFlags, MlockallFlags, MremapFlags, PageState},
};

fn states(w: &mut World, from: u64, to: u64) -> Vec<PageState> {
    let range = World::pages(from, to);
    let map = w.mm.pagemap(&mut w.thread.cx(), range);
    map.into_iter().map(|(_, state)| state).collect()
}
fn frame_of(w: &mut World, page: u64) -> PageState {
    states(w, page, page + 1)[0]
}
fn in_use(w: &World) -> u32 {
    w.machine.mem().in_use()
}
fn written(n: u64) -> World {
    let mut w = World::new();
    w.map(0, n, RW);
    w.fill(0, n);
    w
}

mod copying {
    use super::*;

    #[test]
    fn reading_maps_the_zero_page_and_costs_no_frame() {
        let mut w = World::new();
        w.map(0, 4, RW);
        assert_eq!((w.get(0), w.get(1)), (Ok(0), Ok(0)));
        assert_eq!(states(&mut w, 0, 4), [PageState::Zero, PageState::Zero]);
        assert_eq!(in_use(&w), 0);
        assert_eq!(w.in_core(0, 3), Ok(vec![true, true, false]));
        w.put(0, 1);
        assert!(matches!(frame_of(&mut w, 0), PageState::Anon(_)));
        assert_eq!(in_use(&w), 1);
        w.end();
    }

    #[test]
    fn a_child_sees_the_parents_memory_of_the_moment_of_fork() {
        let mut w = written(4);
        let child = w.fork();
        assert_eq!(in_use(&w), 4);
        w.put(0, 2);
        w.inside(&child, |w| {
            assert_eq!((w.get(0), w.get(1)), (Ok(1), Ok(1)));
            w.put(1, 3);
        });
        assert_eq!((w.get(0), w.get(1)), (Ok(2), Ok(1)));
        assert_eq!(in_use(&w), 6);
        w.reap(&child);
        assert_eq!(in_use(&w), 4);
        w.end();
    }

    #[test]
    fn the_last_owner_writes_in_place() {
        for child_first in [false, true] {
            let mut w = written(1);
            let before = frame_of(&mut w, 0);
            let child = w.fork();
            if child_first {
                w.inside(&child, |w| w.put(0, 2));
            } else {
                w.reap(&child);
            }
            w.windows();
            w.put(0, 3);
            assert_eq!(frame_of(&mut w, 0), before);
            assert_eq!(w.windows(), []);
            w.reap(&child);
            w.end();
        }
    }

    #[test]
    fn a_copied_page_is_its_writers_own_from_then_on() {
        let mut w = written(1);
        let child = w.fork();
        w.put(0, 2);
        let copy = frame_of(&mut w, 0);
        w.protect(0, 1, READ).unwrap();
        w.protect(0, 1, RW).unwrap();
        w.put(0, 3);
        assert_eq!(frame_of(&mut w, 0), copy);
        assert_eq!(w.inside(&child, |w| w.get(0)), Ok(1));
        w.reap(&child);
        w.end();
    }

    #[test]
    fn grandchildren_hold_a_page_each_until_they_write() {
        let mut w = written(1);
        let child = w.fork();
        let grandchild = w.inside(&child, World::fork);
        let PageState::Anon(pfn) = frame_of(&mut w, 0) else {
            panic!("written memory is anonymous")
        };
        assert_eq!(w.machine.mem().mapcount(pfn), 3);
        w.inside(&child, |w| w.put(0, 2));
        w.reap(&w.mm.clone());
        assert_eq!(w.machine.mem().mapcount(pfn), 1);
        assert_eq!(w.inside(&grandchild, |w| w.get(0)), Ok(1));
        w.reap(&grandchild);
        w.reap(&child);
        w.end();
    }

    #[test]
    fn shared_memory_is_one_for_all_and_left_to_fault_in() {
        let mut w = World::new();
        w.share(0, 2);
        w.put(0, 1);
        let child = w.fork();
        w.inside(&child, |w| {
            assert_eq!(states(w, 0, 2), []);
            assert_eq!(w.get(0), Ok(1));
            w.put(1, 2);
        });
        assert_eq!(w.get(1), Ok(2));
        assert_eq!(w.promised(), 2, "promised once");
        w.reap(&child);
        w.end();
    }

    #[test]
    fn what_is_not_forked_and_what_is_wiped() {
        let mut w = written(6);
        w.advise(0, 2, Advice::DontFork).unwrap();
        w.advise(2, 2, Advice::WipeOnFork).unwrap();
        w.advise(3, 1, Advice::GuardInstall).unwrap();
        let child = w.fork();
        w.inside(&child, |w| {
            assert_eq!(w.spans(), [(2, 4), (4, 6)]);
            assert_eq!(states(w, 0, 6).len(), 2);
            assert_eq!((w.get(2), w.get(3), w.get(4)), (Ok(0), Ok(0), Ok(1)));
        });
        assert_eq!((w.get(0), w.get(2)), (Ok(1), Ok(1)));
        w.reap(&child);
        w.end();
    }

    #[test]
    fn droppable_memory_is_wiped_and_neither_promised_nor_locked() {
        let mut w = World::new();
        let mut args = private(0, 2).flags(MapFlags::DROPPABLE);
        args.flags -= MapFlags::PRIVATE;
        w.mmap(&args).unwrap();
        w.put(0, 1);
        assert_eq!(w.lock(0, 2), Ok(()));
        assert_eq!((w.promised(), w.locked()), (0, 0));
        let child = w.fork();
        assert_eq!(w.inside(&child, |w| w.get(0)), Ok(0));
        assert!(w.advise(0, 2, Advice::KeepOnFork).is_err());
        w.reap(&child);
        w.end();
    }

    #[test]
    fn no_lock_is_inherited() {
        let mut w = written(2);
        let all = MlockallFlags::CURRENT | MlockallFlags::FUTURE;
        w.mm.mlockall(&mut w.thread.cx(), all).unwrap();
        let child = w.fork();
        w.inside(&child, |w| {
            assert_eq!(w.locked(), 0);
            w.map(10, 1, RW);
            assert_eq!(w.locked(), 0);
        });
        w.reap(&child);
        assert_eq!(w.locked(), 2);
        w.end();
    }

    #[test]
    fn no_right_keeps_the_data() {
        let mut w = written(2);
        w.protect(0, 1, NONE).unwrap();
        assert_eq!(w.get(0), Err(FaultError::Denied(at(0))));
        w.protect(0, 1, READ).unwrap();
        assert_eq!(w.get(0), Ok(1));
        let cx = &mut w.thread.cx();
        assert_eq!(w.mm.store(cx, at(0), 2), Err(FaultError::Denied(at(0))));
        w.end();
    }
}

mod guarding {
    use super::*;

    #[test]
    fn guards_discard_and_outlive_everything_but_unmapping() {
        let mut w = written(8);
        w.advise(2, 2, Advice::GuardInstall).unwrap();
        assert_eq!(in_use(&w), 6);
        w.protect(0, 8, READ).unwrap();
        w.protect(0, 8, RW).unwrap();
        w.advise(0, 8, Advice::DontNeed).unwrap();
        w.advise(0, 8, Advice::Free).unwrap();
        w.remap(0, 8, 8, FIXED, 20);
        let child = w.fork();
        let guarded = Err(FaultError::Guarded(at(22)));
        assert_eq!(w.inside(&child, |w| w.get(22)), guarded);
        assert_eq!((w.get(22), w.get(21)), (guarded, Ok(0)));
        w.reap(&child);
        w.map(22, 1, RW);
        assert_eq!(w.get(22), Ok(0));
        w.advise(20, 8, Advice::GuardRemove).unwrap();
        assert_eq!(w.get(23), Ok(0));
        w.end();
    }

    #[test]
    fn removing_guards_keeps_pages() {
        let mut w = written(4);
        w.advise(1, 1, Advice::GuardInstall).unwrap();
        w.advise(0, 4, Advice::GuardRemove).unwrap();
        assert_eq!((w.get(0), w.get(1)), (Ok(1), Ok(0)));
        w.end();
    }

    #[test]
    fn a_source_left_behind_and_a_shrunk_mapping_lose_their_guards() {
        let mut w = written(4);
        w.advise(0, 4, Advice::GuardInstall).unwrap();
        w.remap(0, 4, 4, FIXED | MremapFlags::DONTUNMAP, 20);
        assert_eq!(w.get(0), Ok(0));
        w.remap(20, 4, 1, STAY, 0);
        w.remap(20, 1, 4, STAY, 0);
        assert!(w.get(20).is_err());
        assert_eq!(w.get(21), Ok(0));
        w.end();
    }
}

mod advising {
    use super::*;

    #[test]
    fn dont_need_drops_private_pages_whatever_the_rights_and_shows_shared_ones_again() {
        let mut w = written(2);
        w.protect(0, 1, NONE).unwrap();
        w.share(10, 1);
        w.put(10, 5);
        assert_eq!(w.advise(0, 2, Advice::DontNeed), Ok(()));
        w.advise(10, 1, Advice::DontNeed).unwrap();
        assert_eq!(in_use(&w), 1);
        w.protect(0, 1, READ).unwrap();
        assert_eq!((w.get(0), w.get(10)), (Ok(0), Ok(5)));
        w.end();
    }

    #[test]
    fn dont_need_leaves_the_child_its_pages() {
        let mut w = written(1);
        let child = w.fork();
        w.advise(0, 1, Advice::DontNeed).unwrap();
        assert_eq!(w.inside(&child, |w| w.get(0)), Ok(1));
        w.reap(&child);
        w.end();
    }

    #[test]
    fn populating_reads_the_zero_page_or_writes_frames() {
        let mut w = World::new();
        w.map(0, 4, RW);
        w.advise(0, 2, Advice::PopulateRead).unwrap();
        assert_eq!(states(&mut w, 0, 4), [PageState::Zero; 2]);
        w.advise(1, 3, Advice::PopulateWrite).unwrap();
        assert_eq!(in_use(&w), 3);
        w.end();
    }

    #[test]
    fn a_populated_mapping_is_written_if_private_and_writable() {
        let mut w = World::new();
        let populate = |args: emmu::mm::MmapArgs| args.flags(MapFlags::POPULATE);
        w.mmap(&populate(private(0, 2))).unwrap();
        assert_eq!(in_use(&w), 2);
        w.mmap(&populate(private(10, 2).prot(READ))).unwrap();
        assert_eq!(states(&mut w, 10, 12), [PageState::Zero; 2]);
        w.mmap(&populate(private(20, 2).prot(NONE))).unwrap();
        assert_eq!(states(&mut w, 20, 22), []);
        w.mmap(&populate(shared(30, 2))).unwrap();
        assert_eq!(in_use(&w), 4);
        w.mmap(&populate(private(40, 2)).flags(MapFlags::NONBLOCK))
            .unwrap();
        assert_eq!(states(&mut w, 40, 42), []);
        w.end();
    }

    #[test]
    fn failing_to_populate_is_ignored() {
        let mut w = World::on(crate::common::machine(2));
        let args = private(0, 4).flags(MapFlags::POPULATE | MapFlags::NORESERVE);
        assert_eq!(w.mmap(&args), Ok(at(0)));
        assert_eq!(in_use(&w), 2);
        w.end();
    }
}

mod locking {
    use super::*;

    #[test]
    fn locked_pages_are_present_and_counted_once() {
        let mut w = World::new();
        w.map(0, 4, RW);
        w.map(4, 2, READ);
        w.lock(0, 6).unwrap();
        w.lock(2, 3).unwrap();
        assert_eq!((w.locked(), in_use(&w)), (6, 4));
        assert_eq!(w.in_core(0, 6), Ok(vec![true; 6]));
        w.munmap(1, 2).unwrap();
        assert_eq!(w.locked(), 4);
        w.map(3, 1, RW);
        assert_eq!(w.locked(), 3, "what replaces it is not locked");
        w.unlock(4, 2).unwrap();
        assert_eq!(w.locked(), 1);
        w.end();
    }

    #[test]
    fn locks_move_with_the_mapping() {
        let mut w = World::new();
        w.map(0, 4, RW);
        w.lock(0, 4).unwrap();
        w.remap(0, 4, 4, FIXED, 20);
        assert_eq!(w.locked(), 4);
        w.remap(20, 4, 6, STAY, 0);
        assert_eq!((w.locked(), in_use(&w)), (6, 6));
        w.remap(20, 6, 1, STAY, 0);
        assert_eq!(w.locked(), 1);
        w.remap(20, 1, 1, FIXED | MremapFlags::DONTUNMAP, 40);
        assert_eq!(w.unlock(20, 1), Ok(()));
        assert_eq!(
            w.locked(),
            2,
            "the source left behind is not locked, but stays counted"
        );
        w.end();
    }

    #[test]
    fn locking_on_fault_fills_nothing_in() {
        let mut w = World::new();
        w.map(0, 4, RW);
        let cx = &mut w.thread.cx();
        let onfault = MlockFlags::ONFAULT;
        assert_eq!(w.mm.mlock2(cx, at(0), 4 * PAGE, onfault).sys(), Ok(()));
        assert_eq!((w.locked(), in_use(&w)), (4, 0));
        w.lock(0, 4).unwrap();
        assert_eq!((w.locked(), in_use(&w)), (4, 4));
        w.end();
    }

    #[test]
    fn the_future_lock_holds_for_mappings_and_heap_until_unlocked() {
        let mut w = World::new();
        w.map(0, 1, RW);
        w.mm.set_start_brk(&mut w.thread.cx(), at(100)).unwrap();
        let future = MlockallFlags::FUTURE;
        w.mm.mlockall(&mut w.thread.cx(), future).unwrap();
        assert_eq!(w.locked(), 0);
        w.map(10, 2, RW);
        w.mm.brk(&mut w.thread.cx(), at(102));
        assert_eq!((w.locked(), in_use(&w)), (4, 4));
        w.mm.munlockall(&mut w.thread.cx());
        assert_eq!(w.locked(), 0);
        w.map(20, 2, RW);
        assert_eq!(w.locked(), 0);
        w.end();
    }

    #[test]
    fn locked_read_only_memory_is_filled_in_when_it_becomes_writable() {
        let mut w = World::new();
        w.map(0, 2, READ);
        w.lock(0, 2).unwrap();
        assert_eq!(in_use(&w), 0);
        w.protect(0, 2, RW).unwrap();
        assert_eq!(in_use(&w), 2);
        w.end();
    }
}

mod tables {
    use super::*;

    /// Tables of one written page: three levels.
    const PATH: usize = 3;

    fn world() -> World {
        let mut w = World::new();
        w.map(0, 2048, RW);
        w
    }

    #[test]
    fn a_page_takes_three_tables_and_its_neighbour_none() {
        let mut w = world();
        assert_eq!(w.mm.tables(), 0);
        w.fill(0, 2);
        assert_eq!(w.mm.tables(), PATH);
        w.put(512, 1);
        assert_eq!(w.mm.tables(), PATH + 1);
        w.end();
    }

    #[test]
    fn unmapping_frees_tables_that_no_neighbour_reaches_into() {
        let mut w = world();
        w.fill(0, 1);
        w.put(512, 1);
        w.munmap(512, 511).unwrap();
        assert_eq!(w.mm.tables(), PATH + 1, "page 1023 is mapped, if not used");
        w.munmap(512, 512).unwrap();
        assert_eq!(
            w.mm.tables(),
            PATH,
            "the neighbour below ends at the table's start"
        );
        w.put(1024, 1);
        w.munmap(1024, 512).unwrap();
        assert_eq!(w.mm.tables(), PATH);
        w.munmap(0, 2048).unwrap();
        assert_eq!(w.mm.tables(), 0);
        w.end();
    }

    #[test]
    fn discarding_frees_only_tables_that_it_covers_whole() {
        let mut w = world();
        w.put(300, 1);
        w.put(600, 1);
        assert_eq!(w.mm.tables(), PATH + 1);
        w.advise(256, 512, Advice::DontNeed).unwrap();
        assert_eq!(w.mm.tables(), PATH + 1, "half of each");
        w.advise(1, 1023, Advice::DontNeed).unwrap();
        assert_eq!(w.mm.tables(), PATH, "the upper one");
        w.advise(0, 511, Advice::DontNeed).unwrap();
        assert_eq!(w.mm.tables(), PATH, "too small");
        w.advise(0, 512, Advice::DontNeed).unwrap();
        assert_eq!(w.mm.tables(), PATH - 1);
        w.end();
    }

    #[test]
    fn a_guard_keeps_its_table() {
        let mut w = world();
        w.advise(5, 1, Advice::GuardInstall).unwrap();
        w.advise(0, 512, Advice::DontNeed).unwrap();
        assert_eq!(w.mm.tables(), PATH);
        w.end();
    }

    #[test]
    fn a_child_gets_the_tables_of_what_is_copied() {
        let mut w = world();
        w.put(0, 1);
        w.put(1024, 1);
        w.share(1 << 19, 1);
        w.put(1 << 19, 1);
        let child = w.fork();
        assert_eq!(child.tables(), PATH + 1);
        w.reap(&child);
        w.end();
    }
}

#[test]
fn bytes_cross_pages_until_one_refuses() {
    let mut w = World::new();
    w.map(0, 3, RW);
    let cx = &mut w.thread.cx();
    let bytes: Vec<u8> = (0..=255).cycle().take(9000).collect();
    w.mm.write_bytes(cx, at(0) + 100, &bytes).unwrap();
    let mut out = vec![0; 9000];
    w.mm.read_bytes(cx, at(0) + 100, &mut out).unwrap();
    assert_eq!(out, bytes);
    let over = w.mm.write_bytes(cx, at(2) + 4000, &bytes[..200]);
    assert_eq!(over, Err(FaultError::NotMapped(at(3))));
    assert_eq!(w.mm.load(cx, at(2) + 4095), Ok(95), "up to there");
    w.end();
}

#[test]
fn faults_name_the_byte_that_was_touched() {
    let mut w = written(3);
    w.protect(1, 1, READ).unwrap();
    w.advise(2, 1, Advice::GuardInstall).unwrap();
    w.share(3, 1);
    w.remap(3, 1, 2, STAY, 0);
    let cx = &mut w.thread.cx();
    let denied = w.mm.store(cx, at(1) + 7, 1);
    assert_eq!(denied, Err(FaultError::Denied(at(1) + 7)));
    assert_eq!(
        w.mm.load(cx, at(2) + 1),
        Err(FaultError::Guarded(at(2) + 1))
    );
    assert_eq!(w.mm.load(cx, at(4) + 9), Err(FaultError::Beyond(at(4) + 9)));
    for beyond in [TASK_SIZE, u64::MAX] {
        let nothing = Err(FaultError::NotMapped(beyond));
        assert_eq!(w.mm.load(cx, beyond), nothing);
    }
    w.end();
}
