//! Devices of every kind on one address space: one task operates, one faults, one uses all devices.

use crate::{
    loads::{Device, Kind},
    run::{How, explore},
    world::{BASE, PAGE},
};
use emmu::{
    Machine, MachineConfig, MemConfig, Mm,
    mm::{Advice, MmapArgs, Prot},
    oracle::Oracle,
};
use std::sync::Arc;

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

fn use_devices(machine: &Arc<Machine>, devices: &[Device]) {
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    for page in [0, 1, 0] {
        for (byte, device) in (1..).zip(devices) {
            device.store(&mut cx, page, byte);
        }
        for device in devices {
            let _refused = device.load(&mut cx, page);
        }
    }
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
    let devices = Kind::ALL.map(|kind| Device::attach(kind, &mut cx, (&mm, &oracle), PAGES));
    drop(thread);
    let (ma, m) = (Arc::clone(&machine), Arc::clone(&mm));
    let operations = shuttle::thread::spawn(move || operate(&ma, &m));
    let ma = Arc::clone(&machine);
    let uses = shuttle::thread::spawn(move || {
        use_devices(&ma, &devices);
        devices
    });
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let _refused = mm.store(&mut cx, BASE + PAGE, 9);
    let _refused = mm.store(&mut cx, BASE, 9);
    operations.join().unwrap();
    // What they have in their TLBs is looked at in the end.
    let devices = uses.join().unwrap();
    oracle.audit();
    mm.exit(&mut cx);
    oracle.audit_end(&mm);
    devices.into_iter().for_each(|device| device.end(&mut cx));
    oracle.audit_empty(&mut cx, 0);
    oracle.assert_silent();
}

#[test]
fn random_schedules() {
    explore(&[How::Random(300)], world);
}

#[test]
fn pct_schedules() {
    explore(&[How::Pct(300)], world);
}
