//! Images of kernels, loaded by `linux-loader` into the memory of an emulated process, and run by
//! `kvm-ioctls` on the same frames, while these are moved, copied and reclaimed. The model of KVM
//! sees each store of the real guest.
#![cfg(target_arch = "x86_64")]

#[path = "../../../external/beside.rs"]
#[allow(dead_code)]
mod beside;
#[path = "../../../common/long_mode.rs"]
mod long_mode;
#[path = "../../../common/skipped.rs"]
mod skipped;

use emmu::{
    Machine, MachineConfig, MemConfig, Mm,
    addr::Vpn,
    extmmu::{
        HostMapping, HostMappingError, HostRegion,
        kvm::{Gfn, MemSlot, SlotFlags, Vm, VmConfig},
    },
    mm::MmapArgs,
    oracle::Oracle,
};
use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};
use linux_loader::loader::{BzImage, Elf, KernelLoader, KernelLoaderResult};
use skipped::skipped;
use std::{
    fs::File,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Release},
    },
    thread,
};
use vm_memory::{Bytes, GuestAddress, GuestRegionCollection};

const PAGE: u64 = emmu::PAGE_SIZE;
const BASE: u64 = 1 << 30;
/// The memory of the guest: page tables, the kernel, and the pages on which it counts.
const SIZE: u64 = 3 << 20;
const KERNEL: u64 = 1 << 20;
const COUNTERS: u64 = 2 << 20;
const PAGES: u64 = 8;
const ROUNDS: u64 = 200;

/// ```text
/// again: mov edi, COUNTERS
///        mov ecx, PAGES
/// next:  inc qword [rdi]
///        add edi, PAGE
///        dec ecx
///        jnz next
///        mov dx, 0x10
///        mov al, 1
///        out dx, al
///        jmp again
/// ```
const PROGRAM: [u8; 32] = [
    0xbf, 0x00, 0x00, 0x20, 0x00, // mov edi, 0x200000
    0xb9, 0x08, 0x00, 0x00, 0x00, // mov ecx, 8
    0x48, 0xff, 0x07, // inc qword [rdi]
    0x81, 0xc7, 0x00, 0x10, 0x00, 0x00, // add edi, 0x1000
    0xff, 0xc9, // dec ecx
    0x75, 0xf3, // jnz next
    0x66, 0xba, 0x10, 0x00, // mov dx, 0x10
    0xb0, 0x01, // mov al, 1
    0xee, // out dx, al
    0xeb, 0xe0, // jmp again
];

type Memory = GuestRegionCollection<HostRegion>;

/// Puts numbers at places of an image.
fn put(image: &mut [u8], at: usize, bytes: &[u8]) {
    image[at..at + bytes.len()].copy_from_slice(bytes);
}

/// An executable with one segment, whose entry is behind its first bytes.
fn elf() -> Vec<u8> {
    const SEGMENT: usize = 0x200;
    const ENTRY: usize = 0x40;
    let mut image = vec![0; SEGMENT + ENTRY + PROGRAM.len()];
    // `Elf64_Ehdr`: 64 bits, little endian, for x86-64; one program header behind it.
    put(&mut image, 0, b"\x7fELF\x02\x01\x01");
    put(&mut image, 16, &[2, 0, 62, 0, 1]);
    put(&mut image, 24, &(KERNEL + ENTRY as u64).to_le_bytes());
    put(&mut image, 32, &[64]);
    put(&mut image, 52, &[64, 0, 56, 0, 1]);
    // `Elf64_Phdr`: PT_LOAD, to be read and executed.
    put(&mut image, 64, &[1, 0, 0, 0, 5]);
    let len = (image.len() - SEGMENT) as u64;
    let words = [SEGMENT as u64, KERNEL, KERNEL, len, len, PAGE];
    for (nth, word) in words.into_iter().enumerate() {
        put(&mut image, 72 + 8 * nth, &word.to_le_bytes());
    }
    put(&mut image, SEGMENT + ENTRY, &PROGRAM);
    image
}

/// A bzImage (Documentation/arch/x86/boot.rst): five sectors of set-up, and the kernel, which has
/// its 64-bit entry at 0x200.
fn bz_image() -> Vec<u8> {
    const SETUP: usize = 5 * 512;
    let mut image = vec![0; SETUP + 0x200 + PROGRAM.len()];
    put(&mut image, 0x1f1, &[4]);
    put(&mut image, 0x1fe, &[0x55, 0xaa]);
    put(&mut image, 0x202, b"HdrS\x0c\x02");
    put(&mut image, 0x211, &[1]);
    put(
        &mut image,
        0x214,
        &u32::try_from(KERNEL).unwrap().to_le_bytes(),
    );
    put(&mut image, SETUP + 0x200, &PROGRAM);
    image
}

/// Has `linux-loader` load an image from a file of the host.
fn load<L: KernelLoader>(memory: &Memory, name: &str, image: &[u8]) -> KernelLoaderResult {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, image).unwrap();
    let mut file = File::open(path).unwrap();
    let highmem = Some(GuestAddress(KERNEL));
    L::load(memory, None, &mut file, highmem).unwrap()
}

struct World {
    machine: Arc<Machine>,
    mm: Arc<Mm>,
    mapping: Arc<HostMapping>,
    memory: Memory,
}

/// A process whose memory is that of a guest; none where the host cannot show it to its kernel.
fn world() -> Option<World> {
    let machine = Machine::new(MachineConfig {
        memory: MemConfig {
            frames: 2048,
            swap: 2048,
            ..MemConfig::default()
        },
        ..MachineConfig::default()
    });
    let mm = Mm::new(&machine);
    let mapped = machine.with_current(|cx| {
        mm.mmap(cx, &MmapArgs::anonymous(SIZE).fixed(BASE)).unwrap();
        HostMapping::new(cx, &mm, (BASE, SIZE as usize))
    });
    let why = match mapped.unwrap() {
        Ok(mapping) if mapping.serves_kernel() => {
            let mapping = Arc::new(mapping);
            let region = HostRegion::new(Arc::clone(&mapping), GuestAddress(0), ()).unwrap();
            let memory = Memory::from_regions(vec![region]).unwrap();
            return Some(World {
                machine,
                mm,
                mapping,
                memory,
            });
        }
        Ok(_) => "accesses of the kernel are not served".to_owned(),
        Err(HostMappingError::NoUserfaultfd(why)) => why.to_string(),
        Err(why) => panic!("{why}"),
    };
    skipped("images of kernels", &why);
    None
}

/// A virtual machine on the memory, about to run in 64-bit mode from `entry`. The first 4 MiB are
/// mapped one to one.
fn boot(kvm: &Kvm, w: &World, entry: u64) -> (VmFd, VcpuFd) {
    long_mode::map_one_to_one(4, |at, value: u64| {
        w.memory.write_obj(value, GuestAddress(at)).unwrap();
    });
    let vm = kvm.create_vm().unwrap();
    let region = kvm_userspace_memory_region {
        slot: 0,
        flags: 0,
        guest_phys_addr: 0,
        memory_size: SIZE,
        userspace_addr: w.mapping.as_ptr().addr().get() as u64,
    };
    // SAFETY: the mapping lives longer than the machine, and nothing refers to its bytes.
    unsafe { vm.set_user_memory_region(region) }.unwrap();
    let vcpu = vm.create_vcpu(0).unwrap();
    long_mode::enter(&vcpu, entry);
    (vm, vcpu)
}

/// Runs the guest to the end of its round.
fn round(vcpu: &mut VcpuFd) {
    loop {
        match vcpu.run() {
            Ok(VcpuExit::IoOut(0x10, [1])) => return,
            // A signal.
            Err(why) if why.errno() == 4 => {}
            other => panic!("the guest left with {other:?}"),
        }
    }
}

/// The kernel at `entry` counts, and the model of KVM has each count.
fn counts(w: World, entry: u64) {
    let kvm = Kvm::new();
    let Ok(kvm) = kvm else {
        return skipped("a real guest", "no /dev/kvm");
    };
    let oracle = Oracle::new(&w.machine);
    oracle.watch(&w.mm, w.mapping.driver());
    let made = w.machine.with_current(|cx| {
        let (model, registration) = Vm::create(cx, &w.mm, VmConfig::default());
        let slot = MemSlot {
            id: 0,
            gfn: Gfn::containing(0),
            pages: SIZE / PAGE,
            hva: Vpn::containing(BASE),
            flags: SlotFlags::empty(),
        };
        model.set_memory(cx, slot).unwrap();
        oracle.watch(&w.mm, Arc::clone(&model) as _);
        (model.vcpu(cx), registration)
    });
    let (model, _registration) = made.unwrap();
    let (vm, mut vcpu) = boot(&kvm, &w, entry);
    let done = AtomicBool::new(false);
    thread::scope(|s| {
        let counters = BASE + COUNTERS..BASE + COUNTERS + PAGES * PAGE;
        s.spawn(|| beside::churn(&w.mm, counters, 4, &done));
        for count in 1..=ROUNDS {
            round(&mut vcpu);
            let seen = w.machine.with_current(|cx| {
                let mut all = [0; PAGES as usize];
                for (gpa, seen) in (COUNTERS..).step_by(PAGE as usize).zip(&mut all) {
                    let mut bytes = [0; 8];
                    model.read(cx, gpa, &mut bytes).unwrap();
                    *seen = u64::from_le_bytes(bytes);
                }
                all
            });
            assert_eq!(seen.unwrap(), [count; PAGES as usize]);
        }
        done.store(true, Release);
    });
    drop((vcpu, vm));
    w.machine.with_current(|cx| w.mm.exit(cx)).unwrap();
    drop((w.memory, w.mapping));
    oracle.audit_end(&w.mm);
    oracle.assert_silent();
    drop(w.mm);
    assert_eq!(w.machine.mem().in_use(), 0);
}

#[test]
fn an_elf_kernel_is_loaded_and_runs() {
    let Some(w) = world() else { return };
    let loaded = load::<Elf>(&w.memory, "elf", &elf());
    assert_eq!(loaded.kernel_load, GuestAddress(KERNEL + 0x40));
    counts(w, loaded.kernel_load.0);
}

#[test]
fn a_bz_image_is_loaded_and_runs() {
    let Some(w) = world() else { return };
    let loaded = load::<BzImage>(&w.memory, "bzimage", &bz_image());
    assert_eq!(loaded.kernel_load, GuestAddress(KERNEL));
    let header = loaded.setup_header.unwrap();
    assert_eq!({ header.version }, 0x20c);
    counts(w, loaded.kernel_load.0 + 0x200);
}
