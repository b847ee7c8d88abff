//! Every errno of `mremap`, in Linux's order of checks; what a refused call leaves behind.

use crate::common::{
    PAGE, RW, World, at,
    calls::{FIXED, KEEP, MAYMOVE, READ, STAY, remap, small_map},
};
use emmu::{
    Errno::{EAGAIN, EFAULT, EINVAL, ENOMEM, EPERM},
    FaultError, MachineConfig, Overcommit, TASK_SIZE,
    mm::{MremapArgs, MremapFlags},
};

const LAST: u64 = TASK_SIZE - PAGE;

/// A world with pages 0..8 mapped and written.
fn world() -> World {
    let mut w = World::new();
    w.map(0, 8, RW);
    w.fill(0, 8);
    w
}
/// The call with all arguments as they are.
fn raw(addr: u64, old_len: u64, new_len: u64, flags: u32, new_addr: u64) -> MremapArgs {
    MremapArgs {
        addr,
        old_len,
        new_len,
        flags: MremapFlags::from_bits_retain(flags),
        new_addr,
    }
}

#[test]
fn arguments_are_checked_before_anything_is_looked_at() {
    let mut w = World::new();
    // Nothing is mapped: whatever gets past the arguments is EFAULT.
    let (a, to) = (at(0), at(100));
    let top = u64::MAX - PAGE + 1;
    for args in [
        raw(a, PAGE, PAGE, 8, to),
        raw(a + 1, PAGE, PAGE, 1, to),
        raw(a, PAGE, 0, 1, to),
        raw(a, PAGE, u64::MAX, 1, to),
        raw(a, PAGE, TASK_SIZE + 1, 1, to),
        raw(a, PAGE, PAGE, 3, to + 1),
        raw(a, PAGE, PAGE, 3, TASK_SIZE),
        raw(a, PAGE, 2 * PAGE, 3, LAST),
        raw(a, PAGE, PAGE, 3, top),
        raw(a, PAGE, PAGE, 5, to + 1),
        raw(a, PAGE, PAGE, 5, TASK_SIZE),
        raw(a, PAGE, PAGE, 2, to),
        raw(a, PAGE, PAGE, 4, to),
        raw(a, PAGE, PAGE, 6, to),
        raw(a, PAGE, 2 * PAGE, 5, to),
        raw(a, 2 * PAGE, PAGE, 7, to),
        raw(a, 0, PAGE, 5, to),
    ] {
        assert_eq!(w.mremap(args), Err(EINVAL), "{args:?}");
    }
    for args in [
        raw(a, PAGE, PAGE, 0, 1),
        raw(a, PAGE, PAGE, 1, 1),
        raw(a, PAGE, 2 * PAGE, 1, u64::MAX),
        raw(a, PAGE, PAGE, 3, to),
        raw(a, PAGE, PAGE, 3, LAST),
        raw(a, PAGE, PAGE, 5, to),
        raw(a, PAGE, TASK_SIZE, 0, 0),
        raw(a, 0, PAGE, 1, 0),
        raw(LAST, PAGE, PAGE, 0, 0),
        raw(TASK_SIZE, PAGE, PAGE, 0, 0),
        raw(top, PAGE, PAGE, 0, 0),
    ] {
        assert_eq!(w.mremap(args), Err(EFAULT), "{args:?}");
    }
}

#[test]
fn overlapping_ranges_are_invalid_whichever_lies_lower() {
    let mut w = world();
    for (from, old, new, to) in [(0, 4, 4, 3), (3, 4, 4, 0), (0, 4, 1, 2), (4, 1, 8, 0)] {
        let args = remap(from, old, new, FIXED, to);
        assert_eq!(w.mremap(args), Err(EINVAL), "{args:?}");
    }
    // A hint does not have to be obeyed, and is refused all the same.
    assert_eq!(w.mremap(remap(0, 4, 4, KEEP, 3)), Err(EINVAL));
    assert_eq!(w.mremap(remap(0, 4, 4, FIXED, 4)), Ok(at(4)));
    w.end();
}

#[test]
fn a_fixed_move_needs_room_for_six_mappings_before_anything_else_is_looked_at() {
    // 7.1: refused at count + 2 >= max - 3.
    for (count, wanted) in [(4, Err(EFAULT)), (5, Err(ENOMEM))] {
        let mut w = small_map(10);
        w.crowd(count);
        assert_eq!(w.mremap(remap(0, 1, 1, FIXED, 9)), wanted);
        assert_eq!(w.mremap(remap(0, 1, 1, KEEP, 9)), wanted);
        assert_eq!(w.mremap(remap(0, 1, 2, MAYMOVE, 0)), Err(EFAULT));
        assert_eq!(w.mremap(remap(0, 1, 1, FIXED, 0)), Err(EINVAL));
        w.end();
    }
}

#[test]
fn any_move_needs_room_for_four_mappings() {
    for (count, wanted) in [(6, true), (7, false)] {
        let mut w = small_map(10);
        w.map(0, 1, RW);
        w.map(1, 1, READ);
        w.fill(0, 1);
        w.crowd(count);
        let moved = w.mremap(remap(0, 1, 2, MAYMOVE, 0));
        assert_eq!(moved.is_ok(), wanted, "at {count}");
        assert!(wanted || moved == Err(ENOMEM));
        if !wanted {
            assert_eq!(w.get(0), Ok(1));
        }
        w.end();
    }
}

#[test]
fn an_unmapped_start_is_a_bad_address_and_comes_after_the_flags() {
    let mut w = world();
    for flags in [STAY, MAYMOVE, FIXED, KEEP] {
        assert_eq!(w.mremap(remap(20, 1, 1, flags, 30)), Err(EFAULT));
    }
    assert_eq!(w.mremap(remap(20, 1, 2, STAY, 0)), Err(EFAULT));
    assert_eq!(w.mremap(remap(20, 2, 1, STAY, 0)), Err(EFAULT));
    // A later piece that is mapped does not help.
    assert_eq!(
        w.mremap(remap(20, 1, 1, MremapFlags::FIXED, 30)),
        Err(EINVAL)
    );
    w.map(21, 1, RW);
    assert_eq!(w.mremap(remap(20, 2, 2, FIXED, 30)), Err(EFAULT));
    w.end();
}

#[test]
fn sealed_memory_stays_as_it_is() {
    let mut w = world();
    w.seal(2, 2).unwrap();
    for args in [
        remap(2, 1, 1, STAY, 0),
        remap(2, 2, 1, STAY, 0),
        remap(2, 2, 4, MAYMOVE, 0),
        remap(2, 2, 2, FIXED, 20),
        remap(2, 2, 2, KEEP, 20),
        // Not mapped far enough, which would be EFAULT, and private, which would be EINVAL.
        remap(2, 4, 5, MAYMOVE, 0),
        remap(2, 0, 1, MAYMOVE, 0),
        // The tail and the target.
        remap(0, 4, 1, STAY, 0),
        remap(4, 2, 2, FIXED, 2),
    ] {
        assert_eq!(w.mremap(args), Err(EPERM), "{args:?}");
    }
    (0..8).for_each(|n| assert_eq!(w.get(n), Ok(1)));
    w.end();
}

#[test]
fn a_sealed_tail_still_loses_the_target() {
    let mut w = world();
    w.seal(2, 2).unwrap();
    w.map(20, 1, RW);
    assert_eq!(w.mremap(remap(0, 4, 1, FIXED, 20)), Err(EPERM));
    assert!(matches!(w.get(20), Err(FaultError::NotMapped(_))));
    assert_eq!(w.get(0), Ok(1));
    w.end();
}

#[test]
fn private_memory_cannot_be_duplicated() {
    let mut w = world();
    for flags in [STAY, MAYMOVE, FIXED] {
        assert_eq!(w.mremap(remap(0, 0, 2, flags, 20)), Err(EINVAL));
    }
    w.share(10, 4);
    assert_eq!(w.mremap(remap(10, 0, 2, STAY, 0)), Err(ENOMEM));
    assert_eq!(w.mremap(remap(10, 0, 2, FIXED, 20)), Ok(at(20)));
    w.end();
}

#[test]
fn what_grows_or_moves_must_lie_in_one_mapping() {
    let mut w = world();
    w.map(8, 4, READ);
    assert_eq!(w.mremap(remap(0, 9, 10, MAYMOVE, 0)), Err(EFAULT));
    assert_eq!(w.mremap(remap(0, 9, 10, STAY, 0)), Err(EFAULT));
    assert_eq!(w.mremap(remap(0, 9, 10, FIXED, 40)), Err(EFAULT));
    // Shrinking, only what is kept must.
    assert_eq!(w.mremap(remap(0, 12, 9, FIXED, 40)), Err(EFAULT));
    assert_eq!(w.spans(), [(0, 8), (8, 12)]);
    assert_eq!(w.mremap(remap(0, 12, 8, FIXED, 40)), Ok(at(40)));
    assert_eq!(w.spans(), [(40, 48)]);
    w.end();
}

#[test]
fn several_mappings_are_left_behind_only_at_a_fixed_place() {
    let mut w = world();
    w.map(8, 2, READ);
    assert_eq!(w.mremap(remap(0, 10, 10, KEEP, 40)), Err(EFAULT));
    let both = FIXED | MremapFlags::DONTUNMAP;
    assert_eq!(w.mremap(remap(0, 10, 10, both, 40)), Ok(at(40)));
    w.end();
}

#[test]
fn a_bad_range_comes_before_the_limits() {
    let mut w = world();
    w.limit(|l| l.address_space = PAGE);
    assert_eq!(w.mremap(remap(0, 9, 10, MAYMOVE, 0)), Err(EFAULT));
    assert_eq!(w.mremap(remap(0, 8, 9, STAY, 0)), Err(ENOMEM));
    assert_eq!(w.mremap(remap(0, 8, 7, STAY, 0)), Ok(at(0)));
    w.end();
}

#[test]
fn a_locked_mapping_grows_within_its_limit() {
    let mut w = world();
    w.lock(0, 8).unwrap();
    w.limit(|l| (l.ipc_lock, l.memlock, l.address_space) = (false, 9 * PAGE, PAGE));
    assert_eq!(w.mremap(remap(0, 8, 10, STAY, 0)), Err(EAGAIN));
    assert_eq!(w.mremap(remap(0, 8, 9, STAY, 0)), Err(ENOMEM));
    w.limit(|l| (l.ipc_lock, l.memlock) = (false, 9 * PAGE));
    assert_eq!(w.mremap(remap(0, 8, 9, STAY, 0)), Ok(at(0)));
    assert_eq!(w.locked(), 9);
    assert_eq!(
        w.in_core(8, 1),
        Ok(vec![true]),
        "the new part is faulted in"
    );
    w.end();
}

#[test]
fn the_data_limit_holds_for_private_writable_memory_alone() {
    let mut w = world();
    w.map(20, 2, READ);
    w.share(30, 2);
    w.limit(|l| l.data = 8 * PAGE);
    assert_eq!(w.mremap(remap(0, 8, 9, STAY, 0)), Err(ENOMEM));
    assert_eq!(w.mremap(remap(20, 2, 3, STAY, 0)), Ok(at(20)));
    assert_eq!(w.mremap(remap(30, 2, 3, STAY, 0)), Ok(at(30)));
    assert_eq!(w.mremap(remap(0, 8, 8, FIXED, 50)), Ok(at(50)));
    w.end();
}

#[test]
fn leaving_the_source_counts_twice_against_the_address_space() {
    let mut w = world();
    w.limit(|l| l.address_space = 15 * PAGE);
    assert_eq!(w.mremap(remap(0, 8, 8, KEEP, 50)), Err(ENOMEM));
    assert_eq!(w.mremap(remap(0, 8, 8, FIXED, 50)), Ok(at(50)));
    w.limit(|l| l.address_space = 16 * PAGE);
    assert_eq!(w.mremap(remap(50, 8, 8, KEEP, 0)).map(|_| ()), Ok(()));
    assert_eq!((w.mm.sizes(&mut w.thread.cx()).0, w.promised()), (16, 16));
    w.end();
}

#[test]
fn growing_obeys_the_commit_limit() {
    let mut w = World::with(MachineConfig {
        overcommit: Overcommit::Never { limit: 9 },
        ..MachineConfig::default()
    });
    w.map(0, 4, RW);
    w.map(4, 1, READ);
    w.fill(0, 4);
    assert_eq!(w.mremap(remap(0, 4, 9, MAYMOVE, 0)), Err(ENOMEM));
    assert_eq!(w.mremap(remap(4, 1, 9, STAY, 0)), Ok(at(4)));
    assert_eq!(w.munmap(4, 9), Ok(()));
    assert_eq!(w.mremap(remap(0, 4, 9, STAY, 0)), Err(ENOMEM));
    assert_eq!(w.mremap(remap(0, 4, 8, STAY, 0)), Ok(at(0)));
    // A plain move is charged what it adds: nothing.
    assert_eq!(w.mremap(remap(0, 8, 8, FIXED, 50)), Ok(at(50)));
    assert_eq!(w.mremap(remap(50, 8, 8, KEEP, 0)), Err(ENOMEM));
    assert_eq!((w.promised(), w.get(50)), (8, Ok(1)));
    w.end();
}

#[test]
fn growth_without_room_is_out_of_memory() {
    let mut w = world();
    w.map(8, 1, READ);
    assert_eq!(w.mremap(remap(0, 8, 9, STAY, 0)), Err(ENOMEM));
    // From the middle of a mapping never in place, though what follows is free.
    assert_eq!(w.munmap(8, 1), Ok(()));
    assert_eq!(w.mremap(remap(0, 4, 5, STAY, 0)), Err(ENOMEM));
    let end = MremapArgs {
        new_len: TASK_SIZE - at(0) + PAGE,
        ..remap(0, 8, 0, STAY, 0)
    };
    w.limit(|_| ());
    assert_eq!(w.mremap(end), Err(ENOMEM), "beyond the top");
    w.end();
}

#[test]
fn a_refused_call_leaves_target_and_tail() {
    let mut w = world();
    w.map(20, 4, RW);
    w.fill(20, 4);
    w.map(8, 1, READ);
    w.limit(|l| l.address_space = 13 * PAGE);
    for args in [
        remap(0, 9, 10, FIXED, 20),
        remap(0, 8, 9, FIXED, 20),
        remap(0, 0, 4, FIXED, 20),
        remap(30, 4, 4, FIXED, 20),
        remap(30, 4, 1, FIXED, 20),
    ] {
        assert!(w.mremap(args).is_err(), "{args:?}");
        assert_eq!(w.spans(), [(0, 8), (8, 9), (20, 24)], "{args:?}");
        assert_eq!(w.get(20), Ok(1));
    }
    w.end();
}
