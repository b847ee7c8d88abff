//! Memory attributes: conversions, and the accesses that leave the guest.

use super::*;

/// Each side keeps its bytes while the other kind is converted back and forth.
#[test]
fn explicit_conversion() {
    with_file(of(VmType::SwProtected), |cx, world, memfd| {
        for (first, pages) in [(0, 1), (1, 3), (3, 7), (0, PAGES)] {
            let part = first..first + pages;
            let all = || 0..PAGES;
            world.convert(cx, 0, PAGES, SHARED);
            world.fill(cx, all(), 0xaa);
            world.convert(cx, first, pages, PRIVATE);
            assert!(world.vm.is_private(Gfn(first), Gfn(first + pages)));
            world.fill(cx, part.clone(), 0xcc);
            for n in all() {
                let (inside, at) = (part.contains(&n), BASE + n * PAGE);
                let byte = if inside { 0xcc } else { 0xaa };
                assert_eq!(world.vcpu.load(cx, n * PAGE), Ok(byte));
                assert_eq!(world.mm.load(cx, at), Ok(0xaa), "the process has its own");
            }
            // A part of the private range goes back, and finds the old bytes.
            let half = pages.div_ceil(2);
            world.convert(cx, first, half, SHARED);
            assert_eq!(
                world.guest_bytes(cx, first..first + half),
                vec![0xaa; half as usize]
            );
            world.check();
            // Private once more: the file has kept its page.
            world.convert(cx, first, half, PRIVATE);
            assert_eq!(world.guest_bytes(cx, part), vec![0xcc; pages as usize]);
            world.check();
            let file = open(&memfd);
            file.punch_hole(cx.reborrow(), 0, PAGES * PAGE).unwrap();
        }
        drop(memfd);
    });
}

#[test]
fn punch_hole() {
    with_file(of(VmType::SwProtected), |cx, world, memfd| {
        let file = open(&memfd);
        world.convert(cx, 0, PAGES, PRIVATE);
        world.fill(cx, 0..PAGES, 0xcc);
        let in_use = world.machine.mem().in_use();
        file.punch_hole(cx.reborrow(), 2 * PAGE, 3 * PAGE).unwrap();
        assert_eq!(world.machine.mem().in_use(), in_use - 3);
        assert_eq!(world.vm.guest_entries() as u64, PAGES - 3);
        assert_eq!(world.guest_bytes(cx, 1..6), [0xcc, 0, 0, 0, 0xcc]);
        drop((memfd, file));
    });
}

#[test]
fn private_access_memslot_deleted() {
    with_file(of(VmType::SwProtected), |cx, world, memfd| {
        world.convert(cx, 0, PAGES, PRIVATE);
        world.fill(cx, 0..PAGES, 1);
        world.vm.delete_memory(cx, 0).unwrap();
        assert_eq!(world.vm.guest_entries(), 0);
        let exit = world.vcpu.load(cx, 3 * PAGE + 5);
        assert_eq!(exit, Err(private_exit(3 * PAGE)));
        // The pages are the file's, and may be bound again.
        world
            .vm
            .set_guest_memory(cx, slot(7, 0, PAGES), &memfd, 0)
            .unwrap();
        assert_eq!(world.vcpu.load(cx, 3 * PAGE), Ok(1));
        // The end of the file ends the accesses.
        drop(memfd);
        assert_eq!(world.vm.guest_entries(), 0);
        assert_eq!(world.vcpu.load(cx, 3 * PAGE), Err(private_exit(3 * PAGE)));
        world.vm.delete_memory(cx, 7).unwrap();
    });
}

#[test]
fn private_access_memslot_not_private() {
    run(of(VmType::SwProtected), |cx, world| {
        let shared = MemSlot {
            flags: SlotFlags::empty(),
            ..slot(0, 0, PAGES)
        };
        world.vm.set_memory(cx, shared).unwrap();
        world.vcpu.store(cx, PAGE, 1).unwrap();
        world.convert(cx, 0, PAGES, PRIVATE);
        assert_eq!(world.vcpu.load(cx, PAGE + 5), Err(private_exit(PAGE)));
        world.convert(cx, 0, PAGES, SHARED);
        assert_eq!(world.vcpu.load(cx, PAGE), Ok(1));
        assert_eq!(
            world.vcpu.load(cx, C_BIT | PAGE),
            Err(Exit::Mmio(C_BIT | PAGE))
        );
    });
}

#[test]
fn set_memory_attributes() {
    run(of(VmType::Default), |cx, world| {
        let refused = world.vm.set_memory_attributes(cx, 0, PAGE, PRIVATE);
        assert_eq!(refused, Err(GuestMemoryError::Attributes(8)));
    });
    run(of(VmType::SwProtected), |cx, world| {
        let unknown = MemoryAttributes::from_bits_retain(1);
        let refused = world.vm.set_memory_attributes(cx, 0, PAGE, unknown);
        assert_eq!(refused, Err(GuestMemoryError::Attributes(1)));
        let top = !(PAGE - 1);
        for (gpa, size) in [(0, 0), (1, PAGE), (0, PAGE + 1), (top, 2 * PAGE)] {
            let refused = world.vm.set_memory_attributes(cx, gpa, size, PRIVATE);
            assert_eq!(refused, Err(GuestMemoryError::Range { gpa, size }));
        }
        // Frames without a slot have attributes as well.
        world.convert(cx, 100, 1, PRIVATE);
        assert_eq!(
            world.vcpu.load(cx, 100 * PAGE),
            Err(private_exit(100 * PAGE))
        );
        assert_eq!(world.vcpu.load(cx, 101 * PAGE), Err(Exit::Mmio(101 * PAGE)));
    });
}

/// A guest that says which kind it means leaves at a frame of the other one, and asks for a
/// conversion.
#[test]
fn an_access_of_the_other_kind_is_an_exit() {
    with_file(of(VmType::Snp), |cx, world, memfd| {
        assert_eq!(world.vcpu.load(cx, C_BIT | 5), Err(private_exit(0)));
        world.vcpu.store(cx, 5, 1).unwrap();
        world.convert(cx, 0, 1, PRIVATE);
        let exit = Exit::MemoryFault {
            gpa: 0,
            size: PAGE,
            kind: PageKind::Shared,
            errno: Errno::EFAULT,
        };
        assert_eq!(world.vcpu.load(cx, 5), Err(exit));
        world.vcpu.store(cx, C_BIT | 5, 2).unwrap();
        assert_eq!(world.vcpu.load(cx, C_BIT | 5), Ok(2));
        assert_eq!(world.mm.load(cx, BASE + 5), Ok(1));
        world.check();
        world.convert(cx, 0, 1, SHARED);
        assert_eq!(world.vcpu.load(cx, C_BIT | 5), Err(private_exit(0)));
        assert_eq!(world.vcpu.load(cx, 5), Ok(1));
        drop(memfd);
    });
}

/// A huge page of the process is one entry only while all its guest frames are shared.
#[test]
fn a_huge_entry_has_frames_of_one_kind() {
    const HUGE: u64 = 512;
    run(of(VmType::SwProtected), |cx, world| {
        let at = 2 * BASE;
        let size = HUGE * PAGE;
        world
            .mm
            .mmap(cx, &MmapArgs::anonymous(size).fixed(at))
            .unwrap();
        world.mm.madvise(cx, at, size, Advice::HugePage).unwrap();
        world.mm.store(cx, at, 7).unwrap();
        let memfd = world.vm.create_guest_memfd(size, NONE).unwrap();
        let huge = MemSlot {
            hva: Vpn::containing(at),
            ..slot(0, 0, HUGE)
        };
        world.vm.set_guest_memory(cx, huge, &memfd, 0).unwrap();
        world.fill(cx, 0..4, 1);
        assert_eq!(world.vm.entries(cx), 1, "2 MiB");
        world.convert(cx, 9, 1, PRIVATE);
        assert_eq!(world.vm.entries(cx), 0);
        world.fill(cx, 8..11, 2);
        assert_eq!((world.vm.entries(cx), world.vm.guest_entries()), (2, 1));
        assert_eq!(world.mm.load(cx, at + 9 * PAGE), Ok(0));
        world.check();
        world.convert(cx, 9, 1, SHARED);
        assert_eq!(world.guest_bytes(cx, 8..11), [2, 0, 2]);
        drop(memfd);
    });
}

/// The machine ends with its address space, and a guest file may outlive both.
#[test]
fn the_end_of_the_address_space_takes_private_pages() {
    let machine = Machine::new(Default::default());
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let world = World::new(&mut cx, &machine, of(VmType::SwProtected));
    let memfd = world.vm.create_guest_memfd(PAGE, NONE).unwrap();
    let slot = slot(0, 0, 1);
    world.vm.set_guest_memory(&mut cx, slot, &memfd, 0).unwrap();
    world.convert(&mut cx, 0, 1, PRIVATE);
    world.vcpu.store(&mut cx, 0, 1).unwrap();
    world.mm.exit(&mut cx);
    assert_eq!(world.vm.guest_entries(), 0);
    assert_eq!(world.vcpu.load(&mut cx, 0), Err(Exit::Gone));
    assert_eq!(world.vm.audit_guest_memory(), []);
    assert_eq!(machine.mem().in_use(), 1);
    drop(memfd);
    assert_eq!(machine.mem().in_use(), 0);
}

/// Bytes of a new page are none of the old one's, and a full memory is an exit with its errno.
#[test]
fn pages_come_zeroed_or_not_at_all() {
    let machine = Machine::new(emmu::MachineConfig {
        memory: emmu::MemConfig {
            frames: 8,
            ..emmu::MemConfig::default()
        },
        commit_total: Some(u64::MAX),
        ..emmu::MachineConfig::default()
    });
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let world = World::new(&mut cx, &machine, of(VmType::SwProtected));
    let memfd = world.vm.create_guest_memfd(PAGES * PAGE, NONE).unwrap();
    world
        .vm
        .set_guest_memory(&mut cx, slot(0, 0, PAGES), &memfd, 0)
        .unwrap();
    world.convert(&mut cx, 0, PAGES, PRIVATE);
    let full = (0..PAGES).find_map(|n| world.vcpu.store(&mut cx, n * PAGE, 1).err());
    assert!(
        matches!(
            full,
            Some(Exit::MemoryFault {
                errno: Errno::ENOMEM,
                ..
            })
        ),
        "{full:?}"
    );
    let file = open(&memfd);
    file.punch_hole(cx.reborrow(), 0, PAGES * PAGE).unwrap();
    assert_eq!(machine.mem().in_use(), 0);
    assert_eq!(world.guest_bytes(&mut cx, 0..2), [0, 0]);
    drop((file, memfd));
    world.end(&mut cx);
}
