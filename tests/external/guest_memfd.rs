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
    mm::{Advice, MmapArgs, Prot},
    notifier::{ExternalMmu, Registration},
    oracle::Oracle,
};
use std::{sync::Arc, time::Duration};

mod attributes;
mod mistakes;

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
        let exec = MmapArgs::anonymous(PAGE).file(&file, 0).shared();
        let refused = world.mm.mmap(cx, &exec.prot(Prot::READ | Prot::EXEC));
        assert_eq!(refused, Err(MmapError::NoExec));
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
        let old = BASE + PAGE;
        let args = MmapArgs::anonymous(PAGE).file(&file, 0).fixed(old);
        for args in [args.clone(), args.shared()] {
            world.mm.load(cx, old).unwrap();
            let refused = world.mm.mmap(cx, &args).unwrap_err();
            assert_eq!(refused.errno(), Errno::ENODEV);
            // The file refuses after the old mapping has gone.
            assert_eq!(world.mm.load(cx, old), Err(FaultError::NotMapped(old)));
            let back = MmapArgs::anonymous(PAGE).fixed(old);
            world.mm.mmap(cx, &back).unwrap();
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
        for offset in [1, PAGE - 1, PAGE + 1, PAGE, !(PAGE - 1)] {
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
