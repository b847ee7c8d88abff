//! An access of a device, and the end of the right by which it is made: of a binding, of a segment.

use crate::{
    run::{How, explore},
    world::{BASE, PAGE, one_page},
};
use emmu::{
    Machine, MachineConfig, MemConfig, Mm,
    addr::{Vpn, VpnRange},
    ctx::CallCx,
    extmmu::{
        sva::{Iommu, SvaConfig, SvaDevice},
        xpmem::{Owner, OwnerConfig, Partition, PartitionId},
    },
    mm::Advice,
    notifier::Access,
};
use std::sync::Arc;

fn world() -> (Arc<Machine>, Arc<Mm>) {
    one_page(MachineConfig {
        memory: MemConfig {
            frames: 16,
            ..MemConfig::default()
        },
        ..MachineConfig::default()
    })
}

/// Runs `access` and `ending` on a thread each.
fn race(
    machine: &Arc<Machine>,
    access: impl FnOnce(&mut CallCx<'_>) + Send + 'static,
    ending: impl FnOnce(&mut CallCx<'_>) + Send + 'static,
) {
    let on = [Arc::clone(machine), Arc::clone(machine)];
    let [first, second] = on;
    let accesses = shuttle::thread::spawn(move || access(&mut first.enter().unwrap().cx()));
    let ends = shuttle::thread::spawn(move || ending(&mut second.enter().unwrap().cx()));
    accesses.join().unwrap();
    ends.join().unwrap();
}

/// A device is unbound from a process that stays bound to another, and bound again. What it read
/// beside the end of the first binding is in no cache of it.
fn unbound() {
    let (machine, mm) = world();
    let iommu = Iommu::new(SvaConfig::default());
    let (device, other) = (SvaDevice::new(&iommu), SvaDevice::new(&iommu));
    let (bond, stays) = {
        let mut thread = machine.enter().unwrap();
        let mut cx = thread.cx();
        let bind = |cx: &mut CallCx<'_>, device| iommu.bind(cx, &mm, device).unwrap();
        (bind(&mut cx, &device), bind(&mut cx, &other))
    };
    let (pasid, reads) = (bond.pasid(), Arc::clone(&device));
    race(
        &machine,
        move |cx| {
            let mut byte = [0];
            let read = reads.read(cx, pasid, BASE, &mut byte);
            assert!(read.is_err() || byte == [1]);
        },
        |cx| bond.unbind(cx),
    );
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    mm.madvise(&mut cx, BASE, PAGE, Advice::DontNeed).unwrap();
    let again = iommu.bind(&mut cx, &mm, &device).unwrap();
    let mut byte = [9];
    device
        .read(&mut cx, again.pasid(), BASE, &mut byte)
        .unwrap();
    assert_eq!(byte, [0], "a page of before the binding");
    again.unbind(&mut cx);
    stays.unbind(&mut cx);
    mm.exit(&mut cx);
}

/// A segment is removed while the partition has its page by another one, and writes by both.
fn removed() {
    let (machine, mm) = world();
    let (owner, first, second, segment) = {
        let mut thread = machine.enter().unwrap();
        let (owner, _stays) = Owner::attach(&mut thread.cx(), &mm, OwnerConfig::default());
        let page = VpnRange::single(Vpn::containing(BASE));
        let partition = Partition::new(PartitionId(1));
        let segments = [(); 2].map(|()| owner.make(page, Access::Write));
        let [first, second] = segments.map(|s| owner.import(&partition, s, 0, 1).unwrap());
        (owner, first, second, segments[0])
    };
    let removes = Arc::clone(&owner);
    race(
        &machine,
        move |cx| {
            let _removed_before = first.write(cx, 0, &[2]);
        },
        move |cx| {
            removes.remove(cx, segment).unwrap();
            second.write(cx, 0, &[3]).unwrap();
        },
    );
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    assert_eq!(mm.load(&mut cx, BASE), Ok(3), "a store after the removal");
    mm.exit(&mut cx);
}

const ALL: [How; 3] = [How::Sweep(2, 1), How::Random(200), How::Pct(200)];

#[test]
fn access_against_unbind() {
    explore(&ALL, unbound);
}
#[test]
fn store_against_removal() {
    explore(&ALL, removed);
}
