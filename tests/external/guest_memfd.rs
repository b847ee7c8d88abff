//! Guest files of the KVM model: one test for each case of the kernel's self tests that is about
//! them, with its name (docs/selftests.md), and what these do not try.

use emmu::{
    FaultError, Machine, Mm,
    addr::Vpn,
    ctx::CallCx,
    error::{Errno, MmapError, ObjectError, Signal},
    extmmu::kvm::{
        C_BIT, Exit, Gfn, GuestFinding, GuestMemfd, GuestMemfdFlags, GuestMemoryError,
        GuestMemoryMistake, MemSlot, MemoryAttributes, PageKind, SlotError, SlotFlags, Vcpu, Vm,
        VmConfig, VmType,
    },
    file::{FallocateMode, File, FileMode, MemoryObject},
    mm::{Advice, MmapArgs},
    notifier::{ExternalMmu, Registration},
    oracle::Oracle,
};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

const BASE: u64 = 1 << 30;
const PAGE: u64 = emmu::PAGE_SIZE;
/// Pages of the slot and of its guest file.
const PAGES: u64 = 16;
const PRIVATE: MemoryAttributes = MemoryAttributes::PRIVATE;
const SHARED: MemoryAttributes = MemoryAttributes::empty();
const KEEP: FallocateMode = FallocateMode::KEEP_SIZE;
const HOLE: FallocateMode = FallocateMode::KEEP_SIZE.union(FallocateMode::PUNCH_HOLE);
const NONE: GuestMemfdFlags = GuestMemfdFlags::empty();
/// Memory that the guest and the process share in the file.
const IN_PLACE: GuestMemfdFlags = GuestMemfdFlags::MMAP.union(GuestMemfdFlags::INIT_SHARED);

fn slot(id: u16, gfn: u64, pages: u64) -> MemSlot {
    MemSlot {
        id,
        gfn: Gfn(gfn),
        pages,
        hva: Vpn::containing(BASE + gfn * PAGE),
        flags: SlotFlags::GUEST_MEMFD,
    }
}

/// A process, and a machine in it without memory.
struct World {
    machine: Arc<Machine>,
    mm: Arc<Mm>,
    vm: Arc<Vm>,
    vcpu: Vcpu,
    oracle: Arc<Oracle>,
    registration: Registration,
}

impl World {
    fn new(cx: &mut CallCx<'_>, machine: &Arc<Machine>, config: VmConfig) -> Self {
        let mm = Mm::new(machine);
        mm.mmap(cx, &MmapArgs::anonymous(2 * PAGES * PAGE).fixed(BASE))
            .unwrap();
        let (vm, registration) = Vm::create(cx, &mm, config);
        let oracle = Oracle::new(machine);
        // How long a window takes is the machine's matter.
        oracle.set_deadline(Duration::MAX);
        oracle.watch(&mm, Arc::clone(&vm) as Arc<dyn ExternalMmu>);
        Self {
            machine: Arc::clone(machine),
            vcpu: vm.vcpu(cx),
            mm,
            vm,
            oracle,
            registration,
        }
    }
    fn convert(&self, cx: &mut CallCx<'_>, first: u64, pages: u64, to: MemoryAttributes) {
        let (gpa, size) = (first * PAGE, pages * PAGE);
        self.vm.set_memory_attributes(cx, gpa, size, to).unwrap();
    }
    /// The bytes of `pages` pages, one a page.
    fn guest_bytes(&self, cx: &mut CallCx<'_>, pages: std::ops::Range<u64>) -> Vec<u8> {
        let load = |n| self.vcpu.load(cx, n * PAGE).unwrap();
        pages.map(load).collect()
    }
    fn fill(&self, cx: &mut CallCx<'_>, pages: std::ops::Range<u64>, byte: u8) {
        for n in pages {
            self.vcpu.store(cx, n * PAGE, byte).unwrap();
        }
    }
    fn check(&self) {
        assert_eq!(self.vm.audit_guest_memory(), []);
        assert_eq!(self.vm.in_progress(), (0, 0));
        self.oracle.audit();
        self.oracle.assert_silent();
    }
    fn end(self, cx: &mut CallCx<'_>) {
        self.check();
        self.mm.exit(cx);
        assert_eq!(self.vm.guest_entries(), 0);
        self.oracle.audit_end(&self.mm);
        drop((self.registration, self.vcpu, self.vm));
        self.oracle.audit_empty(cx, 0);
        self.oracle.assert_silent();
        assert_eq!(self.machine.mem().in_use(), 0);
    }
}

fn run(config: VmConfig, f: impl FnOnce(&mut CallCx<'_>, &World)) {
    let machine = Machine::new(Default::default());
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let world = World::new(&mut cx, &machine, config);
    f(&mut cx, &world);
    world.end(&mut cx);
}

fn of(vm_type: VmType) -> VmConfig {
    VmConfig {
        vm_type,
        ..VmConfig::default()
    }
}

/// Runs `f` with a guest file behind a slot at guest address 0.
fn with_file(config: VmConfig, f: impl FnOnce(&mut CallCx<'_>, &World, Arc<GuestMemfd>)) {
    run(config, |cx, world| {
        let memfd = world.vm.create_guest_memfd(PAGES * PAGE, NONE).unwrap();
        world
            .vm
            .set_guest_memory(cx, slot(0, 0, PAGES), &memfd, 0)
            .unwrap();
        f(cx, world, memfd);
    });
}

fn open(memfd: &Arc<GuestMemfd>) -> Arc<File> {
    File::open(
        Arc::clone(memfd) as Arc<dyn MemoryObject>,
        FileMode::ReadWrite,
    )
}

fn private_exit(gpa: u64) -> Exit {
    Exit::MemoryFault {
        gpa,
        size: PAGE,
        kind: PageKind::Private,
        errno: Errno::EFAULT,
    }
}

#[test]
fn create_guest_memfd_invalid_sizes() {
    run(of(VmType::Default), |_, world| {
        for size in [0, 1, PAGE - 1, PAGE + 1, 1 << 63] {
            let refused = world.vm.create_guest_memfd(size, NONE).unwrap_err();
            assert_eq!(refused, GuestMemoryError::Size(size));
            assert_eq!(refused.errno(), Errno::EINVAL);
        }
    });
}

#[test]
fn guest_memfd_flags() {
    let supported = [
        (VmType::Default, IN_PLACE.bits()),
        (VmType::SwProtected, GuestMemfdFlags::MMAP.bits()),
        (VmType::Snp, GuestMemfdFlags::MMAP.bits()),
    ];
    for (vm_type, known) in supported {
        run(of(vm_type), |_, world| {
            for bit in 0..64 {
                let flags = GuestMemfdFlags::from_bits_retain(1 << bit);
                let made = world.vm.create_guest_memfd(PAGE, flags).map(drop);
                let expected = match known & flags.bits() {
                    0 => Err(GuestMemoryError::Flags(flags.bits())),
                    _ => Ok(()),
                };
                assert_eq!(made, expected, "{vm_type:?}");
            }
        });
    }
}

#[test]
fn create_guest_memfd_multiple() {
    run(of(VmType::Default), |_, world| {
        let one = world.vm.create_guest_memfd(PAGE, NONE).unwrap();
        let two = world.vm.create_guest_memfd(2 * PAGE, NONE).unwrap();
        assert_eq!((one.size(), two.size()), (PAGE, 2 * PAGE));
        assert!(!Arc::ptr_eq(one.mapping(), two.mapping()));
    });
}

#[test]
fn file_read_write() {
    run(of(VmType::Default), |cx, world| {
        let file = open(&world.vm.create_guest_memfd(PAGE, IN_PLACE).unwrap());
        let read = file.read_at(cx.reborrow(), 0, &mut [0; 8]);
        let write = file.write_at(cx.reborrow(), 0, b"guest");
        for refused in [read, write] {
            assert_eq!(refused.unwrap_err().errno(), Errno::EINVAL);
        }
    });
}

#[test]
fn mmap_cow() {
    run(of(VmType::Default), |cx, world| {
        let file = open(&world.vm.create_guest_memfd(PAGE, IN_PLACE).unwrap());
        let refused = world.mm.mmap(cx, &MmapArgs::anonymous(PAGE).file(&file, 0));
        assert_eq!(refused, Err(MmapError::SharedOnly));
        assert_eq!(MmapError::SharedOnly.errno(), Errno::EINVAL);
    });
}

#[test]
fn mmap_supported() {
    run(of(VmType::Default), |cx, world| {
        let file = open(&world.vm.create_guest_memfd(4 * PAGE, IN_PLACE).unwrap());
        let args = MmapArgs::anonymous(4 * PAGE).file(&file, 0).shared();
        let at = world.mm.mmap(cx, &args).unwrap();
        for n in 0..4 {
            world.mm.store(cx, at + n * PAGE, 0xaa).unwrap();
        }
        file.fallocate(cx.reborrow(), HOLE, 0, PAGE).unwrap();
        let load = |n: u64| world.mm.load(cx, at + n * PAGE).unwrap();
        assert_eq!((0..4).map(load).collect::<Vec<_>>(), [0, 0xaa, 0xaa, 0xaa]);
        world.mm.store(cx, at, 0xbb).unwrap();
        world.mm.munmap(cx, at, 4 * PAGE).unwrap();
    });
}

#[test]
fn mmap_not_supported() {
    run(of(VmType::Default), |cx, world| {
        let file = open(&world.vm.create_guest_memfd(PAGE, NONE).unwrap());
        let args = MmapArgs::anonymous(PAGE).file(&file, 0);
        for args in [args.clone(), args.shared()] {
            let refused = world.mm.mmap(cx, &args).unwrap_err();
            assert_eq!(refused.errno(), Errno::ENODEV);
        }
    });
}

#[test]
fn fault_overflow() {
    run(of(VmType::Default), |cx, world| {
        let file = open(&world.vm.create_guest_memfd(PAGE, IN_PLACE).unwrap());
        let args = MmapArgs::anonymous(4 * PAGE).file(&file, 0).shared();
        let at = world.mm.mmap(cx, &args).unwrap();
        world.mm.store(cx, at, 1).unwrap();
        let refused = world.mm.store(cx, at + PAGE, 1).unwrap_err();
        assert_eq!(refused, FaultError::Beyond(at + PAGE));
        assert_eq!(refused.signal(), Some(Signal::Bus));
        world.mm.munmap(cx, at, 4 * PAGE).unwrap();
    });
}

#[test]
fn fault_private() {
    run(of(VmType::Default), |cx, world| {
        let memfd = world.vm.create_guest_memfd(PAGE, GuestMemfdFlags::MMAP);
        let file = open(&memfd.unwrap());
        let args = MmapArgs::anonymous(PAGE).file(&file, 0).shared();
        let addr = world.mm.mmap(cx, &args).unwrap();
        let refused = world.mm.load(cx, addr).unwrap_err();
        let why = ObjectError::Private(0);
        assert_eq!(refused, FaultError::Object { addr, why });
        assert_eq!(refused.signal(), Some(Signal::Bus));
        world.mm.munmap(cx, addr, PAGE).unwrap();
    });
}

#[test]
fn file_size() {
    run(of(VmType::Default), |cx, world| {
        let memfd = world.vm.create_guest_memfd(4 * PAGE, NONE).unwrap();
        for size in [0, PAGE, 4 * PAGE, 8 * PAGE] {
            let refused = memfd.truncate(cx.reborrow(), size).unwrap_err();
            assert_eq!(refused.errno(), Errno::EINVAL);
        }
        assert_eq!(memfd.size(), 4 * PAGE);
    });
}

#[test]
fn fallocate() {
    run(of(VmType::Default), |cx, world| {
        let size = 4 * PAGE;
        let file = open(&world.vm.create_guest_memfd(size, NONE).unwrap());
        let mut call = |mode, from, len| {
            let done = file.fallocate(cx.reborrow(), mode, from, len);
            (
                done.map_err(ObjectError::errno),
                world.machine.mem().in_use(),
            )
        };
        assert_eq!(call(KEEP, 0, size), (Ok(()), 4));
        let refused = [
            (HOLE, PAGE - 1, PAGE),
            (KEEP, size, PAGE),
            (KEEP, size + PAGE, PAGE),
            (KEEP, 0, size + PAGE),
            (HOLE, PAGE, PAGE - 1),
        ];
        for (mode, from, len) in refused {
            assert_eq!(call(mode, from, len), (Err(Errno::EINVAL), 4));
        }
        assert_eq!(call(HOLE, size, PAGE), (Ok(()), 4));
        assert_eq!(call(HOLE, size + PAGE, PAGE), (Ok(()), 4));
        assert_eq!(call(HOLE, PAGE, PAGE), (Ok(()), 3));
        assert_eq!(call(KEEP, PAGE, PAGE), (Ok(()), 4));
        for mode in [FallocateMode::empty(), FallocateMode::ZERO_RANGE | KEEP] {
            assert_eq!(call(mode, 0, PAGE), (Err(Errno::EOPNOTSUPP), 4));
        }
    });
}

#[test]
fn invalid_punch_hole() {
    run(of(VmType::Default), |cx, world| {
        let file = open(&world.vm.create_guest_memfd(4 * PAGE, NONE).unwrap());
        file.fallocate(cx.reborrow(), KEEP, 0, 4 * PAGE).unwrap();
        for from in [0, 1, PAGE] {
            for len in [1, PAGE - 1, PAGE, PAGE + 1] {
                if from != 1 && len == PAGE {
                    continue;
                }
                let refused = file.fallocate(cx.reborrow(), HOLE, from, len).unwrap_err();
                assert_eq!(refused, ObjectError::Range { from, len });
            }
        }
        assert_eq!(world.machine.mem().in_use(), 4);
    });
}

#[test]
fn guest_memfd_guest() {
    run(of(VmType::Default), |cx, world| {
        let memfd = world.vm.create_guest_memfd(4 * PAGE, IN_PLACE).unwrap();
        let file = open(&memfd);
        let args = MmapArgs::anonymous(4 * PAGE).file(&file, 0).shared();
        let at = world.mm.mmap(cx, &args).unwrap();
        let all = MemSlot {
            hva: Vpn::containing(at),
            ..slot(0, 0, 4)
        };
        world.vm.set_guest_memory(cx, all, &memfd, 0).unwrap();
        world.mm.write_bytes(cx, at, &[0xaa; 4096]).unwrap();
        let mut page = [0; 4096];
        world.vcpu.read(cx, 0, &mut page).unwrap();
        assert_eq!(page, [0xaa; 4096]);
        world.vcpu.write(cx, 0, &[0xff; 4096]).unwrap();
        world.mm.read_bytes(cx, at, &mut page).unwrap();
        assert_eq!(page, [0xff; 4096]);
        // No window of the process's page takes the guest's: it has the file's.
        world.mm.madvise(cx, at, PAGE, Advice::DontNeed).unwrap();
        assert_eq!((world.vm.guest_entries(), world.vm.entries(cx)), (1, 0));
        file.fallocate(cx.reborrow(), HOLE, 0, PAGE).unwrap();
        assert_eq!(world.vm.guest_entries(), 0);
        assert_eq!(world.vcpu.load(cx, 0), Ok(0));
        world.mm.munmap(cx, at, 4 * PAGE).unwrap();
        drop(file);
    });
}

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
fn invalid_memory_region_flags() {
    run(of(VmType::SwProtected), |cx, world| {
        let memfd = world.vm.create_guest_memfd(PAGES * PAGE, NONE).unwrap();
        let flagged = |flags| MemSlot {
            flags,
            ..slot(0, 0, PAGES)
        };
        let guest = SlotFlags::GUEST_MEMFD;
        for flags in [
            SlotFlags::empty(),
            guest | SlotFlags::LOG_DIRTY_PAGES,
            guest | SlotFlags::READONLY,
        ] {
            let refused = world.vm.set_guest_memory(cx, flagged(flags), &memfd, 0);
            assert_eq!(refused, Err(SlotError::Flags(0)));
        }
        let refused = world.vm.set_memory(cx, flagged(guest));
        assert_eq!(refused, Err(SlotError::Flags(0)));
        // A slot with a file never changes.
        world
            .vm
            .set_guest_memory(cx, flagged(guest), &memfd, 0)
            .unwrap();
        let again = world.vm.set_guest_memory(cx, flagged(guest), &memfd, 0);
        assert_eq!(again, Err(SlotError::Changed(0)));
        for flags in [SlotFlags::empty(), SlotFlags::LOG_DIRTY_PAGES] {
            let refused = world.vm.set_memory(cx, flagged(flags));
            assert_eq!(refused, Err(SlotError::Changed(0)));
        }
        // And a slot without one does not become read-only.
        let other = |flags| MemSlot {
            flags,
            ..slot(1, PAGES, 1)
        };
        world.vm.set_memory(cx, other(SlotFlags::empty())).unwrap();
        let refused = world.vm.set_memory(cx, other(SlotFlags::READONLY));
        assert_eq!(refused, Err(SlotError::Changed(1)));
    });
}

#[test]
fn add_private_memory_region() {
    run(of(VmType::SwProtected), |cx, world| {
        let (other, registration) = Vm::create(cx, &world.mm, of(VmType::SwProtected));
        let foreign = other.create_guest_memfd(PAGES * PAGE, NONE).unwrap();
        let memfd = world.vm.create_guest_memfd(PAGES * PAGE, NONE).unwrap();
        let refused = Err(SlotError::GuestMemfd(0));
        let mut set = |memfd, pages, offset| {
            let slot = slot(0, 0, pages);
            world.vm.set_guest_memory(cx, slot, memfd, offset)
        };
        assert_eq!(set(&foreign, PAGES, 0), refused);
        for offset in [1, PAGE - 1, PAGE + 1, PAGE, u64::MAX & !(PAGE - 1)] {
            assert_eq!(set(&memfd, PAGES, offset), refused);
        }
        assert_eq!(set(&memfd, PAGES + 1, 0), refused);
        assert_eq!(world.vm.slots().iter().count(), 0);
        assert_eq!(set(&memfd, PAGES, 0), Ok(()));
        assert_eq!(SlotError::GuestMemfd(0).errno(), Errno::EINVAL);
        drop((foreign, other));
        world.mm.unregister(cx, registration);
        drop(memfd);
    });
}

#[test]
fn add_overlapping_private_memory_regions() {
    run(of(VmType::SwProtected), |cx, world| {
        let memfd = world.vm.create_guest_memfd(4 * PAGES * PAGE, NONE).unwrap();
        let mut set = |id, gfn, pages, page: u64| {
            let slot = slot(id, gfn, pages);
            world.vm.set_guest_memory(cx, slot, &memfd, page * PAGE)
        };
        set(0, 0, 4, 0).unwrap();
        set(1, 4, 4, 4).unwrap();
        // Guest frames of another slot, and then pages of another slot.
        for gfn in [2, 3, 7] {
            let refused = set(2, gfn, 4, 32).unwrap_err();
            assert_eq!(refused.errno(), Errno::EEXIST);
        }
        for page in [1, 3, 5, 7] {
            assert_eq!(set(2, 8, 4, page), Err(SlotError::GuestMemfd(2)));
        }
        set(2, 8, 4, 8).unwrap();
        world.convert(cx, 0, 12, PRIVATE);
        world.fill(cx, 0..12, 9);
        // A hole over the middle of three bindings.
        open(&memfd)
            .punch_hole(cx.reborrow(), 3 * PAGE, 6 * PAGE)
            .unwrap();
        assert_eq!(world.vm.guest_entries(), 6);
        assert_eq!(
            world.guest_bytes(cx, 0..12),
            [9, 9, 9, 0, 0, 0, 0, 0, 0, 9, 9, 9]
        );
        drop(memfd);
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
        let top = u64::MAX & !(PAGE - 1);
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

/// The audit's answer to a machine with a mistake, after `f`, and that of the processor to a load
/// of guest address 0. `f` returns the file if it stays open.
fn mistaken(
    mistake: GuestMemoryMistake,
    f: impl FnOnce(&mut CallCx<'_>, &World, Arc<GuestMemfd>) -> Option<Arc<GuestMemfd>>,
) -> (Vec<GuestFinding>, Result<Result<u8, Exit>, String>) {
    let machine = Machine::new(Default::default());
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let config = VmConfig {
        guest_mistake: Some(mistake),
        ..of(VmType::SwProtected)
    };
    let world = World::new(&mut cx, &machine, config);
    let memfd = world.vm.create_guest_memfd(PAGES * PAGE, NONE).unwrap();
    let slot = slot(0, 0, PAGES);
    world.vm.set_guest_memory(&mut cx, slot, &memfd, 0).unwrap();
    world.vcpu.store(&mut cx, 0, 1).unwrap();
    let _open = f(&mut cx, &world, memfd);
    let mut found = world.vm.audit_guest_memory();
    found.dedup();
    let load = || world.vcpu.load(&mut cx, 0);
    let used = catch_unwind(AssertUnwindSafe(load)).map_err(|why| {
        let why = why.downcast::<String>().expect("a message");
        why.split(':').next().expect("one part").to_owned()
    });
    (found, used.map_err(|why| why.chars().take(18).collect()))
}

fn stale_use() -> Result<Result<u8, Exit>, String> {
    Err("stale reference to".into())
}

#[test]
fn a_hole_that_leaves_entries_is_found() {
    let (found, used) = mistaken(GuestMemoryMistake::PunchKeepsEntries, |cx, world, memfd| {
        world.convert(cx, 0, PAGES, PRIVATE);
        world.vcpu.store(cx, 0, 2).unwrap();
        open(&memfd).punch_hole(cx.reborrow(), 0, PAGE).unwrap();
        Some(memfd)
    });
    assert_eq!(
        (found, used),
        (vec![GuestFinding::Stale(Gfn(0))], stale_use())
    );
}

/// C51: the slot goes on with pages of a file that does not know it.
#[test]
fn a_slot_whose_file_is_flipped_off_is_found() {
    let (found, used) = mistaken(GuestMemoryMistake::FlagFlip, |cx, world, memfd| {
        world.convert(cx, 0, PAGES, PRIVATE);
        world.vcpu.store(cx, 0, 2).unwrap();
        let flipped = MemSlot {
            flags: SlotFlags::empty(),
            ..slot(0, 0, PAGES)
        };
        world.vm.set_memory(cx, flipped).unwrap();
        drop(memfd);
        None
    });
    assert_eq!(
        (found, used),
        (vec![GuestFinding::Stale(Gfn(0))], stale_use())
    );
}

#[test]
fn a_conversion_that_removes_the_wrong_kind_is_found() {
    let (found, used) = mistaken(GuestMemoryMistake::WrongKindZapped, |cx, world, memfd| {
        world.convert(cx, 0, PAGES, PRIVATE);
        Some(memfd)
    });
    let wrong = |kind| GuestFinding::WrongKind { gfn: Gfn(0), kind };
    assert_eq!((found, used), (vec![wrong(PageKind::Shared)], Ok(Ok(1))));
    let (found, used) = mistaken(GuestMemoryMistake::WrongKindZapped, |cx, world, memfd| {
        world.convert(cx, 1, 1, PRIVATE);
        world.vcpu.store(cx, PAGE, 2).unwrap();
        world.convert(cx, 1, 1, SHARED);
        Some(memfd)
    });
    let wrong = |kind| GuestFinding::WrongKind { gfn: Gfn(1), kind };
    assert_eq!((found, used), (vec![wrong(PageKind::Private)], Ok(Ok(1))));
}
