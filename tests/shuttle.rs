//! The whole address space with a virtual machine, a GRU and an XPmem owner on it, under shuttle: tasks that operate,
//! fault and use the devices, in schedules drawn at random and by PCT. The oracle looks on.
//!
//! `EMMU_SCHEDULES` says how many; a failing one is printed as a string, and `EMMU_REPLAY` takes it to run that one
//! alone (docs/evidence.md).
#![cfg(shuttle)]

use emmu::{
    Machine, MachineConfig, MemConfig, Mm,
    addr::{Vpn, VpnRange},
    extmmu::{
        gru::{AddressSpace, Context, Gru, GruConfig},
        kvm::{self, Gfn, MemSlot, SlotFlags, Vm, VmConfig},
        xpmem::{Owner, OwnerConfig, Partition, PartitionId},
    },
    mm::{Advice, MmapArgs, Prot},
    notifier::{Access, ExternalMmu},
    oracle::Oracle,
};
use std::{panic, sync::Arc};

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

fn use_devices(machine: &Arc<Machine>, vm: &Arc<Vm>, gru: &Arc<AddressSpace>, owner: &Arc<Owner>) {
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let vcpu = vm.vcpu(&mut cx);
    let context = Context::new(gru, 0);
    let partition = Partition::new(PartitionId(1));
    let whole = VpnRange::new(Vpn::containing(BASE), Vpn::containing(BASE + PAGES * PAGE)).unwrap();
    let segment = owner.make(whole, Access::Write);
    let importer = owner.import(&partition, segment, 0, PAGES).unwrap();
    let _refused = vcpu.store(&mut cx, 0, 1);
    let _refused = context.write(&mut cx, BASE, &[2]);
    let _refused = importer.write(&mut cx, 0, &[3]);
    let _refused = vcpu.load(&mut cx, PAGE);
    let _refused = context.read(&mut cx, BASE, &mut [0]);
}

/// One schedule: a task that operates, one that uses all devices, one that faults.
fn world(mistake: Option<kvm::Mistake>) {
    let machine = Machine::new(MachineConfig {
        memory: MemConfig {
            frames: 64,
            ..MemConfig::default()
        },
        ..MachineConfig::default()
    });
    let mm = Mm::new(&machine);
    let oracle = Oracle::new(&machine);
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    mm.mmap(&mut cx, &MmapArgs::anonymous(PAGES * PAGE).fixed(BASE))
        .unwrap();
    let config = VmConfig {
        mistake,
        ..VmConfig::default()
    };
    let (vm, _stays) = Vm::create(&mut cx, &mm, config);
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
        ..GruConfig::default()
    };
    let (gru, _stays) = AddressSpace::attach(&mut cx, &mm, &Gru::several(1, size), None);
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
    devices.join().unwrap();
    oracle.audit();
    mm.exit(&mut cx);
    oracle.audit_end(&mm);
    oracle.assert_silent();
    assert_eq!(vm.in_progress(&mut cx), (0, 0));
    assert_eq!((gru.active(), owner.recalls()), (0, 0));
}

fn schedules(default: usize) -> usize {
    let asked = std::env::var("EMMU_SCHEDULES").ok();
    asked.and_then(|n| n.parse().ok()).unwrap_or(default)
}

#[test]
fn random_schedules() {
    if let Ok(schedule) = std::env::var("EMMU_REPLAY") {
        return shuttle::replay(|| world(None), &schedule);
    }
    shuttle::check_random(|| world(None), schedules(300));
}

#[test]
fn pct_schedules() {
    if std::env::var_os("EMMU_REPLAY").is_none() {
        shuttle::check_pct(|| world(None), schedules(300), 3);
    }
}

/// The twin: a machine that does not ask whether what it looked up still holds.
#[test]
fn a_mistake_is_found_and_replays() {
    let run = || shuttle::check_random(|| world(Some(kvm::Mistake::NoFlush)), schedules(300));
    assert!(
        panic::catch_unwind(run).is_err(),
        "the mistake is not found"
    );
}
