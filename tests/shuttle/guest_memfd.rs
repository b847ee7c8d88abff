//! One private page of a guest, a processor that loads it, and a thread that punches it out of its
//! file or converts it. No window of the address space tells of that: the machine's own account has
//! to. What the processor loads must be what the page held at some time during the load.

use crate::run::{How, explore, mistake, must_fail};
use emmu::{
    Machine, MachineConfig, MemConfig, Mm,
    addr::Vpn,
    ctx::CallCx,
    extmmu::kvm::{
        Gfn, GuestMemfd, GuestMemfdFlags, GuestMemoryMistake, MemSlot, MemoryAttributes, SlotFlags,
        Vcpu, Vm, VmConfig, VmType,
    },
    file::MemoryObject,
    mm::MmapArgs,
};
use shuttle::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

const BASE: u64 = 1 << 30;
const PAGE: u64 = emmu::PAGE_SIZE;
const LOADS: usize = 3;

/// What happens to the page, step by step, and what it holds after each; `None`: an access leaves
/// the guest.
type Step = (fn(&World, &mut CallCx<'_>), Option<u8>);

/// The page is private, and holds 1.
const PUNCH: [Step; 2] = [
    (
        |w, cx| w.memfd.punch_hole(cx.reborrow(), 0, PAGE).unwrap(),
        Some(0),
    ),
    (|w, cx| w.other.store(cx, 0, 2).unwrap(), Some(2)),
];
const CONVERT: [Step; 1] = [(|w, cx| w.convert(cx, MemoryAttributes::empty()), Some(5))];
const THERE_AND_BACK: [Step; 2] = [
    (|w, cx| w.convert(cx, MemoryAttributes::empty()), Some(5)),
    (|w, cx| w.convert(cx, MemoryAttributes::PRIVATE), Some(1)),
];
/// The slot goes, and comes back with another page of the file.
const REBIND: [Step; 2] = [
    (|w, cx| w.vm.delete_memory(cx, 0).unwrap(), None),
    (
        |w, cx| {
            let bound = w.vm.set_guest_memory(cx, SLOT, &w.memfd, PAGE);
            bound.unwrap();
        },
        Some(0),
    ),
];

const SLOT: MemSlot = MemSlot {
    id: 0,
    gfn: Gfn(0),
    pages: 1,
    hva: Vpn(BASE / PAGE),
    flags: SlotFlags::GUEST_MEMFD,
};

struct World {
    vm: Arc<Vm>,
    memfd: Arc<GuestMemfd>,
    other: Vcpu,
}

impl World {
    fn convert(&self, cx: &mut CallCx<'_>, to: MemoryAttributes) {
        self.vm.set_memory_attributes(cx, 0, PAGE, to).unwrap();
    }
}

fn config() -> VmConfig {
    let mistake = mistake().map(|m| match &*m {
        "unchecked-guest-fault" => GuestMemoryMistake::UncheckedGuestFault,
        "attributes-after-window" => GuestMemoryMistake::AttributesAfterWindow,
        "punch-keeps-entries" => GuestMemoryMistake::PunchKeepsEntries,
        _ => panic!("no mistake of guest files: {m}"),
    });
    VmConfig {
        vm_type: VmType::SwProtected,
        guest_mistake: mistake,
        ..VmConfig::default()
    }
}

fn race(steps: &'static [Step]) {
    let machine = Machine::new(MachineConfig {
        memory: MemConfig {
            frames: 16,
            ..MemConfig::default()
        },
        ..MachineConfig::default()
    });
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let mm = Mm::new(&machine);
    mm.mmap(&mut cx, &MmapArgs::anonymous(PAGE).fixed(BASE))
        .unwrap();
    mm.store(&mut cx, BASE, 5).unwrap();
    let (vm, _stays) = Vm::create(&mut cx, &mm, config());
    let memfd = vm.create_guest_memfd(2 * PAGE, GuestMemfdFlags::empty());
    let memfd = memfd.unwrap();
    vm.set_guest_memory(&mut cx, SLOT, &memfd, 0).unwrap();
    let (vcpu, other) = (vm.vcpu(&mut cx), vm.vcpu(&mut cx));
    let world = Arc::new(World { vm, memfd, other });
    world.convert(&mut cx, MemoryAttributes::PRIVATE);
    world.other.store(&mut cx, 0, 1).unwrap();
    // The file keeps the page, and the guest loses its entry: the first load faults.
    world.convert(&mut cx, MemoryAttributes::empty());
    world.convert(&mut cx, MemoryAttributes::PRIVATE);
    drop(thread);
    // Steps that have begun, and those that are done.
    let progress = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
    let (ma, w, p) = (
        Arc::clone(&machine),
        Arc::clone(&world),
        Arc::clone(&progress),
    );
    let operation = shuttle::thread::spawn(move || {
        let mut thread = ma.enter().unwrap();
        for (step, _) in steps {
            p[0].fetch_add(1, Ordering::SeqCst);
            step(&w, &mut thread.cx());
            p[1].fetch_add(1, Ordering::SeqCst);
        }
    });
    let ma = Arc::clone(&machine);
    let loads = shuttle::thread::spawn(move || {
        let mut thread = ma.enter().unwrap();
        for _ in 0..LOADS {
            let first = progress[1].load(Ordering::SeqCst);
            let got = vcpu.load(&mut thread.cx(), 0).ok();
            let last = progress[0].load(Ordering::SeqCst);
            let held = |n: usize| n.checked_sub(1).map_or(Some(1), |n| steps[n].1);
            assert!(
                (first..=last).any(|n| held(n) == got),
                "a stale load: {got:?}, and steps {first} to {last} were on their way"
            );
        }
        vcpu
    });
    operation.join().unwrap();
    let vcpu = loads.join().unwrap();
    assert_eq!(world.vm.audit_guest_memory(), []);
    let mut thread = machine.enter().unwrap();
    mm.exit(&mut thread.cx());
    drop((vcpu, world));
    assert_eq!(machine.mem().in_use(), 0);
}

fn explore_race(steps: &'static [Step]) {
    let hows = [How::Sweep(2, 1), How::Random(100), How::Pct(100)];
    explore(&hows, move || race(steps));
}

#[test]
fn fault_against_punch() {
    explore_race(&PUNCH);
}
#[test]
fn fault_against_conversion() {
    explore_race(&CONVERT);
}
#[test]
fn fault_against_conversion_and_back() {
    explore_race(&THERE_AND_BACK);
}
#[test]
fn fault_against_rebinding() {
    explore_race(&REBIND);
}

#[test]
fn twins_are_found() {
    let unchecked = "unchecked-guest-fault";
    for (test, mistake, why) in [
        ("fault_against_punch", unchecked, "stale reference to"),
        (
            "fault_against_punch",
            "punch-keeps-entries",
            "stale reference to",
        ),
        ("fault_against_conversion", unchecked, "WrongKind"),
        (
            "fault_against_conversion",
            "attributes-after-window",
            "WrongKind",
        ),
        ("fault_against_rebinding", unchecked, "a stale load"),
    ] {
        must_fail(&format!("guest_memfd::{test}"), mistake, why);
    }
}
