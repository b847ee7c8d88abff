//! Every errno of `madvise`, `mlock` and its kin, `mincore`, `msync` and `mseal`; where two errors
//! compete, the one that Linux finds first; and what stays done when a walk stops.

use crate::common::{
    PAGE, RW, World, at,
    calls::{NONE, READ, STAY, Sys, ToErrno, small_map},
};
use emmu::{
    Errno::{EACCES, EAGAIN, EBUSY, EFAULT, EINVAL, ENOMEM, EPERM},
    FaultError, TASK_SIZE,
    mm::{Advice, MapFlags, MlockFlags, MlockallFlags, MmapArgs, MsyncFlags},
};

const TOP: u64 = u64::MAX - PAGE + 1;
const LAST: u64 = TASK_SIZE - PAGE;

/// A world with pages 0..8 mapped and written.
fn world() -> World {
    let mut w = World::new();
    w.map(0, 8, RW);
    w.fill(0, 8);
    w
}
/// Pages that may be locked by somebody without privileges.
fn lockable(w: &mut World, pages: u64) {
    w.limit(|l| (l.ipc_lock, l.memlock) = (false, pages * PAGE));
}
fn lock_all(w: &mut World, bits: u32) -> Sys<()> {
    let flags = MlockallFlags::from_bits_retain(bits);
    w.mm.mlockall(&mut w.thread.cx(), flags).sys()
}
fn lock_with(w: &mut World, from: u64, n: u64, bits: u32) -> Sys<()> {
    let flags = MlockFlags::from_bits_retain(bits);
    w.mm.mlock2(&mut w.thread.cx(), at(from), n * PAGE, flags)
        .sys()
}

fn private_object(w: &World, from: u64, n: u64) -> MmapArgs {
    MmapArgs {
        file: Some(crate::common::objects::empty(w)),
        flags: MapFlags::PRIVATE | MapFlags::FIXED,
        ..crate::common::calls::private(from, n)
    }
}

#[test]
fn madvise_unknown_advice_has_no_name_here() {
    for raw in [-1, 5, 6, 7, 26, 99, 104] {
        assert_eq!(Advice::from_raw(raw), None, "EINVAL on Linux");
    }
    for advice in Advice::ALL {
        assert_eq!(Advice::from_raw(*advice as i32), Some(*advice));
    }
}

#[test]
fn madvise_of_a_bad_range_is_invalid_and_of_no_range_nothing() {
    let mut w = World::new();
    for advice in [Advice::DontNeed, Advice::PopulateRead, Advice::Normal] {
        for (addr, len) in [
            (at(0) + 1, PAGE),
            (at(0) + 1, 0),
            (at(0), u64::MAX),
            (0, u64::MAX),
            (TOP, PAGE),
            (TOP, 2 * PAGE),
        ] {
            assert_eq!(w.advise_bytes(addr, len, advice), Err(EINVAL));
        }
        assert_eq!(w.advise(0, 0, advice), Ok(()));
        assert_eq!(w.advise_bytes(TOP, 0, advice), Ok(()));
        assert_eq!(w.advise(0, 1, advice), Err(ENOMEM));
        assert_eq!(w.advise_bytes(LAST, 2 * PAGE, advice), Err(ENOMEM));
        assert_eq!(w.advise_bytes(0, TOP, advice), Err(ENOMEM));
    }
}

#[test]
fn madvise_remembers_holes_and_does_everything_mapped() {
    let mut w = world();
    w.munmap(2, 2).unwrap();
    assert_eq!(w.advise(0, 8, Advice::DontNeed), Err(ENOMEM));
    assert_eq!((w.get(1), w.get(4), w.get(7)), (Ok(0), Ok(0), Ok(0)));
    assert_eq!(w.advise(2, 6, Advice::DontFork), Err(ENOMEM));
    let child = w.fork();
    assert_eq!(w.inside(&child, World::spans), [(0, 2)]);
    w.reap(&child);
    w.end();
}

#[test]
fn madvise_stops_at_another_error_and_keeps_what_came_before() {
    let mut w = world();
    w.munmap(2, 1).unwrap();
    w.lock(4, 2).unwrap();
    assert_eq!(w.advise(0, 8, Advice::DontNeed), Err(EINVAL), "not ENOMEM");
    let bytes: Vec<_> = (3..8).map(|n| w.get(n)).collect();
    assert_eq!(bytes, [Ok(0), Ok(1), Ok(1), Ok(1), Ok(1)]);
    w.end();
}

#[test]
fn madvise_of_locked_memory() {
    let mut w = world();
    w.lock(0, 8).unwrap();
    for advice in [
        Advice::DontNeed,
        Advice::Free,
        Advice::Cold,
        Advice::PageOut,
        Advice::Remove,
        Advice::GuardInstall,
    ] {
        assert_eq!(w.advise(0, 1, advice), Err(EINVAL), "{advice:?}");
    }
    for advice in [
        Advice::DontNeedLocked,
        Advice::WillNeed,
        Advice::GuardRemove,
        Advice::Random,
        Advice::PopulateWrite,
    ] {
        assert_eq!(w.advise(0, 1, advice), Ok(()), "{advice:?}");
    }
    w.end();
}

#[test]
fn madvise_free_and_wipe_are_for_private_anonymous_memory() {
    let mut w = world();
    w.share(20, 2);
    w.mmap(&private_object(&w, 30, 2)).unwrap();
    for advice in [Advice::Free, Advice::WipeOnFork] {
        assert_eq!(w.advise(0, 1, advice), Ok(()));
        assert_eq!(w.advise(20, 1, advice), Err(EINVAL), "{advice:?}");
        assert_eq!(w.advise(30, 1, advice), Err(EINVAL), "{advice:?}");
    }
    w.end();
}

#[test]
fn madvise_remove_needs_a_shared_object() {
    let mut w = world();
    w.mmap(&private_object(&w, 30, 2)).unwrap();
    assert_eq!(w.advise(0, 1, Advice::Remove), Err(EINVAL));
    assert_eq!(w.advise(30, 1, Advice::Remove), Err(EACCES));
    w.share(40, 1);
    w.lock(40, 1).unwrap();
    assert_eq!(w.advise(40, 1, Advice::Remove), Err(EINVAL));
    w.end();
}

#[test]
fn madvise_populate_needs_the_right_a_mapping_and_a_page() {
    let (read, write) = (Advice::PopulateRead, Advice::PopulateWrite);
    let mut w = world();
    w.map(10, 1, NONE);
    w.map(11, 1, READ);
    assert_eq!(w.advise(10, 1, read), Err(EINVAL));
    assert_eq!(w.advise(11, 1, read), Ok(()));
    assert_eq!(w.advise(11, 1, write), Err(EINVAL));
    assert_eq!(w.advise(7, 3, write), Err(ENOMEM));
    assert_eq!(w.advise(20, 1, write), Err(ENOMEM));
    w.share(30, 2);
    w.remap(30, 2, 4, STAY, 0);
    assert_eq!(w.advise(30, 3, read), Err(EFAULT));
    w.advise(1, 1, Advice::GuardInstall).unwrap();
    assert_eq!(w.advise(0, 2, read), Err(EFAULT));
    assert_eq!(w.advise(0, 2, write), Err(EFAULT));
    w.end();
}

#[test]
fn madvise_at_the_map_limit_is_again() {
    let mut w = small_map(4);
    w.map(0, 4, RW);
    w.crowd(4);
    for advice in [Advice::Random, Advice::DontFork, Advice::WipeOnFork] {
        assert_eq!(w.advise(1, 1, advice), Err(EAGAIN), "{advice:?}");
    }
    assert_eq!(w.advise(1, 1, Advice::DontNeed), Ok(()));
    assert_eq!(w.advise(1, 1, Advice::GuardInstall), Ok(()), "no split");
    assert_eq!(w.advise(0, 4, Advice::DontFork), Ok(()));
    w.end();
}

#[test]
fn madvise_guards_without_memory_are_out_of_memory_and_not_again() {
    let mut w = World::new();
    w.map(0, 1, RW);
    // The anon_vma, then three levels of tables, which stay.
    for nth in 1..=4 {
        w.machine.mem().inject().arm(nth.min(2));
        let refused = w.advise(0, 1, Advice::GuardInstall);
        w.machine.mem().inject().disarm();
        assert_eq!(refused, Err(ENOMEM), "attempt {nth}");
    }
    w.end();
}

#[test]
fn madvise_loses_no_data_of_sealed_private_memory_that_cannot_be_written() {
    let lossy = [
        Advice::DontNeed,
        Advice::DontNeedLocked,
        Advice::Free,
        Advice::Remove,
        Advice::DontFork,
        Advice::WipeOnFork,
        Advice::GuardInstall,
    ];
    let mut w = world();
    w.protect(0, 2, READ).unwrap();
    w.share(20, 2);
    w.protect(20, 2, READ).unwrap();
    w.seal(0, 8).unwrap();
    w.seal(20, 2).unwrap();
    for advice in lossy {
        assert_eq!(w.advise(0, 1, advice), Err(EPERM), "{advice:?}");
    }
    for advice in [Advice::Cold, Advice::Random, Advice::PopulateRead] {
        assert_eq!(w.advise(0, 1, advice), Ok(()), "{advice:?}");
    }
    assert_eq!(w.get(0), Ok(1));
    assert_eq!(w.advise(4, 1, Advice::DontNeed), Ok(()), "writable");
    assert_eq!(w.advise(20, 1, Advice::DontNeed), Ok(()), "shared");
    w.end();
}

/// `can_madvise_modify`: of a file, private copies are lost as well, though no store could have
/// changed them.
#[test]
fn madvise_takes_from_sealed_mappings_of_files_what_the_advice_takes_from_any() {
    let mut w = world();
    let file = crate::common::objects::shmem(&mut w, 8);
    w.map_file(20, 8, &file, 0, MapFlags::PRIVATE);
    w.put(20, 7);
    w.protect(20, 8, READ).unwrap();
    w.seal(20, 8).unwrap();
    for (advice, result) in [
        (Advice::DontFork, Ok(())),
        (Advice::Free, Err(EINVAL)),
        (Advice::WipeOnFork, Err(EINVAL)),
        (Advice::Remove, Err(EACCES)),
    ] {
        assert_eq!(w.advise(20, 1, advice), result, "{advice:?}");
    }
    for advice in [Advice::DontNeed, Advice::DontNeedLocked] {
        assert_eq!(w.advise(20, 1, advice), Ok(()), "{advice:?}");
        assert_eq!(w.get(20), Ok(1), "the file's own");
    }
    assert_eq!(w.advise(20, 1, Advice::GuardInstall), Ok(()));
    drop(file);
    w.end();
}

#[test]
fn mlock_needs_the_right_first_of_all() {
    let mut w = world();
    lockable(&mut w, 0);
    assert_eq!(w.lock(0, 0), Err(EPERM));
    assert_eq!(w.lock_bytes(at(0), TOP), Err(EPERM));
    assert_eq!(lock_with(&mut w, 0, 1, 2), Err(EINVAL), "but for the flags");
    assert_eq!(lock_with(&mut w, 0, 1, 1), Err(EPERM));
    assert_eq!(w.unlock(0, 8), Ok(()), "unlocking needs none");
}

#[test]
fn mlock_obeys_its_limit_before_it_looks_at_the_range() {
    let mut w = world();
    lockable(&mut w, 4);
    assert_eq!(w.lock(0, 5), Err(ENOMEM));
    assert_eq!(w.locked(), 0);
    assert_eq!(w.lock(0, 4), Ok(()));
    assert_eq!(w.lock(1, 3), Ok(()), "not counted twice");
    assert_eq!(w.lock(1, 4), Err(ENOMEM));
    // Too long and wrapping: the limit is looked at first.
    assert_eq!(w.lock_bytes(at(1), TOP), Err(ENOMEM));
    w.limit(|_| ());
    assert_eq!(w.lock_bytes(at(1), TOP), Err(EINVAL));
    w.end();
}

#[test]
fn mlock_rounds_outwards_and_to_nothing_what_wraps_in_rounding() {
    let mut w = world();
    assert_eq!(w.lock_bytes(at(1) + PAGE - 1, 2), Ok(()));
    assert_eq!(w.locked(), 2);
    assert_eq!(w.lock_bytes(at(0), u64::MAX), Ok(()));
    assert_eq!(w.lock_bytes(at(0), 0), Ok(()));
    assert_eq!(w.lock_bytes(TOP, 0), Ok(()));
    assert_eq!(w.locked(), 2);
    let all = w.mm.munlock(&mut w.thread.cx(), at(1), TOP);
    assert_eq!(all.sys(), Err(EINVAL));
    w.end();
}

#[test]
fn mlock_stops_at_a_hole_and_keeps_what_it_locked() {
    let mut w = world();
    w.munmap(3, 1).unwrap();
    assert_eq!(w.lock(0, 8), Err(ENOMEM));
    assert_eq!(w.locked(), 3);
    assert_eq!(w.lock(3, 1), Err(ENOMEM));
    assert_eq!(w.unlock(2, 4), Err(ENOMEM));
    assert_eq!(w.locked(), 2);
    assert_eq!(w.lock_bytes(LAST, PAGE), Err(ENOMEM));
    w.end();
}

#[test]
fn mlock_of_pages_that_cannot_be_had_is_out_of_memory_and_stays_locked() {
    let mut w = world();
    w.protect(0, 1, NONE).unwrap();
    w.advise(2, 1, Advice::GuardInstall).unwrap();
    w.share(20, 1);
    w.remap(20, 1, 2, STAY, 0);
    assert_eq!(w.lock(0, 1), Err(ENOMEM), "PROT_NONE");
    assert_eq!(w.lock(1, 2), Err(ENOMEM), "a guard");
    assert_eq!(w.lock(20, 2), Err(ENOMEM), "beyond the end");
    assert_eq!(w.locked(), 5);
    w.end();
}

#[test]
fn mlock_without_memory_is_again() {
    let mut w = World::on(crate::common::machine(4));
    w.map(0, 4, RW);
    w.map_with(4, 2, RW, MapFlags::NORESERVE);
    assert_eq!(w.lock(0, 6), Err(EAGAIN));
    assert_eq!(w.locked(), 6);
    w.end();
}

#[test]
fn mlock_at_the_map_limit_is_out_of_memory() {
    let mut w = small_map(4);
    w.map(0, 4, RW);
    w.crowd(4);
    assert_eq!(w.lock(1, 1), Err(ENOMEM));
    assert_eq!(w.lock(0, 4), Ok(()));
    assert_eq!(w.unlock(1, 1), Err(ENOMEM));
    w.end();
}

#[test]
fn mlock2_knows_one_flag() {
    let mut w = world();
    for flags in [2, 3, 1 << 31] {
        assert_eq!(lock_with(&mut w, 0, 8, flags), Err(EINVAL));
    }
    assert_eq!(lock_with(&mut w, 0, 2, 0), Ok(()));
    w.map(20, 2, RW);
    assert_eq!(lock_with(&mut w, 20, 2, 1), Ok(()));
    assert_eq!(w.in_core(20, 2), Ok(vec![false, false]), "only on fault");
    w.end();
}

#[test]
fn mlockall_flags_then_right_then_limit() {
    let mut w = world();
    lockable(&mut w, 0);
    for flags in [0, 4, 8, 9, 1 << 31] {
        assert_eq!(lock_all(&mut w, flags), Err(EINVAL), "flags {flags}");
    }
    for flags in [1, 2, 3, 5, 6, 7] {
        assert_eq!(lock_all(&mut w, flags), Err(EPERM), "flags {flags}");
    }
    lockable(&mut w, 7);
    assert_eq!(lock_all(&mut w, 1), Err(ENOMEM));
    assert_eq!(lock_all(&mut w, 3), Err(ENOMEM));
    assert_eq!(lock_all(&mut w, 2), Ok(()), "nothing now");
    lockable(&mut w, 8);
    assert_eq!(lock_all(&mut w, 1), Ok(()));
    assert_eq!(w.locked(), 8);
    w.end();
}

#[test]
fn mincore_errors() {
    let mut w = world();
    let mut check = |addr, len, wanted: Sys<usize>| {
        let got = w.mm.mincore(&mut w.thread.cx(), addr, len).sys();
        assert_eq!(got.map(|v| v.len()), wanted, "{addr:#x} {len:#x}");
    };
    check(at(0) + 1, 0, Err(EINVAL));
    check(TASK_SIZE + 1, PAGE, Err(EINVAL));
    check(LAST, 2 * PAGE, Err(ENOMEM));
    check(at(0), u64::MAX, Err(ENOMEM));
    check(TOP, 1, Err(ENOMEM));
    check(TOP, 0, Err(ENOMEM));
    check(TASK_SIZE, 0, Ok(0));
    check(at(100), 0, Ok(0));
    check(at(7), PAGE + 1, Err(ENOMEM));
    check(at(100), 1, Err(ENOMEM));
    check(at(0), 8 * PAGE - 1, Ok(8));
}

#[test]
fn msync_checks_in_order() {
    let (a, s, i) = (MsyncFlags::ASYNC, MsyncFlags::SYNC, MsyncFlags::INVALIDATE);
    let unknown = MsyncFlags::from_bits_retain(8);
    let mut w = world();
    let mut check = |addr, len, flags, wanted| {
        let got = w.mm.msync(&mut w.thread.cx(), addr, len, flags).sys();
        assert_eq!(got, wanted, "{addr:#x} {len:#x} {flags:?}");
    };
    check(at(0), 0, unknown, Err(EINVAL));
    check(at(0), 0, a | s, Err(EINVAL));
    check(at(0) + 1, 0, s, Err(EINVAL));
    check(TOP, 2 * PAGE, s, Err(ENOMEM));
    check(TOP, PAGE, s, Err(ENOMEM));
    check(at(0), u64::MAX, s, Ok(()));
    check(at(100), 0, s, Ok(()));
    check(at(100), 1, s, Err(ENOMEM));
    for flags in [MsyncFlags::empty(), a, s, i, a | i, s | i] {
        check(at(0), 8 * PAGE, flags, Ok(()));
    }
}

#[test]
fn msync_goes_on_behind_a_hole_and_finds_locked_memory() {
    let mut w = world();
    w.munmap(2, 2).unwrap();
    w.lock(6, 1).unwrap();
    assert_eq!(w.sync(0, 8, MsyncFlags::SYNC), Err(ENOMEM));
    assert_eq!(w.sync(0, 6, MsyncFlags::INVALIDATE), Err(ENOMEM));
    assert_eq!(w.sync(0, 7, MsyncFlags::INVALIDATE), Err(EBUSY));
    assert_eq!(w.sync(6, 9, MsyncFlags::INVALIDATE), Err(EBUSY));
    w.end();
}

#[test]
fn mseal_checks_the_whole_range_before_it_seals() {
    let mut w = world();
    let mut check = |addr, len, wanted| {
        let got = w.mm.mseal(&mut w.thread.cx(), addr, len).sys();
        assert_eq!(got, wanted, "{addr:#x} {len:#x}");
    };
    check(at(0) + 1, 0, Err(EINVAL));
    check(at(0), u64::MAX, Err(EINVAL));
    check(TOP, PAGE, Err(EINVAL));
    check(at(100), 0, Ok(()));
    check(at(0), 9 * PAGE, Err(ENOMEM));
    check(at(100), 1, Err(ENOMEM));
    assert_eq!(w.protect(0, 8, READ), Ok(()), "nothing was sealed");
    w.end();
}

#[test]
fn mseal_at_the_map_limit_is_out_of_memory() {
    let mut w = small_map(4);
    w.map(0, 4, RW);
    w.crowd(4);
    assert_eq!(w.seal(1, 1), Err(ENOMEM));
    assert_eq!(w.seal(0, 4), Ok(()));
    assert_eq!(w.seal(1, 1), Ok(()), "sealed already");
    w.end();
}

#[test]
fn faults_have_their_signal_and_their_errno() {
    let mut w = world();
    w.map(10, 1, NONE);
    w.share(20, 1);
    w.remap(20, 1, 2, STAY, 0);
    w.advise(1, 1, Advice::GuardInstall).unwrap();
    let signal = |e: FaultError| e.signal().map(|s| s.to_string());
    for (page, fault, name) in [
        (9, FaultError::NotMapped(at(9)), "SIGSEGV"),
        (10, FaultError::Denied(at(10)), "SIGSEGV"),
        (1, FaultError::Guarded(at(1)), "SIGSEGV"),
        (21, FaultError::Beyond(at(21)), "SIGBUS"),
    ] {
        let got = w.get(page).unwrap_err();
        assert_eq!((got, signal(got).as_deref()), (fault, Some(name)));
        assert_eq!(got.errno(), EFAULT);
    }
    w.end();
}
