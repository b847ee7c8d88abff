//! A huge page, private or of shared memory, on its way or about to be cut, and what another thread
//! does to it meanwhile.

use crate::run::{How, explore};
use emmu::{
    Machine, MachineConfig, MemConfig, Mm,
    addr::Vpn,
    ctx::CallCx,
    error::FaultError,
    extmmu::kvm::{Gfn, MemSlot, SlotFlags, Vcpu, Vm, VmConfig},
    file::{File, FileMode, Shmem},
    mm::{Advice, MapFlags, MmapArgs, Prot},
};
use std::sync::Arc;

const BASE: u64 = 1 << 30;
const PAGE: u64 = emmu::PAGE_SIZE;
const HUGE: u64 = 512;
const BYTES: u64 = HUGE * PAGE;

/// Two changes at random, of a world with thousands of steps.
const FEW: [How; 1] = [How::Pct(60)];

fn at(page: u64) -> u64 {
    BASE + page * PAGE
}
fn machine() -> Arc<Machine> {
    Machine::new(MachineConfig {
        memory: MemConfig {
            frames: 4 * 512,
            ..MemConfig::default()
        },
        ..MachineConfig::default()
    })
}
/// A huge page of private memory of which page 7 holds 1.
fn private() -> (Arc<Machine>, Arc<Mm>) {
    let machine = machine();
    let mm = Mm::new(&machine);
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    mm.mmap(&mut cx, &MmapArgs::anonymous(BYTES).fixed(BASE))
        .unwrap();
    mm.madvise(&mut cx, BASE, BYTES, Advice::HugePage).unwrap();
    mm.store(&mut cx, at(7), 1).unwrap();
    drop(thread);
    (machine, mm)
}
/// Runs both at the same time, then the last one alone.
fn race(
    machine: &Arc<Machine>,
    mm: &Arc<Mm>,
    tasks: [fn(&Mm, &mut CallCx<'_>); 2],
    then: impl FnOnce(&mut CallCx<'_>),
) {
    let running = tasks.map(|task| {
        let (machine, mm) = (Arc::clone(machine), Arc::clone(mm));
        shuttle::thread::spawn(move || task(&mm, &mut machine.enter().unwrap().cx()))
    });
    for task in running {
        task.join().unwrap();
    }
    let mut thread = machine.enter().unwrap();
    then(&mut thread.cx());
    mm.exit(&mut thread.cx());
    assert_eq!(machine.mem().in_use(), 0, "frames are left");
}
fn moves(mm: &Mm, cx: &mut CallCx<'_>) {
    let _moved_or_not = mm.migrate(cx, BASE).unwrap();
}
/// A processor whose memory is the huge page.
fn guest(mm: &Arc<Mm>, cx: &mut CallCx<'_>) -> (Arc<Vm>, Vcpu) {
    let (vm, _stays) = Vm::create(cx, mm, VmConfig::default());
    let slot = MemSlot {
        id: 0,
        gfn: Gfn(0),
        pages: HUGE,
        hva: Vpn::containing(BASE),
        flags: SlotFlags::empty(),
    };
    vm.set_memory(cx, slot).unwrap();
    let vcpu = vm.vcpu(cx);
    (vm, vcpu)
}

#[test]
fn store_against_move() {
    explore(&FEW, || {
        let (machine, mm) = private();
        let stores = |mm: &Mm, cx: &mut CallCx<'_>| mm.store(cx, at(7), 2).unwrap();
        race(&machine, &mm, [stores, moves], |cx| {
            assert_eq!(mm.load(cx, at(7)), Ok(2), "the store was lost");
        });
    });
}
/// A page that lost a right on its way does not come back with the rights of the others.
#[test]
fn mprotect_against_move() {
    explore(&FEW, || {
        let (machine, mm) = private();
        let protects = |mm: &Mm, cx: &mut CallCx<'_>| {
            mm.mprotect(cx, at(7), PAGE, Prot::READ).unwrap();
        };
        race(&machine, &mm, [protects, moves], |cx| {
            let (_vm, vcpu) = guest(&mm, cx);
            assert!(vcpu.write(cx, 0, &[3]).is_ok());
            assert!(
                vcpu.write(cx, 7 * PAGE, &[3]).is_err(),
                "more than the mapping gives"
            );
        });
    });
}
/// A fault does not map a huge page that is no longer the object's.
#[test]
fn fault_against_truncate() {
    explore(&FEW, || {
        let machine = machine();
        let mm = Mm::new(&machine);
        let mut thread = machine.enter().unwrap();
        let mut cx = thread.cx();
        let shmem = Shmem::memfd(machine.host(), "m", BYTES).unwrap();
        let file = File::open(shmem, FileMode::ReadWrite);
        let mut args = MmapArgs::anonymous(BYTES).file(&file, 0).fixed(BASE);
        args.flags = MapFlags::SHARED | MapFlags::FIXED;
        mm.mmap(&mut cx, &args).unwrap();
        drop(args);
        mm.store(&mut cx, at(7), 1).unwrap();
        mm.madvise(&mut cx, BASE, BYTES, Advice::Collapse).unwrap();
        mm.madvise(&mut cx, BASE, BYTES, Advice::DontNeed).unwrap();
        drop(thread);
        let cut = Arc::clone(&file);
        let cuts = {
            let machine = Arc::clone(&machine);
            shuttle::thread::spawn(move || {
                cut.truncate(machine.enter().unwrap().cx(), 0).unwrap();
            })
        };
        let loads = |mm: &Mm, cx: &mut CallCx<'_>| {
            let seen = mm.load(cx, at(7));
            let beyond = FaultError::Beyond(at(7));
            assert!(seen == Ok(1) || seen == Err(beyond), "{seen:?}");
        };
        race(&machine, &mm, [loads, |_, _| {}], |cx| {
            cuts.join().unwrap();
            let beyond = Err(FaultError::Beyond(at(7)));
            assert_eq!(mm.load(cx, at(7)), beyond, "mapped beyond the end");
        });
        drop(file);
    });
}
