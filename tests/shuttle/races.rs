//! One page, one device that loads it, one operation that changes it: small enough that every
//! schedule with one change of mind is run. What the device loads must be what the page held at
//! some time during the load; and the oracle looks on.

use crate::run::{How, explore, mistake, must_fail};
use emmu::{
    Machine, MachineConfig, MemConfig, Mm,
    addr::{Vpn, VpnRange},
    ctx::CallCx,
    extmmu::{
        gru::{self, Gru, GruConfig, GruContext, GruSpace},
        kvm::{self, Gfn, MemSlot, PfnCache, SlotFlags, Vcpu, Vm, VmConfig},
        xpmem::{self, Attachment, Owner, OwnerConfig, Partition, PartitionId},
    },
    mm::{Advice, MmapArgs},
    notifier::{Access, ExternalMmu, Registration},
    oracle::Oracle,
};
use shuttle::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

const BASE: u64 = 1 << 30;
const PAGE: u64 = emmu::PAGE_SIZE;
/// Before the device's first load, and between two.
const LOADS: usize = 3;

/// What loads the page.
enum Device {
    /// A processor of a virtual machine.
    Vcpu(Vcpu),
    /// A machine's gfn-to-pfn cache.
    Cache(PfnCache),
    Gru(GruContext),
    Importer(Attachment),
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Vcpu,
    Cache,
    Gru,
    Importer,
}

impl Device {
    /// Attaches it, with the mistake that was asked for.
    fn attach(
        kind: Kind,
        cx: &mut CallCx<'_>,
        mm: &Arc<Mm>,
    ) -> (Self, Arc<dyn ExternalMmu>, Registration) {
        let wrong = mistake();
        match kind {
            Kind::Vcpu | Kind::Cache => {
                let mistake = wrong.map(|m| match &*m {
                    "no-retry" => kvm::KvmMistake::NoRetry,
                    "early-valid" => kvm::KvmMistake::EarlyValid,
                    _ => panic!("no mistake of KVM: {m}"),
                });
                let config = VmConfig {
                    mistake,
                    ..VmConfig::default()
                };
                let (vm, registration) = Vm::create(cx, mm, config);
                let slot = MemSlot {
                    id: 0,
                    gfn: Gfn(0),
                    pages: 1,
                    hva: Vpn::containing(BASE),
                    flags: SlotFlags::empty(),
                };
                vm.set_memory(cx, slot).unwrap();
                let device = if kind == Kind::Vcpu {
                    Self::Vcpu(vm.vcpu(cx))
                } else {
                    Self::Cache(vm.pfn_cache(0))
                };
                (device, vm, registration)
            }
            Kind::Gru => {
                let mistake = wrong.map(|m| match &*m {
                    "no-disarm" => gru::GruMistake::NoDisarm,
                    _ => panic!("no mistake of the GRU: {m}"),
                });
                let size = GruConfig {
                    tlb_entries: 4,
                    ..GruConfig::default()
                };
                let (gru, registration) = GruSpace::attach(cx, mm, &Gru::several(1, size), mistake);
                (
                    Self::Gru(GruContext::new(&gru, 0).unwrap()),
                    gru,
                    registration,
                )
            }
            Kind::Importer => {
                let mistake = wrong.map(|m| match &*m {
                    "no-retry" => xpmem::XpmemMistake::NoRetry,
                    _ => panic!("no mistake of XPmem: {m}"),
                });
                let config = OwnerConfig {
                    mistake,
                    ..OwnerConfig::default()
                };
                let (owner, registration) = Owner::attach(cx, mm, config);
                let page = VpnRange::single(Vpn::containing(BASE));
                let segment = owner.make(page, Access::Write);
                let partition = Partition::new(PartitionId(1));
                let importer = owner.import(&partition, segment, 0, 1).unwrap();
                (Self::Importer(importer), owner, registration)
            }
        }
    }
    /// `None`: nothing is mapped there.
    fn load(&self, cx: &mut CallCx<'_>) -> Option<u8> {
        let mut byte = [0];
        let done = match self {
            Self::Vcpu(vcpu) => vcpu.read(cx, 0, &mut byte).is_ok(),
            Self::Cache(cache) => cache.read(cx, 0, &mut byte).is_ok(),
            Self::Gru(context) => context.read(cx, BASE, &mut byte).is_ok(),
            Self::Importer(importer) => importer.read(cx, 0, &mut byte).is_ok(),
        };
        done.then_some(byte[0])
    }
}

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

fn race(kind: Kind, steps: &'static [Step]) {
    let machine = Machine::new(MachineConfig {
        memory: MemConfig {
            frames: 16,
            swap: u32::from(steps.len() == RECLAIM.len()),
            ..MemConfig::default()
        },
        ..MachineConfig::default()
    });
    let mm = Mm::new(&machine);
    let oracle = Oracle::new(&machine);
    // How long a window takes is the machine's matter.
    oracle.set_deadline(std::time::Duration::MAX);
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    map(&mm, &mut cx);
    mm.store(&mut cx, BASE, 1).unwrap();
    let (device, ext, _stays) = Device::attach(kind, &mut cx, &mm);
    oracle.watch(&mm, Arc::clone(&ext));
    drop(thread);
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
            let got = device.load(&mut thread.cx());
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
    oracle.audit();
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    mm.exit(&mut cx);
    oracle.audit_end(&mm);
    drop(device);
    oracle.audit_empty(&mut cx, 0);
    oracle.assert_silent();
    assert_eq!(ext.windows(), 0);
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
    ] {
        must_fail(&format!("races::{test}"), mistake, why);
    }
}
