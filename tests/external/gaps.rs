//! What clients of guest memory need of an address space, one test each, beside the twin that does
//! without it and fails (docs/evidence.md has the table).

use crate::common::{BASE, PAGE, RW, World, at};
use emmu::{
    FaultError, Machine, MachineConfig, MemConfig, Mm,
    ctx::CallCx,
    extmmu::{
        HostMapping, HostMmu,
        kvm::{Gfn, MemSlot, SlotFlags, Vm, VmConfig},
        vm_memory::{GuestRegion, ProcessAddressSpace},
    },
    frame::{AtomicOp, Contents},
    mm::{Advice, HeldPages, MmapArgs, PinKind},
    notifier::Access,
};
use std::{
    fs::File,
    os::unix::fs::FileExt,
    ptr::NonNull,
    sync::{Arc, atomic::Ordering::SeqCst},
};
use vm_memory::{Bytes, GuestAddress, GuestAddressSpace, GuestMemory, Permissions};

const GUEST: GuestAddress = GuestAddress(0x10_0000);
const PAGES: u64 = 4;

fn world(memory: MemConfig) -> World {
    let mut w = World::with(MachineConfig {
        memory,
        ..MachineConfig::default()
    });
    w.map(0, PAGES, RW);
    w
}
fn space(mm: &Arc<Mm>) -> ProcessAddressSpace {
    let region = GuestRegion {
        guest: GUEST,
        len: PAGES * PAGE,
        process: BASE,
    };
    ProcessAddressSpace::new(mm, &[region])
}
fn load(from: NonNull<u8>) -> u8 {
    // SAFETY: frames keep their addresses as long as their machine lives, as each test does, and
    // have no references to their bytes.
    unsafe { from.read_volatile() }
}

/// Drops the pages, and has another process write 0xdb to every frame; returns it.
fn others_take_all(cx: &mut CallCx<'_>, mm: &Mm, frames: u64) -> Arc<Mm> {
    mm.munmap(cx, BASE, PAGES * PAGE).unwrap();
    let other = Mm::new(mm.machine());
    let from = other.mmap(cx, &MmapArgs::anonymous(frames * PAGE)).unwrap();
    let filled = (0..frames).take_while(|n| other.store(cx, from + n * PAGE, 0xdb).is_ok());
    assert!(filled.count() > 0);
    other
}

/// g1: a slice has no end that its memory is told of. The page is pinned until the memory is
/// dropped. Twin: the address of the frame alone, by a driver whose entry went in the window.
#[test]
fn g1_a_slice_never_becomes_the_memory_of_another_process() {
    const FRAMES: u32 = 8;
    for is_pinned in [true, false] {
        let mut w = world(MemConfig {
            frames: FRAMES,
            ..MemConfig::default()
        });
        let (mm, mut cx) = (Arc::clone(&w.mm), w.thread.cx());
        mm.store(&mut cx, BASE, 7).unwrap();
        let memory = space(&mm).memory();
        let (host, registration) = mm.register(&mut cx, HostMmu::new);
        let from = if is_pinned {
            let slice = cx.lend(|| {
                let mut slices = memory.get_slices(GUEST, 1, Permissions::Write).unwrap();
                slices.next().unwrap().unwrap().ptr_guard_mut().as_ptr()
            });
            NonNull::new(slice).unwrap()
        } else {
            let read = |slices: &[emmu::extmmu::HostSlice]| slices[0].address;
            host.with_slices(&mut cx, &mm, (BASE, 1), Access::Write, read)
                .unwrap()
        };
        let other = others_take_all(&mut cx, &mm, FRAMES.into());
        assert_eq!(load(from), if is_pinned { 7 } else { 0xdb });
        other.exit(&mut cx);
        registration.unregister(&mut cx);
        drop(memory);
    }
}

/// g2: an index of a ring is stored whole. Twin: byte by byte, of which a device sees a half.
#[test]
fn g2_an_aligned_word_is_stored_whole_and_compared_in_one_step() {
    let mut w = world(MemConfig::default());
    let (mm, mut cx) = (Arc::clone(&w.mm), w.thread.cx());
    let memory = space(&mm).memory();
    let seen = |cx: &mut CallCx<'_>| cx.lend(|| memory.load::<u16>(GUEST, SeqCst).unwrap());
    mm.atomic(&mut cx, BASE, AtomicOp::Swap(0x00ff_u16), SeqCst)
        .unwrap();
    let exchange = AtomicOp::CompareExchange {
        current: 0x00ff_u16,
        new: 0x0100,
    };
    assert_eq!(mm.atomic(&mut cx, BASE, exchange, SeqCst), Ok(0x00ff));
    assert_eq!(mm.atomic(&mut cx, BASE, exchange, SeqCst), Ok(0x0100));
    assert_eq!(seen(&mut cx), 0x0100, "one of the two exchanges");
    mm.write_bytes(&mut cx, BASE, &0x00ff_u16.to_ne_bytes())
        .unwrap();
    // Between the two stores of a process that has no whole ones.
    mm.store(&mut cx, BASE, 0).unwrap();
    assert_eq!(seen(&mut cx), 0, "neither 0x00ff nor 0x0100");
    mm.store(&mut cx, BASE + 1, 1).unwrap();
    assert_eq!(seen(&mut cx), 0x0100);
}

/// g3: a thread that has used guest memory can enter. Twin: a root that is kept for the next call,
/// as a memory without `with_current` must.
#[test]
fn g3_a_thread_that_has_used_guest_memory_can_enter() {
    let machine = Machine::new(MachineConfig::default());
    let mm = Mm::new(&machine);
    let args = MmapArgs::anonymous(PAGES * PAGE).fixed(BASE);
    machine
        .with_current(|cx| mm.mmap(cx, &args))
        .unwrap()
        .unwrap();
    space(&mm).memory().write_obj(7_u8, GUEST).unwrap();
    let kept = machine.enter().expect("no root is kept");
    assert!(machine.enter().is_err(), "the twin");
    drop(kept);
}

/// g4: a thread that has entered can use guest memory. Twin: without lending its token.
#[test]
fn g4_a_thread_that_has_entered_can_use_guest_memory() {
    let mut w = world(MemConfig::default());
    let (mm, mut cx) = (Arc::clone(&w.mm), w.thread.cx());
    mm.store(&mut cx, BASE, 7).unwrap();
    let memory = space(&mm).memory();
    let read = || memory.read_obj::<u8>(GUEST);
    assert!(read().is_err(), "the twin");
    assert_eq!(cx.lend(read).unwrap(), 7);
    mm.store(&mut cx, BASE, 8).unwrap();
}

/// What KVM's model and guest memory give as addresses of the first page.
fn addresses(contents: Contents) -> [Option<NonNull<u8>>; 2] {
    let mut w = world(MemConfig {
        contents,
        ..MemConfig::default()
    });
    let (mm, mut cx) = (Arc::clone(&w.mm), w.thread.cx());
    mm.store(&mut cx, BASE, 7).unwrap();
    let (vm, registration) = Vm::create(&mut cx, &mm, VmConfig::default());
    let slot = MemSlot {
        id: 0,
        gfn: Gfn::containing(GUEST.0),
        pages: PAGES,
        hva: emmu::addr::Vpn::containing(BASE),
        flags: SlotFlags::empty(),
    };
    vm.set_memory(&mut cx, slot).unwrap();
    let vcpu = vm.vcpu(&mut cx);
    let viewed = vcpu.view(&mut cx, GUEST.0, |frame| frame.as_ptr()).unwrap();
    let memory = space(&mm).memory();
    let slice = cx.lend(|| {
        let mut slices = memory.get_slices(GUEST, 1, Permissions::Read).unwrap();
        let slice = slices.next().unwrap().ok()?;
        NonNull::new(slice.ptr_guard().as_ptr().cast_mut())
    });
    if let Some(from) = slice {
        assert_eq!(load(from), 7);
    }
    drop(memory);
    registration.unregister(&mut cx);
    [viewed, slice]
}

/// g5: frames have addresses, without partitions, also those that the model of KVM translates.
/// Twin: frames that can only be copied.
#[test]
fn g5_frames_have_addresses_in_the_host() {
    let [viewed, slice] = addresses(Contents::Real);
    assert!(viewed.is_some() && viewed == slice);
    assert_eq!(addresses(Contents::None), [None; 2]);
}

/// Pins pages that are touched from the last to the first.
fn pinned(w: &mut World) -> HeldPages {
    let (mm, mut cx) = (Arc::clone(&w.mm), w.thread.cx());
    for n in (0..PAGES).rev() {
        mm.store(&mut cx, at(n), n as u8 + 1).unwrap();
    }
    let len = (PAGES * PAGE) as usize;
    mm.pin(&mut cx, BASE, len, Access::Write, PinKind::LongTerm)
        .unwrap()
}
fn byte_at(file: &File, offset: u64) -> u8 {
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    byte[0]
}

/// g6: where a frame lies in the memory that another process maps. Twin: taking pages that follow
/// each other for frames that do.
#[test]
fn g6_offsets_say_where_frames_lie_in_the_memory_file() {
    let mut w = world(MemConfig::default());
    let mut held = pinned(&mut w);
    let file = File::from(w.machine.mem().memfd().unwrap());
    let offsets = held.memfd_offsets().unwrap();
    let bytes = offsets.iter().map(|at| byte_at(&file, *at));
    assert!(bytes.eq(1..=4));
    let in_a_row = (0..PAGES).map(|n| byte_at(&file, offsets[0] + n * PAGE));
    assert!(!in_a_row.eq(1..=4));
    // What is stored to the file is stored to the page.
    file.write_all_at(&[9], offsets[2] + 5).unwrap();
    assert_eq!(w.mm.load(&mut w.thread.cx(), at(2) + 5), Ok(9));
}

/// g7: bytes that another process stores to a frame are the frame's from when it was asked where
/// the frame lies, and none of the next owner's. Twin: storing where the frame will lie, which the
/// process does not see; the next owner does not either.
#[test]
fn g7_bytes_of_one_process_are_not_found_by_the_next() {
    for is_asked in [true, false] {
        let mut w = World::on(crate::common::machine(1));
        w.map(0, 1, RW);
        let (mm, mut cx) = (Arc::clone(&w.mm), w.thread.cx());
        let file = File::from(w.machine.mem().memfd().unwrap());
        let mut pin = || {
            mm.pin(&mut cx, BASE, 1, Access::Write, PinKind::LongTerm)
                .unwrap()
        };
        let mut held = pin();
        let offset = match is_asked {
            true => held.memfd_offsets().unwrap()[0],
            false => u64::from(held.pfns()[0].number()) * PAGE,
        };
        file.write_all_at(&[6], offset).unwrap();
        let mut byte = [0];
        assert_eq!(held.read_at(0, &mut byte), 1);
        assert_eq!(byte[0], if is_asked { 6 } else { 0 });
        drop(held);
        mm.madvise(&mut cx, BASE, PAGE, Advice::DontNeed).unwrap();
        file.write_all_at(&[6], offset).unwrap();
        let mut next = mm
            .pin(&mut cx, BASE, 1, Access::Write, PinKind::LongTerm)
            .unwrap();
        assert_eq!(next.memfd_offsets().unwrap(), [offset], "the only frame");
        assert_eq!(byte_at(&file, offset), 0);
        assert_eq!(mm.load(&mut cx, BASE), Ok(0));
    }
}

/// g8: a device that is told of no window keeps the page of the process. Twin: a reference alone,
/// which a fork and a store part from the process.
#[test]
fn g8_a_pinned_page_stays_the_page_of_the_process() {
    for is_pinned in [true, false] {
        let mut w = world(MemConfig::default());
        let (mm, mut cx) = (Arc::clone(&w.mm), w.thread.cx());
        mm.store(&mut cx, BASE, 1).unwrap();
        let held = match is_pinned {
            true => mm.pin(&mut cx, BASE, 1, Access::Write, PinKind::LongTerm),
            false => mm.get_pages(&mut cx, BASE, 1),
        };
        let held = held.unwrap();
        let child = mm.fork(&mut cx).unwrap();
        mm.migrate(&mut cx, BASE).unwrap();
        mm.store(&mut cx, BASE, 2).unwrap();
        let mut byte = [0];
        assert_eq!(held.read_at(0, &mut byte), 1);
        assert_eq!(byte[0], if is_pinned { 2 } else { 1 });
        assert_eq!(child.load(&mut cx, BASE), Ok(1));
        child.exit(&mut cx);
    }
}

/// g9: memory that is only read is shown as it is. Twin: a driver that asks for every page to be
/// written takes a frame for each hole, and gets no page that may only be read.
#[test]
fn g9_pages_that_are_only_read_are_shown_for_reading() {
    let mut w = world(MemConfig::default());
    let (mm, mut cx) = (Arc::clone(&w.mm), w.thread.cx());
    let Some(shown) = HostMapping::new(&mut cx, &mm, (BASE, (PAGES * PAGE) as usize)).ok() else {
        return crate::skipped::skipped("a mapping in the host", "no userfaultfd");
    };
    mm.mprotect(&mut cx, at(1), PAGE, emmu::mm::Prot::READ)
        .unwrap();
    let read = |n: u64| crate::host_mapping::byte(&shown, n * PAGE).load(SeqCst);
    assert_eq!((read(0), read(1)), (0, 0));
    assert_eq!(w.machine.mem().in_use(), 0);
    let (host, registration) = mm.register(&mut cx, HostMmu::new);
    let mut write = |at| host.with_slices(&mut cx, &mm, (at, 1), Access::Write, |_| ());
    write(BASE).unwrap();
    let refused = write(at(1)).unwrap_err();
    let denied = FaultError::Denied(at(1)).errno();
    assert_eq!(refused.errno(), denied);
    assert_eq!(w.machine.mem().in_use(), 1, "a frame for a hole");
    registration.unregister(&mut cx);
    drop(shown);
}
