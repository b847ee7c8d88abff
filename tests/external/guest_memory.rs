//! The memory of a process as guest memory of rust-vmm's crates.

use crate::ring;
use emmu::{
    Machine, MachineConfig, MemConfig, Mm,
    ctx::CallCx,
    extmmu::vm_memory::{GuestRegion, ProcessAddressSpace},
    mm::{Advice, MmapArgs, Prot},
};
use std::sync::{Arc, atomic::Ordering::Acquire};
use vm_memory::{
    Bytes, GuestAddress, GuestAddressSpace, GuestMemory, GuestMemoryError, Permissions,
    VolatileSlice,
};

const PAGE: u64 = emmu::PAGE_SIZE;
/// Guest addresses of two regions, and the memory of the process behind them.
const LOW: u64 = 0x1000;
const HIGH: u64 = 0x10_0000;
const PROCESS: u64 = 1 << 30;

struct World {
    machine: Arc<Machine>,
    mm: Arc<Mm>,
    space: ProcessAddressSpace,
}

/// Two regions of four pages; the second one begins in the process where the first ends.
fn world(frames: u32) -> World {
    let machine = Machine::new(MachineConfig {
        memory: MemConfig {
            frames,
            swap: 64,
            ..MemConfig::default()
        },
        ..MachineConfig::default()
    });
    let mm = Mm::new(&machine);
    let args = MmapArgs::anonymous(8 * PAGE).fixed(PROCESS);
    machine
        .with_current(|cx| mm.mmap(cx, &args))
        .unwrap()
        .unwrap();
    let region = |(guest, process)| GuestRegion {
        guest: GuestAddress(guest),
        len: 4 * PAGE,
        process,
    };
    let regions = [(LOW, PROCESS), (HIGH, PROCESS + 4 * PAGE)].map(region);
    let space = ProcessAddressSpace::new(&mm, &regions);
    World { machine, mm, space }
}

impl World {
    fn with<T>(&self, f: impl FnOnce(&mut CallCx<'_>, &Mm) -> T) -> T {
        self.machine.with_current(|cx| f(cx, &self.mm)).unwrap()
    }
}

#[test]
fn objects_and_slices_across_pages_are_the_memory_of_the_process() {
    let w = world(64);
    let memory = w.space.memory();
    let at = GuestAddress(LOW + PAGE - 3);
    memory.write_obj(0x0807_0605_0403_0201_u64, at).unwrap();
    let bytes = w.with(|cx, mm| {
        let mut bytes = [0; 8];
        mm.read_bytes(cx, PROCESS + PAGE - 3, &mut bytes).unwrap();
        bytes
    });
    assert_eq!(bytes, [1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(memory.read_obj::<u64>(at).unwrap(), 0x0807_0605_0403_0201);
    let all = memory.get_slices(GuestAddress(HIGH + 8), 2 * PAGE as usize, Permissions::Read);
    let lens: Vec<usize> = all.unwrap().map(|s| s.unwrap().len()).collect();
    assert_eq!(lens, [4088, 4096, 8]);
    let frames = w.machine.mem().in_use();
    assert_eq!(frames, 2, "pages that are only read take none");
}

#[test]
fn memory_that_is_not_there_is_refused() {
    let w = world(64);
    w.with(|cx, mm| mm.mprotect(cx, PROCESS, PAGE, Prot::READ))
        .unwrap();
    let memory = w.space.memory();
    let ask = |at, len, access| memory.check_range(GuestAddress(at), len, access);
    use Permissions::{Read, Write};
    assert!(ask(LOW, 4 * PAGE as usize, Read) && ask(HIGH, 1, Write));
    assert!(!ask(LOW, 1, Write) && ask(LOW + PAGE, 1, Write));
    assert!(!ask(LOW, 4 * PAGE as usize + 1, Read) && !ask(0, 1, Read));
    assert!(!ask(u64::MAX, 2, Read));
    let end = GuestAddress(LOW + 4 * PAGE);
    let refused = memory.read_obj::<u8>(end).unwrap_err();
    assert!(matches!(refused, GuestMemoryError::InvalidGuestAddress(at) if at == end));
    let refused = memory.write_obj(1_u8, GuestAddress(LOW)).unwrap_err();
    let GuestMemoryError::IOError(why) = refused else {
        panic!("{refused}");
    };
    assert_eq!(why.raw_os_error(), Some(14), "EFAULT");
}

/// Guest memory is behind a trait without tokens; a thread lends its own to it.
#[test]
fn a_thread_with_a_token_lends_it() {
    let w = world(64);
    let memory = w.space.memory();
    memory.write_obj(7_u8, GuestAddress(LOW)).unwrap();
    let mut thread = w.machine.enter().expect("no token is out");
    let mut cx = thread.cx();
    assert_eq!(w.mm.load(&mut cx, PROCESS), Ok(7));
    assert!(memory.read_obj::<u8>(GuestAddress(LOW)).is_err());
    let read = cx.lend(|| memory.read_obj::<u8>(GuestAddress(LOW)));
    assert_eq!(read.unwrap(), 7);
    w.mm.store(&mut cx, PROCESS, 8).unwrap();
}

/// A slice that outlives its mapping reads and writes no memory of anybody else.
#[test]
fn a_slice_never_becomes_the_memory_of_another_process() {
    for access in [Permissions::Read, Permissions::Write] {
        let w = world(9);
        w.with(|cx, mm| mm.write_bytes(cx, PROCESS, &[5; 16]))
            .unwrap();
        let memory = w.space.memory();
        let mut slices = memory.get_slices(GuestAddress(LOW), 16, access).unwrap();
        let slice: VolatileSlice<'_> = slices.next().unwrap().unwrap();
        w.with(|cx, mm| mm.munmap(cx, PROCESS, 8 * PAGE)).unwrap();
        let hog = Mm::new(&w.machine);
        let fill = |cx: &mut CallCx<'_>| {
            let at = hog.mmap(cx, &MmapArgs::anonymous(8 * PAGE)).unwrap();
            let pages = (0..8).map(|n| at + n * PAGE);
            let filled = pages.take_while(|&page| hog.store(cx, page, 0xdb).is_ok());
            filled.collect::<Vec<_>>()
        };
        let mut filled = w.machine.with_current(fill).unwrap();
        // Pages of it are swapped out by now; the last one is not.
        let last = filled.pop().expect("there is memory");
        assert_eq!(slice.read_obj::<u8>(0).unwrap(), 5);
        if access == Permissions::Write {
            slice.write_slice(&[9; 16], 0).unwrap();
        }
        let seen = w.machine.with_current(|cx| hog.load(cx, last));
        assert_eq!(seen, Ok(Ok(0xdb)));
        drop(slices);
        drop(memory);
        w.machine.with_current(|cx| hog.exit(cx)).unwrap();
        assert_eq!(w.machine.mem().in_use(), 0, "the page is given back");
    }
}

/// A slice can be written to, whatever it was asked for.
#[test]
fn a_store_to_a_slice_for_reading_reaches_no_other_process() {
    let w = world(4096);
    let child = w.with(|cx, mm| {
        mm.store(cx, PROCESS, 5).unwrap();
        // A huge page of zeros, and a page that the child has as well.
        let args = MmapArgs::anonymous(4 << 20).fixed(1 << 40);
        mm.mmap(cx, &args).unwrap();
        mm.madvise(cx, 1 << 40, 4 << 20, Advice::HugePage).unwrap();
        mm.fork(cx).unwrap()
    });
    let regions = [(LOW, PROCESS), (HIGH, 1 << 40)].map(|(guest, process)| GuestRegion {
        guest: GuestAddress(guest),
        len: 2 * PAGE,
        process,
    });
    let space = ProcessAddressSpace::new(&w.mm, &regions);
    let of_the_child = |at| {
        let got = w.machine.with_current(|cx| child.load(cx, at));
        got.unwrap().unwrap()
    };
    let there = [
        (LOW, PROCESS, 5),
        (LOW + PAGE, PROCESS + PAGE, 0),
        (HIGH, 1 << 40, 0),
    ];
    for (guest, process, byte) in there {
        assert_eq!(of_the_child(process), byte);
        let memory = space.memory();
        let mut slices = memory
            .get_slices(GuestAddress(guest), 16, Permissions::Read)
            .unwrap();
        let slice: VolatileSlice<'_> = slices.next().unwrap().unwrap();
        assert_eq!(slice.read_obj::<u8>(0).unwrap(), byte);
        slice.write_slice(&[0xee; 16], 0).unwrap();
        assert_eq!(of_the_child(process), byte, "{process:#x}");
    }
    let unwritten = w.machine.with_current(|cx| {
        let other = Mm::new(&w.machine);
        let at = other.mmap(cx, &MmapArgs::anonymous(PAGE)).unwrap();
        other.load(cx, at).unwrap()
    });
    assert_eq!(unwritten, Ok(0));
    w.machine.with_current(|cx| child.exit(cx)).unwrap();
}

#[test]
fn a_device_sees_each_slot_whole_behind_its_index() {
    const ROUNDS: u16 = 2000;
    let w = world(256);
    let (index, slots) = (GuestAddress(LOW + 2), GuestAddress(HIGH));
    let pages = (&*w.mm, PROCESS..PROCESS + 8 * PAGE);
    ring::run(|| w.space.memory(), (index, slots), ROUNDS, pages);
    assert_eq!(
        w.space.memory().load::<u16>(index, Acquire).unwrap(),
        ROUNDS
    );
}
