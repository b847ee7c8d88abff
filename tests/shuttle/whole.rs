//! A virtual machine, a GRU and an XPmem owner on one address space: one task operates, one faults,
//! one uses all devices.

use crate::run::{How, explore};
use emmu::{
    Machine, MachineConfig, MemConfig, Mm,
    addr::{Vpn, VpnRange},
    extmmu::{
        gru::{Gru, GruConfig, GruContext, GruSpace},
        kvm::{Gfn, MemSlot, SlotFlags, Vm, VmConfig},
        xpmem::{Owner, OwnerConfig, Partition, PartitionId},
    },
    mm::{Advice, MmapArgs, Prot},
    notifier::{Access, ExternalMmu},
    oracle::Oracle,
};
use std::sync::Arc;

const BASE: u64 = 1 << 30;
const PAGE: u64 = emmu::PAGE_SIZE;
const PAGES: u64 = 2;

fn operate(machine: &Arc<Machine>, mm: &Mm) {
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let child = mm.fork(&mut cx).unwrap();
    let _refused = mm.store(&mut cx, BASE, 7);
    child.exit(&mut cx);
    mm.mprotect(&mut cx, BASE, PAGE, Prot::READ).unwrap();
    mm.madvise(&mut cx, BASE, PAGES * PAGE, Advice::DontNeed)
        .unwrap();
    mm.munmap(&mut cx, BASE, PAGE).unwrap();
}

fn use_devices(
    machine: &Arc<Machine>,
    vm: &Arc<Vm>,
    gru: &Arc<GruSpace>,
    owner: &Arc<Owner>,
) -> impl Send + use<> {
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let vcpu = vm.vcpu(&mut cx);
    let context = GruContext::new(gru, 0).unwrap();
    let partition = Partition::new(PartitionId(1));
    let whole = VpnRange::new(Vpn::containing(BASE), Vpn::containing(BASE + PAGES * PAGE)).unwrap();
    let segment = owner.make(whole, Access::Write);
    let importer = owner.import(&partition, segment, 0, PAGES).unwrap();
    for page in [0, 1, 0] {
        let at = page * PAGE;
        let _refused = vcpu.store(&mut cx, at, 1);
        let _refused = context.write(&mut cx, BASE + at, &[2]);
        let _refused = importer.write(&mut cx, at, &[3]);
        let _refused = vcpu.load(&mut cx, at);
        let _refused = context.read(&mut cx, BASE + at, &mut [0]);
        let _refused = importer.read(&mut cx, at, &mut [0]);
    }
    // What they have in their TLBs is looked at in the end.
    (vcpu, context, importer)
}

/// One schedule: a task that operates, one that uses all devices, one that faults.
fn world() {
    let machine = Machine::new(MachineConfig {
        memory: MemConfig {
            frames: 64,
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
    mm.mmap(&mut cx, &MmapArgs::anonymous(PAGES * PAGE).fixed(BASE))
        .unwrap();
    let (vm, _stays) = Vm::create(&mut cx, &mm, VmConfig::default());
    let slot = MemSlot {
        id: 0,
        gfn: Gfn(0),
        pages: PAGES,
        hva: Vpn::containing(BASE),
        flags: SlotFlags::empty(),
    };
    vm.set_memory(&mut cx, slot).unwrap();
    let size = GruConfig {
        tlb_entries: 4,
        preload: 1,
        ..GruConfig::default()
    };
    let (gru, _stays) = GruSpace::attach(&mut cx, &mm, &Gru::several(1, size), None);
    let (owner, _stays) = Owner::attach(&mut cx, &mm, OwnerConfig::default());
    let all: [Arc<dyn ExternalMmu>; 3] = [vm.clone(), gru.clone(), owner.clone()];
    for ext in all {
        oracle.watch(&mm, ext);
    }
    drop(thread);
    let (ma, m) = (Arc::clone(&machine), Arc::clone(&mm));
    let operations = shuttle::thread::spawn(move || operate(&ma, &m));
    let (ma, v, g, o) = (
        Arc::clone(&machine),
        Arc::clone(&vm),
        Arc::clone(&gru),
        Arc::clone(&owner),
    );
    let devices = shuttle::thread::spawn(move || use_devices(&ma, &v, &g, &o));
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let _refused = mm.store(&mut cx, BASE + PAGE, 9);
    let _refused = mm.store(&mut cx, BASE, 9);
    operations.join().unwrap();
    let devices = devices.join().unwrap();
    oracle.audit();
    mm.exit(&mut cx);
    oracle.audit_end(&mm);
    drop(devices);
    oracle.audit_empty(&mut cx, 0);
    oracle.assert_silent();
    assert_eq!(vm.in_progress(), (0, 0));
    assert_eq!((gru.active(), owner.recalls()), (0, 0));
}

#[test]
fn random_schedules() {
    explore(&[How::Random(300)], world);
}

#[test]
fn pct_schedules() {
    explore(&[How::Pct(300)], world);
}
