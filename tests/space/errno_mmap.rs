//! Every errno of `mmap`, `munmap`, `mprotect`, `brk` and `fork`; where two errors compete, the one
//! that Linux finds first.

use crate::common::{
    PAGE, RW, World, at,
    calls::{NONE, READ, ToErrno, UNKNOWN_MAP_FLAG, private, shared, small_map},
};
use emmu::{
    Errno::{EAGAIN, EEXIST, EINVAL, ENOMEM, EOPNOTSUPP, EPERM},
    MachineConfig, Overcommit, TASK_SIZE,
    mm::{MapFlags, MlockallFlags, MmapArgs, Prot},
};
use std::sync::Arc;

/// The last page of user space.
const LAST: u64 = TASK_SIZE - PAGE;

fn anonymous(len: u64) -> MmapArgs {
    MmapArgs::anonymous(len)
}
fn fixed(addr: u64, len: u64) -> MmapArgs {
    anonymous(len).fixed(addr)
}
/// Mapping type bits as given, nothing else.
fn typed(bits: u32) -> MmapArgs {
    MmapArgs {
        flags: MapFlags::from_bits_retain(bits) | MapFlags::ANONYMOUS,
        ..anonymous(PAGE)
    }
}
fn of_object(w: &World, bits: u32) -> MmapArgs {
    MmapArgs {
        file: Some(crate::common::objects::empty(w)),
        flags: MapFlags::from_bits_retain(bits),
        ..anonymous(PAGE)
    }
}
fn never(limit: u64) -> World {
    World::with(MachineConfig {
        overcommit: Overcommit::Never { limit },
        ..MachineConfig::default()
    })
}

#[test]
fn mmap_an_unaligned_offset_comes_before_everything() {
    let mut w = World::new();
    for len in [0, 1, u64::MAX] {
        let args = MmapArgs {
            offset: 1,
            ..anonymous(len)
        };
        assert_eq!(w.mmap(&args), Err(EINVAL));
    }
}

#[test]
fn mmap_length_zero_is_invalid_even_when_the_map_is_full() {
    let mut w = small_map(4);
    w.crowd(5);
    assert_eq!(w.mmap(&anonymous(0)), Err(EINVAL));
    assert_eq!(w.mmap(&anonymous(1)), Err(ENOMEM));
}

#[test]
fn mmap_a_length_that_wraps_is_out_of_memory() {
    let mut w = World::new();
    for len in [u64::MAX, u64::MAX - PAGE + 2] {
        assert_eq!(w.mmap(&anonymous(len)), Err(ENOMEM));
        assert_eq!(w.mmap(&fixed(1, len)), Err(ENOMEM));
    }
    assert_eq!(w.mmap(&anonymous(u64::MAX - PAGE + 1)), Err(ENOMEM));
}

#[test]
fn mmap_lengths_up_to_the_size_of_user_space() {
    let config = |min| MachineConfig {
        mmap_min_addr: min,
        overcommit: Overcommit::Always,
        ..MachineConfig::default()
    };
    let mut w = World::with(config(0));
    assert_eq!(w.mmap(&anonymous(TASK_SIZE + 1)), Err(ENOMEM));
    assert_eq!(w.mmap(&anonymous(TASK_SIZE)), Err(ENOMEM), "page 0 is kept");
    assert_eq!(w.mmap(&fixed(0, TASK_SIZE + 1)), Err(ENOMEM));
    assert_eq!(w.mmap(&fixed(0, TASK_SIZE)), Ok(0));
    w.end();
}

#[test]
fn mmap_a_full_map_comes_before_placement_and_after_the_length() {
    let mut w = small_map(4);
    w.crowd(5);
    assert_eq!(w.mmap(&fixed(at(0) + 1, PAGE)), Err(ENOMEM));
    let over = private(1 << 20, 1).flags(MapFlags::FIXED_NOREPLACE);
    assert_eq!(w.mmap(&over), Err(ENOMEM), "not EEXIST");
    w.end();
}

#[test]
fn mmap_fixed_beyond_the_top_comes_before_unaligned() {
    let mut w = World::new();
    assert_eq!(w.mmap(&fixed(LAST + 1, PAGE)), Err(ENOMEM));
    assert_eq!(w.mmap(&fixed(LAST, 2 * PAGE)), Err(ENOMEM));
    assert_eq!(w.mmap(&fixed(LAST - 1, PAGE)), Err(EINVAL));
    assert_eq!(
        w.mmap(&fixed(u64::MAX, 1)),
        Err(EPERM),
        "an error by itself"
    );
    assert_eq!(w.mmap(&fixed(LAST, 1)), Ok(LAST));
    w.mm.store(&mut w.thread.cx(), LAST + PAGE - 1, 1).unwrap();
    w.mm.store(&mut w.thread.cx(), LAST + PAGE, 1).unwrap_err();
    w.end();
}

#[test]
fn mmap_page_zero_if_it_is_asked_for() {
    let mut w = World::with(MachineConfig {
        mmap_min_addr: 0,
        ..MachineConfig::default()
    });
    assert_eq!(w.mmap(&fixed(0, PAGE)), Ok(0));
    w.mm.store(&mut w.thread.cx(), 7, 1).unwrap();
    assert_eq!(w.mm.load(&mut w.thread.cx(), 7), Ok(1));
    assert_eq!(w.munmap_bytes(0, PAGE), Ok(()));
    w.mm.load(&mut w.thread.cx(), 7).unwrap_err();
    w.end();
}

#[test]
fn mmap_noreplace_implies_fixed_and_refuses_any_overlap() {
    let mut w = World::new();
    w.map(4, 2, RW);
    let at_most = |from, n| {
        let mut args = private(from, n).flags(MapFlags::FIXED_NOREPLACE);
        args.flags -= MapFlags::FIXED;
        args
    };
    assert_eq!(w.mmap(&at_most(3, 2)), Err(EEXIST));
    assert_eq!(w.mmap(&at_most(5, 1)), Err(EEXIST));
    assert_eq!(w.mmap(&at_most(0, 9)), Err(EEXIST));
    assert_eq!(w.mmap(&at_most(6, 1)), Ok(at(6)));
    let unaligned = MmapArgs {
        addr: at(4) + 1,
        ..at_most(4, 1)
    };
    assert_eq!(w.mmap(&unaligned), Err(EINVAL));
    w.end();
}

#[test]
fn mmap_an_overlap_comes_before_the_right_to_lock() {
    let mut w = World::new();
    w.map(0, 1, RW);
    w.limit(|l| (l.ipc_lock, l.memlock) = (false, 0));
    let locked = private(0, 1).flags(MapFlags::LOCKED);
    let noreplace = locked.clone().flags(MapFlags::FIXED_NOREPLACE);
    assert_eq!(w.mmap(&noreplace), Err(EEXIST));
    assert_eq!(w.mmap(&locked), Err(EPERM));
}

#[test]
fn mmap_locked_needs_the_right_and_room_in_its_limit() {
    let mut w = World::new();
    w.limit(|l| (l.ipc_lock, l.memlock) = (false, 2 * PAGE));
    let locked = |n| private(0, n).flags(MapFlags::LOCKED);
    assert_eq!(w.mmap(&locked(3)), Err(EAGAIN));
    assert_eq!(w.mmap(&locked(2)), Ok(at(0)));
    assert_eq!(w.locked(), 2);
    // What is replaced is not taken into account.
    assert_eq!(w.mmap(&locked(1)), Err(EAGAIN));
    w.limit(|l| l.memlock = 0);
    assert_eq!(w.mmap(&locked(1)), Ok(at(0)), "the right beats the limit");
    w.end();
}

#[test]
fn mmap_the_future_lock_obeys_the_limit_and_not_the_right() {
    let mut w = World::new();
    let future = MlockallFlags::FUTURE;
    w.mm.mlockall(&mut w.thread.cx(), future).unwrap();
    w.limit(|l| (l.ipc_lock, l.memlock) = (false, 0));
    assert_eq!(w.mmap(&private(0, 1)), Err(EAGAIN));
}

#[test]
fn mmap_lock_errors_come_before_the_mapping_type() {
    let mut w = World::new();
    w.limit(|l| (l.ipc_lock, l.memlock) = (false, 0));
    let untyped = typed(0).flags(MapFlags::LOCKED);
    assert_eq!(w.mmap(&untyped), Err(EPERM));
    w.limit(|l| (l.ipc_lock, l.memlock) = (false, PAGE));
    let untyped = MmapArgs {
        len: 2 * PAGE,
        ..untyped
    };
    assert_eq!(w.mmap(&untyped), Err(EAGAIN));
    w.limit(|_| ());
    assert_eq!(w.mmap(&untyped), Err(EINVAL));
}

#[test]
fn mmap_knows_three_types_of_anonymous_memory() {
    let mut w = World::new();
    for bits in [0, 3, 4, 5, 6, 7, 9, 12, 15] {
        assert_eq!(w.mmap(&typed(bits)), Err(EINVAL), "type {bits}");
    }
    for bits in [1, 2, 8] {
        assert!(w.mmap(&typed(bits)).is_ok(), "type {bits}");
    }
    w.end();
}

#[test]
fn mmap_unknown_flags_are_refused_only_by_validation_of_an_object() {
    let mut w = World::new();
    let unknown = UNKNOWN_MAP_FLAG.bits();
    assert!(w.mmap(&typed(1 | unknown)).is_ok());
    assert!(w.mmap(&typed(2 | unknown)).is_ok());
    assert!(w.mmap(&of_object(&w, 1 | unknown)).is_ok());
    assert!(w.mmap(&of_object(&w, 3)).is_ok());
    assert_eq!(w.mmap(&of_object(&w, 3 | unknown)), Err(EOPNOTSUPP));
    for bits in [0, 4, 8] {
        assert_eq!(w.mmap(&of_object(&w, bits)), Err(EINVAL), "type {bits}");
    }
    w.end();
}

/// Bit by bit as Linux answers for a memfd.
#[test]
fn mmap_validates_every_flag_of_a_shared_object() {
    let mut w = World::new();
    for bit in (6..32_u32).filter(|bit| *bit != 18) {
        let wanted = match bit {
            // Only anonymous memory grows.
            8 => Err(EINVAL),
            9 | 10 | 19..=25 | 31 => Err(EOPNOTSUPP),
            _ => Ok(()),
        };
        let got = w.mmap(&of_object(&w, 3 | 1 << bit)).map(|_| ());
        assert_eq!(got, wanted, "bit {bit}");
    }
    w.end();
}

#[test]
fn mmap_only_private_anonymous_memory_grows_down() {
    let mut w = World::new();
    let down = MapFlags::GROWSDOWN;
    assert!(w.mmap(&typed(2).flags(down)).is_ok());
    for args in [typed(1), typed(8), of_object(&w, 1), of_object(&w, 2)] {
        assert_eq!(w.mmap(&args.flags(down)), Err(EINVAL));
    }
    w.end();
}

#[test]
fn mmap_droppable_memory_cannot_be_asked_to_be_locked() {
    let mut w = World::new();
    assert_eq!(w.mmap(&typed(8).flags(MapFlags::LOCKED)), Err(EINVAL));
    let future = MlockallFlags::FUTURE;
    w.mm.mlockall(&mut w.thread.cx(), future).unwrap();
    assert!(w.mmap(&typed(8)).is_ok());
}

#[test]
fn mmap_more_than_all_memory_cannot_be_promised_at_once() {
    let mut w = World::on(crate::common::machine(16));
    assert_eq!(w.mmap(&private(0, 17)), Err(ENOMEM));
    assert_eq!(w.mmap(&shared(0, 17)), Err(ENOMEM));
    assert_eq!(w.mmap(&private(0, 16)), Ok(at(0)));
    assert_eq!(w.mmap(&private(16, 16)), Ok(at(16)), "twice is fine");
    let unreserved = private(100, 17).flags(MapFlags::NORESERVE);
    assert_eq!(w.mmap(&unreserved), Ok(at(100)));
    assert_eq!(w.mmap(&private(200, 17).prot(READ)), Ok(at(200)));
    assert_eq!(w.promised(), 32);
    w.end();
}

#[test]
fn mmap_with_overcommit_never_counts_everything_and_ignores_noreserve() {
    let mut w = never(9);
    assert_eq!(w.mmap(&private(0, 8)), Ok(at(0)));
    let unreserved = private(100, 1).flags(MapFlags::NORESERVE);
    assert_eq!(w.mmap(&unreserved), Err(ENOMEM));
    assert_eq!(w.mmap(&shared(100, 1)), Err(ENOMEM));
    assert_eq!(w.mmap(&private(4, 4)), Ok(at(4)), "what goes makes room");
    assert_eq!(w.mmap(&private(100, 1).prot(READ)), Ok(at(100)));
    w.end();
}

#[test]
fn mmap_of_a_sealed_range_comes_before_the_limits() {
    let mut w = World::new();
    w.map(0, 4, RW);
    w.seal(1, 2).unwrap();
    w.limit(|l| l.address_space = PAGE);
    assert_eq!(w.mmap(&private(0, 9)), Err(EPERM));
    assert_eq!(w.spans(), [(0, 1), (1, 3), (3, 4)]);
    assert_eq!(w.mmap(&private(10, 1)), Err(ENOMEM));
    w.end();
}

#[test]
fn munmap_invalid_ranges() {
    let mut w = World::new();
    w.mmap(&fixed(LAST, PAGE)).unwrap();
    for (addr, len) in [
        (at(0) + 1, PAGE),
        (at(0) + 1, 0),
        (at(0), 0),
        (TASK_SIZE + PAGE, PAGE),
        (TASK_SIZE, 0),
        (TASK_SIZE, 1),
        (LAST, PAGE + 1),
        (LAST, u64::MAX),
        (0, u64::MAX),
        (u64::MAX - PAGE + 1, PAGE),
    ] {
        assert_eq!(w.munmap_bytes(addr, len), Err(EINVAL), "{addr:#x} {len:#x}");
    }
    assert_eq!(w.munmap_bytes(LAST, PAGE), Ok(()));
    assert_eq!(w.munmap_bytes(0, TASK_SIZE), Ok(()));
    w.end();
}

#[test]
fn munmap_of_a_sealed_vma_changes_nothing() {
    let mut w = World::new();
    w.map(0, 8, RW);
    w.fill(0, 8);
    w.seal(6, 1).unwrap();
    assert_eq!(w.munmap(2, 6), Err(EPERM));
    assert_eq!(w.get(3), Ok(1));
    w.windows();
    assert_eq!(w.munmap(6, 1), Err(EPERM));
    assert_eq!(w.windows(), []);
    w.end();
}

#[test]
fn munmap_a_full_map_comes_before_a_seal() {
    let mut w = small_map(4);
    w.map(0, 4, RW);
    w.seal(0, 4).unwrap();
    w.crowd(4);
    assert_eq!(w.munmap(1, 1), Err(ENOMEM));
    assert_eq!(w.munmap(1, 3), Err(EPERM));
    w.end();
}

#[test]
fn mprotect_checks_in_order() {
    const BAD: Prot = Prot::from_bits_retain(1 << 20);
    let both = Prot::GROWSDOWN | Prot::GROWSUP;
    let mut w = World::new();
    w.map(0, 1, RW);
    let top = u64::MAX - PAGE + 1;
    let mut check = |addr, len, prot, wanted| {
        let got = w.protect_bytes(addr, len, prot);
        assert_eq!(got, wanted, "{addr:#x} {len:#x} {prot:?}");
    };
    check(at(0), 0, both, Err(EINVAL));
    check(at(0) + 1, 0, READ, Err(EINVAL));
    check(at(0), 0, BAD, Ok(()));
    check(at(9), 0, READ, Ok(()));
    check(top, PAGE, BAD, Err(ENOMEM));
    check(at(0), u64::MAX, BAD, Err(ENOMEM));
    check(at(9), PAGE, BAD, Err(EINVAL));
    check(at(9), PAGE, READ, Err(ENOMEM));
    check(LAST, PAGE, READ, Err(ENOMEM));
    check(TASK_SIZE, PAGE, READ, Err(ENOMEM));
    check(0, PAGE, READ, Err(ENOMEM));
    check(at(0), 1, READ, Ok(()));
}

#[test]
fn mprotect_growing_needs_something_that_grows() {
    let mut w = World::new();
    w.map(300, 1, RW);
    w.map_with(310, 4, RW, MapFlags::GROWSDOWN);
    let down = READ | Prot::GROWSDOWN;
    assert_eq!(w.protect(300, 1, down), Err(EINVAL));
    assert_eq!(w.protect(310, 4, READ | Prot::GROWSUP), Err(EINVAL));
    assert_eq!(w.protect(303, 2, down), Err(ENOMEM));
    assert_eq!(
        w.protect(304, 7, down),
        Ok(()),
        "from the start of the stack"
    );
    assert_eq!(w.protect(312, 1, down), Ok(()));
    assert_eq!(w.spans(), [(300, 301), (310, 313), (313, 314)]);
    w.end();
}

#[test]
fn mprotect_stops_at_a_hole_and_keeps_what_it_did() {
    let mut w = World::new();
    w.map(0, 2, RW);
    w.map(2, 2, READ);
    w.map(5, 1, RW);
    assert_eq!(w.protect(0, 6, NONE), Err(ENOMEM));
    assert_eq!(w.spans(), [(0, 4), (5, 6)], "changed and merged");
    assert_eq!(w.protect(4, 2, READ), Err(ENOMEM));
    assert_eq!(w.vmas()[1].2, "rw-p", "a start in a hole changes nothing");
    w.end();
}

#[test]
fn mprotect_stops_at_a_seal_and_keeps_what_it_did() {
    let mut w = World::new();
    w.map(0, 4, RW);
    w.seal(2, 1).unwrap();
    assert_eq!(w.protect(0, 4, READ), Err(EPERM));
    let rights: Vec<String> = w.vmas().into_iter().map(|v| v.2).collect();
    assert_eq!(rights, ["r--p", "rw-p", "rw-p"]);
    assert_eq!(w.protect(2, 1, RW), Err(EPERM), "even to what it has");
    w.end();
}

#[test]
fn mprotect_to_writable_obeys_the_commit_limit() {
    let mut w = never(9);
    w.map(0, 9, READ);
    assert_eq!(w.protect(0, 9, RW), Err(ENOMEM));
    assert_eq!(w.protect(0, 8, RW), Ok(()));
    assert_eq!(w.promised(), 8);
    assert_eq!(w.protect(8, 1, RW), Err(ENOMEM));
    assert_eq!(w.protect(0, 8, READ), Ok(()));
    assert_eq!(w.promised(), 0, "never written: given back");
    w.end();
}

#[test]
fn mprotect_to_writable_obeys_the_data_limit() {
    let mut w = World::new();
    w.map(0, 4, READ);
    w.share(10, 4);
    w.limit(|l| l.data = 2 * PAGE);
    assert_eq!(w.protect(0, 3, RW), Err(ENOMEM));
    assert_eq!(w.protect(0, 2, RW), Ok(()));
    assert_eq!(w.protect(2, 1, RW), Err(ENOMEM));
    assert_eq!(w.protect(10, 4, READ), Ok(()));
    assert_eq!(w.protect(10, 4, RW), Ok(()), "shared memory is no data");
    w.end();
}

#[test]
fn brk_that_fails_returns_the_old_break() {
    let mut w = small_map(8);
    let mm = Arc::clone(&w.mm);
    let brk = |w: &mut World, page: u64| mm.brk(&mut w.thread.cx(), at(page));
    w.mm.set_start_brk(&mut w.thread.cx(), at(10)).unwrap();
    assert_eq!(brk(&mut w, 9), at(10), "below the heap");
    assert_eq!(brk(&mut w, 14), at(14));
    w.map(20, 1, RW);
    assert_eq!(brk(&mut w, 20), at(14), "one page must stay free");
    assert_eq!(brk(&mut w, 25), at(14), "over a mapping");
    assert_eq!(brk(&mut w, 19), at(19));
    assert_eq!(w.mm.brk(&mut w.thread.cx(), TASK_SIZE + 1), at(19));
    assert_eq!(w.mm.brk(&mut w.thread.cx(), u64::MAX), at(19));
    assert_eq!(brk(&mut w, 12), at(12));
    w.limit(|l| l.data = 3 * PAGE);
    assert_eq!(brk(&mut w, 14), at(12), "RLIMIT_DATA");
    w.limit(|l| l.address_space = 3 * PAGE);
    assert_eq!(brk(&mut w, 13), at(12), "RLIMIT_AS");
    w.limit(|_| ());
    w.crowd(9);
    assert_eq!(brk(&mut w, 13), at(12), "a full map");
    assert_eq!(brk(&mut w, 11), at(11), "shrinking works");
    w.end();
}

#[test]
fn brk_obeys_the_commit_limit() {
    let mut w = never(4);
    let cx = &mut w.thread.cx();
    w.mm.set_start_brk(cx, at(0)).unwrap();
    assert_eq!(w.mm.brk(cx, at(4)), at(0));
    assert_eq!(w.mm.brk(cx, at(3)), at(3));
    w.end();
}

#[test]
fn brk_keeps_a_stack_above_at_a_distance() {
    let mut w = World::new();
    w.mm.set_start_brk(&mut w.thread.cx(), at(0)).unwrap();
    w.map_with(300, 1, RW, MapFlags::GROWSDOWN);
    let cx = &mut w.thread.cx();
    assert_eq!(w.mm.brk(cx, at(44)), at(0));
    assert_eq!(w.mm.brk(cx, at(43)), at(43));
    w.end();
}

#[test]
fn fork_obeys_the_commit_limit_and_leaves_no_child() {
    let mut w = never(9);
    w.map(0, 4, RW);
    w.map(10, 1, RW);
    w.fill(0, 4);
    let refused = w.mm.fork(&mut w.thread.cx()).sys();
    assert_eq!(refused.err(), Some(ENOMEM));
    assert_eq!((w.promised(), w.machine.mem().in_use()), (5, 4));
    w.munmap(10, 1).unwrap();
    let child = w.fork();
    assert_eq!(w.promised(), 8);
    w.fill(0, 4);
    w.reap(&child);
    w.end();
}
