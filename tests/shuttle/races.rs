//! One page, one device that loads it, one operation that changes it: small enough that every
//! schedule with one change of mind is run. What the device loads must be what the page held at
//! some time during the load; and the oracle looks on.

use crate::{
    loads::{Device, Kind},
    run::{How, explore, must_fail},
    world::{BASE, PAGE, one_page},
};
use emmu::{
    Machine, MachineConfig, MemConfig, Mm,
    ctx::CallCx,
    mm::{Advice, MmapArgs},
    oracle::Oracle,
};
use shuttle::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

/// Before the device's first load, and between two.
const LOADS: usize = 3;

/// What happens to the page, step by step, and what it holds after each.
type Step = (fn(&Arc<Mm>, &mut CallCx<'_>), Option<u8>);

const DISCARD: [Step; 2] = [
    (
        |mm, cx| mm.madvise(cx, BASE, PAGE, Advice::DontNeed).unwrap(),
        Some(0),
    ),
    (|mm, cx| mm.store(cx, BASE, 2).unwrap(), Some(2)),
];
const REMAP: [Step; 3] = [
    (|mm, cx| mm.munmap(cx, BASE, PAGE).unwrap(), None),
    (|mm, cx| map(mm, cx), Some(0)),
    (|mm, cx| mm.store(cx, BASE, 2).unwrap(), Some(2)),
];
/// The child keeps the frame, so a device that goes on with it reads what is old, and not what is
/// free.
const FORK: [Step; 1] = [(
    |mm, cx| {
        let child = mm.fork(cx).unwrap();
        mm.store(cx, BASE, 2).unwrap();
        assert_eq!(child.load(cx, BASE).unwrap(), 1);
        child.exit(cx);
    },
    Some(2),
)];

/// The page goes to the one slot, which then is another page's: a device that saw the first one
/// must not get it.
const RECLAIM: [Step; 4] = [
    (|mm, cx| page_out(mm, cx), Some(1)),
    (
        |mm, cx| mm.madvise(cx, BASE, PAGE, Advice::DontNeed).unwrap(),
        Some(0),
    ),
    (|mm, cx| mm.store(cx, BASE, 2).unwrap(), Some(2)),
    (|mm, cx| page_out(mm, cx), Some(2)),
];

fn page_out(mm: &Arc<Mm>, cx: &mut CallCx<'_>) {
    mm.madvise(cx, BASE, PAGE, Advice::PageOut).unwrap();
}
fn map(mm: &Arc<Mm>, cx: &mut CallCx<'_>) {
    mm.mmap(cx, &MmapArgs::anonymous(PAGE).fixed(BASE)).unwrap();
}

/// A page that holds 1, and a device on it and the page behind it that an oracle watches. The
/// device has been used, so it knows that every window that opens from now on calls it.
fn world(kind: Kind, swap: u32) -> (Arc<Machine>, Arc<Mm>, Arc<Oracle>, Device) {
    let (machine, mm) = one_page(MachineConfig {
        memory: MemConfig {
            frames: 16,
            swap,
            ..MemConfig::default()
        },
        ..MachineConfig::default()
    });
    let oracle = Oracle::new(&machine);
    // How long a window takes is the machine's matter.
    oracle.set_deadline(std::time::Duration::MAX);
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let device = Device::attach(kind, &mut cx, (&mm, &oracle), 2);
    assert_eq!(device.load(&mut cx, 1), None, "not mapped");
    drop(thread);
    (machine, mm, oracle, device)
}

/// Ends the process, then the device: nothing is left.
fn end(machine: &Arc<Machine>, mm: &Arc<Mm>, oracle: &Oracle, device: Device) {
    oracle.audit();
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    mm.exit(&mut cx);
    oracle.audit_end(mm);
    device.end(&mut cx);
    oracle.audit_empty(&mut cx, 0);
    oracle.assert_silent();
}

fn race(kind: Kind, steps: &'static [Step]) {
    let swap = u32::from(steps.len() == RECLAIM.len());
    let (machine, mm, oracle, device) = world(kind, swap);
    // Steps that have begun, and those that are done.
    let progress = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
    let (ma, m, p) = (Arc::clone(&machine), Arc::clone(&mm), Arc::clone(&progress));
    let operation = shuttle::thread::spawn(move || {
        let mut thread = ma.enter().unwrap();
        for (step, _) in steps {
            p[0].fetch_add(1, Ordering::SeqCst);
            step(&m, &mut thread.cx());
            p[1].fetch_add(1, Ordering::SeqCst);
        }
    });
    let ma = Arc::clone(&machine);
    let loads = shuttle::thread::spawn(move || {
        let mut thread = ma.enter().unwrap();
        for _ in 0..LOADS {
            let first = progress[1].load(Ordering::SeqCst);
            let got = device.load(&mut thread.cx(), 0);
            let last = progress[0].load(Ordering::SeqCst);
            let held = |n: usize| n.checked_sub(1).map_or(Some(1), |n| steps[n].1);
            assert!(
                (first..=last).any(|n| held(n) == got),
                "a stale load: {got:?}, and steps {first} to {last} were on their way"
            );
        }
        device
    });
    operation.join().unwrap();
    let device = loads.join().unwrap();
    end(&machine, &mm, &oracle, device);
}

/// A device stores while the process forks. What the child has then stays as it is, whatever the
/// device stores later.
fn stores_and_forks(kind: Kind) {
    let (machine, mm, oracle, device) = world(kind, 0);
    let (ma, m) = (Arc::clone(&machine), Arc::clone(&mm));
    let forks = shuttle::thread::spawn(move || {
        let mut thread = ma.enter().unwrap();
        let child = m.fork(&mut thread.cx()).unwrap();
        let seen = child.load(&mut thread.cx(), BASE).unwrap();
        (child, seen)
    });
    let ma = Arc::clone(&machine);
    let stores = shuttle::thread::spawn(move || {
        let mut thread = ma.enter().unwrap();
        (2..4).for_each(|byte| device.store(&mut thread.cx(), 0, byte));
        device
    });
    let (child, seen) = forks.join().unwrap();
    let device = stores.join().unwrap();
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    device.store(&mut cx, 0, 4);
    assert_eq!(
        child.load(&mut cx, BASE),
        Ok(seen),
        "the device wrote to the child"
    );
    assert_eq!(mm.load(&mut cx, BASE), Ok(4), "the device wrote elsewhere");
    child.exit(&mut cx);
    drop(thread);
    end(&machine, &mm, &oracle, device);
}

/// The operation looks at tables entry by entry: it is not held up at each, but for [`DISCARD`].
fn explore_race(kind: Kind, steps: &'static [Step], stride: usize) {
    // An importer's partition is a task as well.
    let tasks = if kind == Kind::Importer { 3 } else { 2 };
    explore(
        &[How::Sweep(tasks, stride), How::Random(100), How::Pct(100)],
        move || race(kind, steps),
    );
}

macro_rules! races {
    ($($name:ident: $kind:ident $steps:ident $stride:literal)*) => {$(
        #[test]
        fn $name() {
            explore_race(Kind::$kind, &$steps, $stride);
        }
    )*};
}
macro_rules! stores {
    ($($name:ident: $kind:ident)*) => {$(
        #[test]
        fn $name() {
            explore(&[How::Random(100), How::Pct(100)], || stores_and_forks(Kind::$kind));
        }
    )*};
}

races! {
    kvm_discard: Vcpu DISCARD 1
    kvm_remap: Vcpu REMAP 8
    kvm_fork: Vcpu FORK 32
    pfncache_discard: Cache DISCARD 1
    pfncache_remap: Cache REMAP 8
    pfncache_fork: Cache FORK 32
    gru_discard: Gru DISCARD 1
    gru_remap: Gru REMAP 8
    gru_fork: Gru FORK 32
    kvm_reclaim: Vcpu RECLAIM 4
    gru_reclaim: Gru RECLAIM 4
    xpmem_discard: Importer DISCARD 1
    xpmem_remap: Importer REMAP 8
    xpmem_fork: Importer FORK 32
    gpu_discard: Gpu DISCARD 1
    gpu_remap: Gpu REMAP 8
    gpu_fork: Gpu FORK 32
    odp_discard: Odp DISCARD 1
    odp_remap: Odp REMAP 8
    odp_fork: Odp FORK 32
    regcache_discard: RegCache DISCARD 1
    regcache_remap: RegCache REMAP 8
    regcache_fork: RegCache FORK 32
    sva_discard: Sva DISCARD 1
    sva_remap: Sva REMAP 8
    sva_fork: Sva FORK 32
    sva_reclaim: Sva RECLAIM 4
}

stores! {
    kvm_stores_against_fork: Vcpu
    pfncache_stores_against_fork: Cache
    gru_stores_against_fork: Gru
    xpmem_stores_against_fork: Importer
    gpu_stores_against_fork: Gpu
    odp_stores_against_fork: Odp
    regcache_stores_against_fork: RegCache
    sva_stores_against_fork: Sva
}

#[test]
fn twins_are_found() {
    for (test, mistake, why) in [
        ("kvm_discard", "no-retry", "O4: KVM translates"),
        ("kvm_remap", "no-retry", "O4: KVM translates"),
        ("kvm_fork", "no-retry", "O4: KVM translates"),
        ("pfncache_discard", "early-valid", "O4: KVM translates"),
        ("pfncache_fork", "early-valid", "O4: KVM translates"),
        ("gru_discard", "no-disarm", "stale reference to"),
        ("gru_remap", "no-disarm", "stale reference to"),
        ("gru_fork", "no-disarm", "a stale load"),
        ("xpmem_discard", "no-retry", "stale reference to"),
        ("xpmem_remap", "no-retry", "stale reference to"),
        ("xpmem_fork", "no-retry", "a stale load"),
        ("gpu_discard", "late-flush", "O4: GPU translates"),
        ("odp_discard", "fills-late", "stale reference to"),
        ("odp_fork", "fills-late", "stale reference to"),
        ("sva_discard", "uses-unlocked", "stale reference to"),
        ("sva_fork", "uses-unlocked", "stale reference to"),
    ] {
        must_fail(&format!("races::{test}"), mistake, why);
    }
}
