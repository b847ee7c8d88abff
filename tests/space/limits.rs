//! Full maps, resource limits, promised memory: what fails and what still works there.

use crate::common::{
    PAGE, RW, World, at,
    calls::{FIXED, KEEP, MAYMOVE, READ, STAY, private, remap, shared, small_map},
};
use emmu::{
    Errno::{EAGAIN, ENOMEM},
    FaultError, MachineConfig, Overcommit,
    mm::{Advice, MapFlags},
};

const MAX: usize = 12;

/// One mapping of eight written pages in a map of `count` VMAs, of which `MAX` are allowed.
fn crowded(count: usize) -> World {
    let mut w = small_map(MAX);
    w.map(0, 8, RW);
    w.fill(0, 8);
    w.crowd(count);
    w
}
fn promising(overcommit: Overcommit) -> World {
    World::with(MachineConfig {
        overcommit,
        memory: emmu::MemConfig {
            frames: 64,
            ..Default::default()
        },
        ..MachineConfig::default()
    })
}

#[test]
fn mmap_reaches_one_more_than_the_limit() {
    let mut w = crowded(MAX);
    assert_eq!(w.mmap(&private(20, 1)), Ok(at(20)));
    assert_eq!(w.count(), MAX + 1);
    assert_eq!(w.mmap(&private(30, 1)), Err(ENOMEM));
    w.end();
}

#[test]
fn what_fails_beyond_the_limit() {
    let mut w = crowded(MAX + 1);
    assert_eq!(w.mmap(&private(8, 1)), Err(ENOMEM), "even to merge");
    assert_eq!(w.mmap(&private(0, 8)), Err(ENOMEM), "even to replace");
    assert_eq!(w.munmap(3, 1), Err(ENOMEM));
    assert_eq!(w.protect(3, 1, READ), Err(ENOMEM));
    assert_eq!(w.protect(0, 1, READ), Err(ENOMEM));
    assert_eq!(w.lock(3, 1), Err(ENOMEM));
    assert_eq!(w.advise(3, 1, Advice::DontFork), Err(EAGAIN));
    assert_eq!(w.seal(3, 1), Err(ENOMEM));
    assert_eq!(w.mremap(remap(0, 8, 8, FIXED, 40)), Err(ENOMEM));
    assert_eq!(w.mremap(remap(0, 8, 8, KEEP, 40)), Err(ENOMEM));
    assert_eq!(w.mremap(remap(0, 4, 5, MAYMOVE, 0)), Err(ENOMEM));
    assert_eq!(w.mremap(remap(0, 8, 4, FIXED, 40)), Err(ENOMEM));
    assert_eq!(w.spans()[0], (0, 8));
    (0..8).for_each(|n| assert_eq!(w.get(n), Ok(1)));
    w.end();
}

#[test]
fn what_works_beyond_the_limit() {
    let mut w = crowded(MAX + 1);
    assert_eq!(w.protect(0, 8, READ), Ok(()));
    assert_eq!(w.protect(0, 8, RW), Ok(()));
    assert_eq!(w.lock(0, 8), Ok(()));
    assert_eq!(w.unlock(0, 8), Ok(()));
    assert_eq!(w.advise(0, 8, Advice::Random), Ok(()));
    assert_eq!(w.advise(3, 1, Advice::DontNeed), Ok(()));
    assert_eq!(w.munmap(0, 1), Ok(()));
    assert_eq!(w.munmap(7, 1), Ok(()));
    assert_eq!(w.remap(1, 6, 9, STAY, 0), 1);
    assert_eq!(w.remap(1, 9, 4, STAY, 0), 1);
    let child = w.fork();
    assert_eq!(w.inside(&child, World::count), MAX + 1);
    assert_eq!(w.get(2), Ok(1));
    w.reap(&child);
    w.end();
}

#[test]
fn a_hole_in_the_middle_needs_room_for_one_more() {
    for (count, wanted) in [(MAX, Err(ENOMEM)), (MAX - 1, Ok(()))] {
        let mut w = crowded(count);
        assert_eq!(w.munmap(3, 1), wanted, "at {count}");
        w.end();
    }
}

#[test]
fn a_change_of_the_middle_needs_room_for_two_and_may_leave_the_first_split() {
    for (count, wanted, more) in [
        (MAX - 2, Ok(()), 2),
        (MAX - 1, Err(ENOMEM), 1),
        (MAX, Err(ENOMEM), 0),
    ] {
        let mut w = crowded(count);
        assert_eq!(w.protect(3, 1, READ), wanted, "at {count}");
        assert_eq!(w.count(), count + more);
        assert_eq!(w.get(3), Ok(1));
        let stored = w.mm.store(&mut w.thread.cx(), at(3), 1);
        assert_eq!(stored.is_ok(), wanted.is_err());
        w.end();
    }
}

#[test]
fn replacing_the_middle_of_a_mapping_needs_room_for_the_hole() {
    for (count, wanted) in [(MAX, Err(ENOMEM)), (MAX - 1, Ok(at(3)))] {
        let mut w = crowded(count);
        assert_eq!(w.mmap(&private(3, 1).prot(READ)), wanted, "at {count}");
        assert_eq!(w.get(3), Ok(u8::from(wanted.is_err())));
        w.end();
    }
}

#[test]
fn a_fixed_move_stops_five_short_of_the_limit() {
    // Refused at count + 2 >= max - 3.
    for (count, wanted) in [(MAX - 6, Ok(at(40))), (MAX - 5, Err(ENOMEM))] {
        let mut w = crowded(count);
        assert_eq!(w.mremap(remap(2, 2, 2, FIXED, 40)), wanted, "at {count}");
        w.end();
    }
}

#[test]
fn the_address_space_limit_counts_what_is_left() {
    let mut w = World::new();
    w.map(0, 4, RW);
    w.limit(|l| l.address_space = 6 * PAGE);
    assert_eq!(w.mmap(&private(10, 3)), Err(ENOMEM));
    assert_eq!(w.mmap(&private(2, 4)), Ok(at(2)), "net of what it replaces");
    assert_eq!(w.mmap(&shared(10, 1)), Err(ENOMEM));
    assert_eq!(w.mremap(remap(0, 6, 7, STAY, 0)), Err(ENOMEM));
    assert_eq!(w.mremap(remap(0, 6, 6, FIXED, 20)), Ok(at(20)));
    w.limit(|l| l.address_space = PAGE);
    assert_eq!(w.protect(20, 3, READ), Ok(()));
    assert_eq!(w.protect(20, 3, RW), Ok(()));
    assert_eq!(w.remap(20, 6, 5, STAY, 0), 20);
    assert_eq!(w.munmap(22, 1), Ok(()));
    w.end();
}

#[test]
fn limits_are_rounded_down_to_pages() {
    let mut w = World::new();
    w.limit(|l| (l.address_space, l.data) = (3 * PAGE - 1, 2 * PAGE - 1));
    assert_eq!(w.mmap(&private(0, 2)), Err(ENOMEM), "data");
    assert_eq!(w.mmap(&private(0, 1)), Ok(at(0)));
    assert_eq!(w.mmap(&private(1, 1).prot(READ)), Ok(at(1)));
    assert_eq!(w.mmap(&private(2, 1).prot(READ)), Err(ENOMEM));
    w.end();
}

#[test]
fn the_data_limit_counts_private_writable_memory_and_no_stack() {
    let mut w = World::new();
    w.limit(|l| l.data = 2 * PAGE);
    assert_eq!(w.mmap(&private(0, 3)), Err(ENOMEM));
    assert_eq!(w.mmap(&private(0, 2)), Ok(at(0)));
    assert_eq!(w.mmap(&private(10, 1)), Err(ENOMEM));
    for args in [
        private(10, 9).prot(READ),
        shared(20, 9),
        private(600, 9).flags(MapFlags::GROWSDOWN),
    ] {
        assert_eq!(w.mmap(&args), Ok(args.addr));
    }
    w.protect(1, 1, READ).unwrap();
    assert_eq!(w.mmap(&private(40, 1)), Ok(at(40)));
    w.end();
}

#[test]
fn promises_follow_the_mapping() {
    let mut w = World::new();
    w.map(0, 8, RW);
    w.map(10, 8, READ);
    w.map_with(20, 8, RW, MapFlags::NORESERVE);
    w.share(30, 8);
    assert_eq!(w.promised(), 16);
    w.protect(10, 2, RW).unwrap();
    w.protect(20, 2, READ).unwrap();
    w.protect(20, 2, RW).unwrap();
    assert_eq!(w.promised(), 18);
    w.munmap(0, 4).unwrap();
    w.munmap(30, 4).unwrap();
    assert_eq!(w.promised(), 14, "an object keeps its own");
    w.remap(4, 4, 6, STAY, 0);
    w.remap(4, 6, 6, FIXED, 50);
    assert_eq!(w.promised(), 16);
    w.remap(50, 6, 6, KEEP, 60);
    assert_eq!(w.promised(), 22);
    let child = w.fork();
    assert_eq!(w.promised(), 22 + 14, "all but the object");
    w.map(50, 6, READ);
    assert_eq!(w.promised(), 22 + 8);
    w.reap(&child);
    w.munmap(34, 4).unwrap();
    assert_eq!(w.promised(), 8);
    w.end();
}

#[test]
fn heuristic_overcommit_refuses_only_the_obviously_impossible() {
    let mut w = promising(Overcommit::Heuristic);
    assert_eq!(w.mmap(&private(0, 65)), Err(ENOMEM));
    for n in 0..4 {
        assert_eq!(w.mmap(&private(n * 64, 64)), Ok(at(n * 64)));
    }
    assert_eq!(w.mremap(remap(192, 64, 129, STAY, 0)), Err(ENOMEM));
    assert_eq!(w.mremap(remap(192, 64, 128, STAY, 0)), Ok(at(192)));
    let full = (0..).find_map(|n| w.mm.store(&mut w.thread.cx(), at(n), 1).err());
    assert!(matches!(full, Some(FaultError::NoMemory(_))));
    assert_eq!(w.machine.mem().in_use(), 64);
    w.end();
}

#[test]
fn overcommit_always_refuses_nothing_and_counts_all() {
    let mut w = promising(Overcommit::Always);
    assert_eq!(w.mmap(&private(0, 1 << 20)), Ok(at(0)));
    assert_eq!(w.promised(), 1 << 20);
    w.end();
}

#[test]
fn overcommit_never_stays_below_its_limit_over_all_processes() {
    let mut w = promising(Overcommit::Never { limit: 10 });
    w.map(0, 4, RW);
    let child = w.fork();
    assert_eq!(w.promised(), 8);
    assert_eq!(w.mmap(&private(10, 2)), Err(ENOMEM));
    assert_eq!(w.inside(&child, |w| w.mmap(&shared(10, 2))), Err(ENOMEM));
    assert_eq!(w.mmap(&private(10, 1)), Ok(at(10)));
    w.mm.fork(&mut w.thread.cx()).unwrap_err();
    assert_eq!(w.promised(), 9);
    w.reap(&child);
    assert_eq!(w.promised(), 5);
    w.end();
}
