//! Every errno of madvise, mlock, mincore, msync and mseal, and what stays done.

mod common;

use common::{PAGE, RW, World, at};
use emmu::{
    Errno, FaultError,
    mm::{
        Advice, Limits, MapFlags, MlockFlags, MlockallFlags, MmapArgs, MremapArgs, MremapFlags,
        MsyncFlags, Prot,
    },
};

fn madvise(w: &mut World, addr: u64, len: u64, advice: Advice) -> Result<(), Errno> {
    w.mm.madvise(&mut w.thread.cx(), addr, len, advice)
        .map_err(|e| e.errno())
}
fn msync(w: &mut World, addr: u64, len: u64, flags: MsyncFlags) -> Result<(), Errno> {
    w.mm.msync(&mut w.thread.cx(), addr, len, flags)
        .map_err(|e| e.errno())
}
fn mlock(w: &mut World, from: u64, n: u64) -> Result<(), Errno> {
    w.mm.mlock(&mut w.thread.cx(), at(from), n * PAGE)
        .map_err(|e| e.errno())
}

#[test]
fn madvise_checks_the_range_first() {
    let mut w = World::new();
    w.map(0, 4, RW);
    for advice in Advice::ALL {
        assert_eq!(
            madvise(&mut w, at(0) + 1, PAGE, *advice),
            Err(Errno::EINVAL)
        );
        assert_eq!(
            madvise(&mut w, at(0), u64::MAX, *advice),
            Err(Errno::EINVAL)
        );
        assert_eq!(
            madvise(&mut w, at(0), u64::MAX - PAGE, *advice),
            Err(Errno::EINVAL)
        );
        assert_eq!(madvise(&mut w, at(9), 0, *advice), Ok(()));
    }
    assert!(Advice::from_raw(7).is_none() && Advice::from_raw(-1).is_none());
    w.end();
}

#[test]
fn a_hole_is_reported_at_the_end() {
    let mut w = World::new();
    w.map(0, 2, RW);
    w.map(4, 2, RW);
    w.fill(0, 2);
    w.fill(4, 2);
    assert_eq!(
        madvise(&mut w, at(0), 6 * PAGE, Advice::DontNeed),
        Err(Errno::ENOMEM)
    );
    assert_eq!((w.get(1), w.get(5)), (Ok(0), Ok(0)));
    assert_eq!(
        madvise(&mut w, at(5), 9 * PAGE, Advice::DontFork),
        Err(Errno::ENOMEM)
    );
    assert_eq!(w.spans(), [(0, 2), (4, 5), (5, 6)]);
    w.end();
}

#[test]
fn advice_that_does_not_fit_the_mapping_is_invalid() {
    use Advice as A;
    let mut w = World::new();
    w.map_with(0, 2, RW, MapFlags::LOCKED);
    w.share(2, 2);
    w.map(6, 2, RW);
    for advice in [
        A::DontNeed,
        A::Free,
        A::Cold,
        A::PageOut,
        A::Remove,
        A::GuardInstall,
    ] {
        assert_eq!(
            madvise(&mut w, at(0), PAGE, advice),
            Err(Errno::EINVAL),
            "{advice:?}"
        );
    }
    assert_eq!(madvise(&mut w, at(0), PAGE, A::DontNeedLocked), Ok(()));
    for advice in [A::Free, A::WipeOnFork] {
        assert_eq!(
            madvise(&mut w, at(2), PAGE, advice),
            Err(Errno::EINVAL),
            "{advice:?}"
        );
    }
    for advice in [A::Remove, A::Collapse] {
        assert_eq!(
            madvise(&mut w, at(6), PAGE, advice),
            Err(Errno::EINVAL),
            "{advice:?}"
        );
    }
    assert_eq!(
        madvise(&mut w, at(2), PAGE, A::Remove),
        Err(Errno::EOPNOTSUPP)
    );
    w.end();
}

#[test]
fn droppable_memory_is_dropped_and_wiped() {
    let mut w = World::new();
    let droppable = MmapArgs {
        flags: MapFlags::DROPPABLE | MapFlags::ANONYMOUS | MapFlags::FIXED,
        ..MmapArgs::anonymous(PAGE).fixed(at(10))
    };
    w.mm.mmap(&mut w.thread.cx(), &droppable).unwrap();
    for advice in [Advice::KeepOnFork, Advice::DoDump] {
        assert_eq!(
            madvise(&mut w, at(10), PAGE, advice),
            Err(Errno::EINVAL),
            "{advice:?}"
        );
    }
    w.end();
}

#[test]
fn populating_says_what_is_missing() {
    let mut w = World::new();
    w.map(0, 2, Prot::READ);
    w.map(2, 1, Prot::empty());
    w.map(4, 2, RW);
    let (read, write) = (Advice::PopulateRead, Advice::PopulateWrite);
    assert_eq!(madvise(&mut w, at(0), 2 * PAGE, read), Ok(()));
    assert_eq!(madvise(&mut w, at(0), PAGE, write), Err(Errno::EINVAL));
    assert_eq!(madvise(&mut w, at(0), 3 * PAGE, read), Err(Errno::EINVAL));
    assert_eq!(madvise(&mut w, at(4), 4 * PAGE, write), Err(Errno::ENOMEM));
    assert_eq!(madvise(&mut w, at(5), PAGE, Advice::GuardInstall), Ok(()));
    assert_eq!(madvise(&mut w, at(4), 2 * PAGE, read), Err(Errno::EFAULT));
    w.end();
}

#[test]
fn a_split_at_the_limit_is_to_be_tried_again() {
    let mut w = World::with(emmu::MachineConfig {
        max_map_count: 2,
        ..emmu::MachineConfig::default()
    });
    w.map(0, 4, RW);
    w.map(6, 4, RW);
    assert_eq!(
        madvise(&mut w, at(1), PAGE, Advice::DontFork),
        Err(Errno::EAGAIN)
    );
    assert_eq!(madvise(&mut w, at(0), 4 * PAGE, Advice::DontFork), Ok(()));
    assert_eq!(mlock(&mut w, 7, 1), Err(Errno::ENOMEM));
    w.end();
}

#[test]
fn mlock_needs_the_right_the_limit_and_the_pages() {
    let mut w = World::new();
    w.map(0, 4, RW);
    w.map(6, 2, Prot::empty());
    let limits = |memlock| Limits {
        memlock,
        ipc_lock: false,
        ..Limits::default()
    };
    w.mm.set_limits(&mut w.thread.cx(), limits(0));
    assert_eq!(mlock(&mut w, 0, 1), Err(Errno::EPERM));
    w.mm.set_limits(&mut w.thread.cx(), limits(2 * PAGE));
    assert_eq!(mlock(&mut w, 0, 3), Err(Errno::ENOMEM));
    assert_eq!(mlock(&mut w, 0, 2), Ok(()));
    // Pages locked already are not counted twice.
    assert_eq!(mlock(&mut w, 0, 2), Ok(()));
    assert_eq!(mlock(&mut w, 1, 2), Err(Errno::ENOMEM));
    w.mm.set_limits(&mut w.thread.cx(), Limits::default());
    assert_eq!(mlock(&mut w, 2, 4), Err(Errno::ENOMEM));
    assert_eq!(mlock(&mut w, 6, 1), Err(Errno::ENOMEM));
    // The VMAs before the hole, and the one that cannot be populated, stay locked.
    assert_eq!(w.mm.sizes(&mut w.thread.cx()), (6, 5));
    assert_eq!(w.spans(), [(0, 4), (6, 7), (7, 8)]);
    let cx = &mut w.thread.cx();
    assert_eq!(
        w.mm.mlock(cx, at(0), u64::MAX - 2 * PAGE)
            .map_err(|e| e.errno()),
        Err(Errno::EINVAL)
    );
    assert_eq!(w.mm.mlock(cx, at(90), 0), Ok(()));
    let unknown = MlockFlags::from_bits_retain(2);
    let got = w.mm.mlock2(cx, at(0), PAGE, unknown).map_err(|e| e.errno());
    assert_eq!(got, Err(Errno::EINVAL));
    assert_eq!(
        w.mm.munlock(cx, at(0), 6 * PAGE).map_err(|e| e.errno()),
        Err(Errno::ENOMEM)
    );
    assert_eq!(w.mm.sizes(cx), (8 - 2, 1));
    w.end();
}

#[test]
fn mlockall_takes_known_flags_and_locks_the_future() {
    let mut w = World::new();
    w.map(0, 2, RW);
    let cx = &mut w.thread.cx();
    for bits in [0, 4, 8, 9] {
        let got = w.mm.mlockall(cx, MlockallFlags::from_bits_retain(bits));
        assert_eq!(got.map_err(|e| e.errno()), Err(Errno::EINVAL), "{bits}");
    }
    w.mm.mlockall(cx, MlockallFlags::CURRENT | MlockallFlags::FUTURE)
        .unwrap();
    w.map(4, 2, RW);
    assert_eq!(w.mm.sizes(&mut w.thread.cx()), (4, 4));
    assert_eq!(w.machine.mem().in_use(), 4);
    let child = w.mm.fork(&mut w.thread.cx()).unwrap();
    assert_eq!(child.sizes(&mut w.thread.cx()), (4, 0));
    child.exit(&mut w.thread.cx());
    w.mm.munlockall(&mut w.thread.cx());
    w.map(8, 1, RW);
    assert_eq!(w.mm.sizes(&mut w.thread.cx()), (5, 0));
    w.end();
}

#[test]
fn mincore_tells_present_pages() {
    let mut w = World::new();
    w.map(0, 4, RW);
    w.share(4, 2);
    w.put(1, 1);
    assert_eq!(w.get(2), Ok(0));
    w.put(5, 1);
    let cx = &mut w.thread.cx();
    let seen = w.mm.mincore(cx, at(0), 6 * PAGE).unwrap();
    assert_eq!(seen, [false, true, true, false, false, true]);
    let errno = |addr, len, cx: &mut _| w.mm.mincore(cx, addr, len).map_err(|e| e.errno());
    assert_eq!(errno(at(0) + 1, PAGE, cx), Err(Errno::EINVAL));
    assert_eq!(errno(at(0), u64::MAX, cx), Err(Errno::ENOMEM));
    assert_eq!(errno(at(5), 2 * PAGE, cx), Err(Errno::ENOMEM));
    assert_eq!(errno(at(9), 0, cx), Ok(vec![]));
    w.end();
}

#[test]
fn msync_checks_flags_range_holes_and_locks() {
    let mut w = World::new();
    w.map(0, 2, RW);
    w.map_with(2, 2, RW, MapFlags::LOCKED);
    let (sync, invalidate) = (MsyncFlags::SYNC, MsyncFlags::INVALIDATE);
    assert_eq!(
        msync(&mut w, at(0), PAGE, MsyncFlags::from_bits_retain(8)),
        Err(Errno::EINVAL)
    );
    assert_eq!(
        msync(&mut w, at(0), PAGE, sync | MsyncFlags::ASYNC),
        Err(Errno::EINVAL)
    );
    assert_eq!(msync(&mut w, at(0) + 1, PAGE, sync), Err(Errno::EINVAL));
    assert_eq!(
        msync(&mut w, at(0), u64::MAX - 2 * PAGE, sync),
        Err(Errno::ENOMEM)
    );
    assert_eq!(msync(&mut w, at(9), 0, sync), Ok(()));
    assert_eq!(msync(&mut w, at(0), 4 * PAGE, sync), Ok(()));
    assert_eq!(msync(&mut w, at(0), 5 * PAGE, sync), Err(Errno::ENOMEM));
    assert_eq!(
        msync(&mut w, at(0), 4 * PAGE, invalidate),
        Err(Errno::EBUSY)
    );
    assert_eq!(msync(&mut w, at(0), 2 * PAGE, invalidate), Ok(()));
    w.end();
}

#[test]
fn sealed_memory_stays() {
    let mut w = World::new();
    w.map(0, 4, Prot::READ);
    let cx = &mut w.thread.cx();
    let bad = w.mm.mseal(cx, at(0) + 1, PAGE).map_err(|e| e.errno());
    assert_eq!(bad, Err(Errno::EINVAL));
    let hole = w.mm.mseal(cx, at(2), 4 * PAGE).map_err(|e| e.errno());
    assert_eq!(hole, Err(Errno::ENOMEM));
    w.mm.mseal(cx, at(1), 2 * PAGE).unwrap();
    assert_eq!(w.spans(), [(0, 1), (1, 3), (3, 4)]);
    let cx = &mut w.thread.cx();
    let eperm = Some(Errno::EPERM);
    assert_eq!(
        w.mm.munmap(cx, at(0), 4 * PAGE).err().map(|e| e.errno()),
        eperm
    );
    assert_eq!(
        w.mm.mprotect(cx, at(2), PAGE, RW).err().map(|e| e.errno()),
        eperm
    );
    let over = MmapArgs::anonymous(PAGE).fixed(at(1));
    assert_eq!(w.mm.mmap(cx, &over).err().map(|e| e.errno()), eperm);
    let args = MremapArgs {
        addr: at(1),
        old_len: PAGE,
        new_len: PAGE,
        flags: MremapFlags::MAYMOVE | MremapFlags::FIXED,
        new_addr: at(50),
    };
    assert_eq!(w.mm.mremap(cx, args).err().map(|e| e.errno()), eperm);
    let drop_it = w.mm.madvise(cx, at(1), PAGE, Advice::DontNeed);
    assert_eq!(drop_it.err().map(|e| e.errno()), eperm);
    assert_eq!(w.mm.madvise(cx, at(1), PAGE, Advice::Normal), Ok(()));
    w.end();
}

#[test]
fn faults_say_why() {
    let mut w = World::new();
    w.map(0, 1, Prot::empty());
    w.map(1, 1, Prot::READ);
    w.map(2, 1, RW);
    w.share(3, 1);
    madvise(&mut w, at(2), PAGE, Advice::GuardInstall).unwrap();
    let args = MremapArgs {
        addr: at(3),
        old_len: PAGE,
        new_len: 2 * PAGE,
        flags: MremapFlags::empty(),
        new_addr: 0,
    };
    w.mm.mremap(&mut w.thread.cx(), args).unwrap();
    let cx = &mut w.thread.cx();
    let mm = &w.mm;
    assert_eq!(mm.load(cx, at(0) + 7), Err(FaultError::Denied(at(0) + 7)));
    assert_eq!(mm.store(cx, at(1), 1), Err(FaultError::Denied(at(1))));
    assert_eq!(mm.load(cx, at(2) + 1), Err(FaultError::Guarded(at(2) + 1)));
    assert_eq!(
        mm.store(cx, at(4) + 1, 1),
        Err(FaultError::Beyond(at(4) + 1))
    );
    assert_eq!(mm.load(cx, at(5)), Err(FaultError::NotMapped(at(5))));
    let signals = [at(0), at(4), at(5)].map(|a| mm.load(cx, a).unwrap_err().signal());
    use emmu::Signal::{Bus, Segv};
    assert_eq!(signals, [Some(Segv), Some(Bus), Some(Segv)]);
    w.end();
}
