//! Whole and atomic accesses, and frames that have addresses in the host.

use crate::common::{BASE, PAGE, RW, World, at, machine};
use emmu::{
    FaultError, MachineConfig, MemConfig,
    frame::AtomicOp,
    mm::{Advice, HeldPages, PinKind},
    notifier::Access,
};
use std::{
    ptr::NonNull,
    sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, SeqCst},
};

/// Stores a byte through an address, as code outside of the library does.
fn store(to: NonNull<u8>, byte: u8) {
    // SAFETY: frames keep their addresses as long as their machine lives, as each test does, and
    // have no references to their bytes.
    unsafe { to.write_volatile(byte) };
}
fn load(from: NonNull<u8>) -> u8 {
    // SAFETY: as for a store.
    unsafe { from.read_volatile() }
}
/// The address of the first byte.
fn first(held: &mut HeldPages) -> NonNull<u8> {
    held.addresses().expect("frames have contents")[0].0
}

#[test]
fn atomic_accesses_of_threads_are_one_after_the_other() {
    let machine = machine(64);
    let mut w = World::on(machine.clone());
    w.map(0, 1, RW);
    let (mm, index) = (w.mm.clone(), BASE + 6);
    std::thread::scope(|s| {
        for n in 0..2 {
            let (machine, mm) = (&machine, &mm);
            s.spawn(move || {
                let mut thread = machine.enter().unwrap();
                let mut cx = thread.cx();
                for _ in 0..2000 {
                    mm.atomic(&mut cx, index, AtomicOp::Add(1_u16), Relaxed)
                        .unwrap();
                    let bit = AtomicOp::Or(1_u64 << n);
                    mm.atomic(&mut cx, BASE + 8, bit, AcqRel).unwrap();
                }
            });
        }
    });
    let mut cx = w.thread.cx();
    let load = AtomicOp::<u16>::Load;
    assert_eq!(mm.atomic(&mut cx, index, load, Acquire), Ok(4000));
    let load = AtomicOp::<u64>::Load;
    assert_eq!(mm.atomic(&mut cx, BASE + 8, load, SeqCst), Ok(3));
}

#[test]
fn an_atomic_access_that_is_refused_changes_nothing() {
    let mut w = World::new();
    w.map(0, 1, RW);
    let (mm, mut cx) = (w.mm.clone(), w.thread.cx());
    mm.write_bytes(&mut cx, BASE, &[1; 8]).unwrap();
    let add = AtomicOp::Add(1_u32);
    for addr in [BASE + 2, BASE + 4095] {
        let refused = mm.atomic(&mut cx, addr, add, Relaxed);
        assert_eq!(refused, Err(FaultError::Misaligned(addr)));
    }
    let no_page = BASE + PAGE;
    let refused = mm.atomic(&mut cx, no_page, add, Relaxed);
    assert_eq!(refused, Err(FaultError::NotMapped(no_page)));
    let other = AtomicOp::CompareExchange {
        current: 5,
        new: 9_u64,
    };
    let seen = mm.atomic(&mut cx, BASE, other, AcqRel);
    assert_eq!(seen, Ok(0x0101_0101_0101_0101));
    mm.mprotect(&mut cx, BASE, PAGE, emmu::mm::Prot::READ)
        .unwrap();
    let refused = mm.atomic(&mut cx, BASE, add, Relaxed);
    assert_eq!(refused, Err(FaultError::Denied(BASE)));
    assert_eq!(
        mm.atomic(&mut cx, BASE, AtomicOp::<u8>::Load, Relaxed),
        Ok(1)
    );
}

/// The frame is written though the library wrote nothing; its next owner finds it clean, also if
/// the writer does not stop.
#[test]
fn bytes_that_are_stored_by_address_are_the_frames_until_it_goes() {
    let config = MachineConfig {
        memory: MemConfig {
            frames: 1,
            ..MemConfig::default()
        },
        ..MachineConfig::default()
    };
    let mut w = World::with(config);
    w.map(0, 1, RW);
    let (mm, mut cx) = (w.mm.clone(), w.thread.cx());
    let mut held = mm
        .pin(&mut cx, BASE + 8, 8, Access::Write, PinKind::LongTerm)
        .unwrap();
    let to = first(&mut held);
    store(to, 0xdb);
    assert_eq!(mm.load(&mut cx, BASE + 8), Ok(0xdb), "the process sees it");
    mm.store(&mut cx, BASE + 8, 7).unwrap();
    assert_eq!(load(to), 7, "and the device what the process stores");
    drop(held);
    mm.madvise(&mut cx, BASE, PAGE, Advice::DontNeed).unwrap();
    store(to, 0xdb);
    mm.store(&mut cx, BASE, 1).unwrap();
    assert_eq!(w.machine.mem().in_use(), 1, "it is the only frame");
    assert_eq!(mm.load(&mut cx, BASE + 8), Ok(0), "the next owner does not");
    let mut again = mm
        .pin(&mut cx, BASE + 8, 8, Access::Write, PinKind::LongTerm)
        .unwrap();
    assert_eq!(first(&mut again), to, "a frame has one address");
    assert_eq!(load(to), 0);
}

#[test]
fn pages_that_are_only_read_take_no_frame() {
    let mut w = World::new();
    w.map(0, 4, RW);
    let (mm, mut cx) = (w.mm.clone(), w.thread.cx());
    let mut held = mm.get_pages(&mut cx, BASE, 4 * PAGE as usize).unwrap();
    let parts = held.addresses().unwrap();
    assert_eq!(parts.len(), 4);
    assert!(
        parts
            .iter()
            .all(|(from, len)| (load(*from), *len) == (0, 4096))
    );
    assert_eq!(w.machine.mem().in_use(), 0);
}

/// A copy must not begin with a page that is taken for never written.
#[test]
fn a_child_has_what_was_stored_by_address_before_the_fork() {
    let mut w = World::new();
    w.map(0, 1, RW);
    let (mm, mut cx) = (w.mm.clone(), w.thread.cx());
    let mut held = mm
        .pin(&mut cx, BASE, 8, Access::Write, PinKind::LongTerm)
        .unwrap();
    let to = first(&mut held);
    store(to, 5);
    let child = mm.fork(&mut cx).unwrap();
    store(to, 6);
    assert_eq!(child.load(&mut cx, at(0)), Ok(5));
    assert_eq!(mm.load(&mut cx, at(0)), Ok(6));
    child.exit(&mut cx);
}
