//! Devices that walk the page table themselves: each way in which an entry loses its page or a
//! right flushes them, before the frame goes.

use crate::common::{PAGE, RW, World, at, calls::*, numbered::page, objects};
use emmu::{
    FaultError, Machine, MachineConfig, MemConfig,
    driver::*,
    mm::{Advice, ForkMode, Prot, Pte},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    thread,
};

/// An IOMMU that shares the table.
struct Iommu {
    gate: TlbGate<u64>,
    releases: AtomicU64,
    /// The mistake: it forgets the flush.
    deaf: bool,
}

impl Iommu {
    fn new(seat: TlbSeat) -> Arc<Self> {
        Self::build(seat, false)
    }
    fn build(seat: TlbSeat, deaf: bool) -> Arc<Self> {
        Arc::new(Self {
            gate: TlbGate::new(seat, 0),
            releases: AtomicU64::new(0),
            deaf,
        })
    }
    fn flushes(&self, cx: &mut CallCx<'_>) -> u64 {
        self.gate.with_state(cx, |flushes| *flushes)
    }
    /// Caches the pages that are present.
    fn fill(&self, cx: &mut CallCx<'_>, mm: &Mm, pages: u64) {
        for n in 0..pages {
            let _absent = mm.walk(cx, &self.gate, page(n), Access::Read).unwrap();
        }
    }
    /// Panics if a page that is cached is not what the table says.
    fn check(&self, cx: &mut CallCx<'_>, mm: &Mm, after: &str) {
        if let Some(at) = stale(self.gate.cached(), cx, mm) {
            panic!("{at:?} is stale after {after}");
        }
    }
}

/// Returns the first page that the table says otherwise of.
fn stale(cached: Vec<(Vpn, Pfn, bool)>, cx: &mut CallCx<'_>, mm: &Mm) -> Option<Vpn> {
    let walker = mm.walker(cx);
    let is_stale = |&(at, pfn, writable): &(Vpn, Pfn, bool)| match walker.pte(at) {
        Pte::Present { pfn: now, write } => now != pfn || (writable && !write),
        _ => true,
    };
    cached.into_iter().find(is_stale).map(|(at, ..)| at)
}

impl SecondaryTlb for Iommu {
    fn flush(&self, mut cx: AtomicCallbackCx<'_>, range: VpnRange) {
        if self.deaf {
            return;
        }
        // The frames are still there: a look at one that has gone panics.
        for (at, ..) in self.gate.cached() {
            if range.contains(at) {
                self.gate.read(&mut cx, at, |frame| frame.read_u8(0));
            }
        }
        self.gate.flush(cx, range, |flushes, _| *flushes += 1);
    }
    fn release(&self, _: AtomicCallbackCx<'_>) {
        assert!(self.gate.cached().is_empty(), "everything was flushed");
        self.releases.fetch_add(1, SeqCst);
    }
}

fn config(fork: ForkMode) -> MachineConfig {
    MachineConfig {
        memory: MemConfig {
            frames: 8192,
            swap: 2048,
            ..MemConfig::default()
        },
        fork,
        ..MachineConfig::default()
    }
}

/// An operation on pages 0 to 8, in a world whose pages 0 to 16 hold private memory.
type Op = fn(&mut CallCx<'_>, &Mm);

const OPS: [(&str, Op); 17] = [
    ("munmap", |cx, mm| mm.munmap(cx, at(0), 8 * PAGE).unwrap()),
    ("MADV_DONTNEED", |cx, mm| {
        mm.madvise(cx, at(0), 8 * PAGE, Advice::DontNeed).unwrap();
    }),
    ("MADV_PAGEOUT", |cx, mm| {
        mm.madvise(cx, at(0), 8 * PAGE, Advice::PageOut).unwrap();
    }),
    ("mprotect to read", |cx, mm| {
        mm.mprotect(cx, at(0), 8 * PAGE, Prot::READ).unwrap();
    }),
    ("mprotect to nothing", |cx, mm| {
        mm.mprotect(cx, at(0), 8 * PAGE, NONE).unwrap();
    }),
    ("mmap over it", |cx, mm| {
        mm.mmap(cx, &private(0, 8)).unwrap();
    }),
    ("mremap", |cx, mm| {
        mm.mremap(cx, remap(0, 8, 8, FIXED, 2000)).unwrap();
    }),
    ("mremap of a leaf", |cx, mm| {
        mm.mremap(cx, remap(0, 512, 512, FIXED, 4096)).unwrap();
    }),
    ("mremap that shrinks", |cx, mm| {
        mm.mremap(cx, remap(0, 16, 4, STAY, 0)).unwrap();
    }),
    ("fork", |cx, mm| mm.fork(cx).unwrap().exit(cx)),
    ("fork and a store", |cx, mm| {
        let child = mm.fork(cx).unwrap();
        mm.store(cx, at(3), 99).unwrap();
        child.exit(cx);
    }),
    ("migration", |cx, mm| {
        mm.migrate(cx, at(3)).unwrap();
    }),
    ("merging", |cx, mm| {
        mm.madvise(cx, at(0), 8 * PAGE, Advice::Mergeable).unwrap();
        for n in 0..8 {
            mm.store(cx, at(n), 7).unwrap();
        }
        let pages: Vec<_> = (0..8).map(|n| (mm, at(n))).collect();
        mm.machine().merge_same_pages(cx, &pages);
    }),
    ("reclaim", |cx, mm| {
        mm.machine().reclaim_all(cx);
    }),
    ("MADV_COLLAPSE", |cx, mm| {
        // A reference that another thread holds for a moment is in its way.
        let _may_fail = mm.madvise(cx, at(0), 512 * PAGE, Advice::Collapse);
    }),
    ("MADV_GUARD_INSTALL", |cx, mm| {
        mm.madvise(cx, at(0), 8 * PAGE, Advice::GuardInstall)
            .unwrap();
    }),
    ("a file over it", |cx, mm| {
        mm.mmap(cx, &shared(0, 8)).unwrap();
    }),
];

/// Runs an operation with pages cached that can be written, and checks the device.
fn run(op: Op, name: &str, fork: ForkMode, deaf: bool) {
    let mut w = World::with(config(fork));
    w.map(0, 512, RW);
    let (machine, mm) = (Arc::clone(&w.machine), Arc::clone(&w.mm));
    let cx = &mut w.thread.cx();
    let (device, _r) = mm.register_tlb(cx, |seat| Iommu::build(seat, deaf));
    (0..16).for_each(|n| mm.store(cx, at(n), n as u8).unwrap());
    device.fill(cx, &mm, 16);
    let before = device.gate.cached();
    assert_eq!(before.len(), 16);
    op(cx, &mm);
    device.check(cx, &mm, name);
    assert_eq!(device.flushes(cx) > 0, !deaf, "{name}");
    // The check can fail: each operation makes something stale.
    assert!(stale(before, cx, &mm).is_some(), "{name}");
    mm.exit(cx);
    assert_eq!(device.releases.load(SeqCst), 1);
    assert_eq!(machine.mem().in_use(), 0, "{name}");
}

#[test]
fn each_operation_flushes_before_frames_go() {
    for fork in [ForkMode::Copy, ForkMode::Share] {
        for (name, op) in OPS {
            run(op, name, fork, false);
        }
    }
}

#[test]
fn a_device_that_forgets_the_flush_has_nothing_stale() {
    for (name, op) in OPS {
        run(op, name, ForkMode::Copy, true);
    }
}

/// A right that a fork takes is gone, whatever the device does: no store reaches the child.
#[test]
fn no_store_of_a_device_that_forgets_the_flush_reaches_a_child() {
    let mut w = World::with(config(ForkMode::Copy));
    w.map(0, 1, RW);
    let (mm, cx) = (Arc::clone(&w.mm), &mut w.thread.cx());
    let (device, _r) = mm.register_tlb(cx, |seat| Iommu::build(seat, true));
    mm.store(cx, at(0), 1).unwrap();
    assert_eq!(mm.walk(cx, &device.gate, page(0), Access::Write), Ok(true));
    let child = mm.fork(cx).unwrap();
    let store = |mut frame: FrameViewMut<'_>| frame.write(0, &[99]);
    assert!(device.gate.write(cx, page(0), store).is_none());
    assert_eq!(child.load(cx, at(0)), Ok(1));
    child.exit(cx);
    mm.exit(cx);
}

#[test]
fn pages_of_an_object_are_flushed() {
    let mut w = World::with(config(ForkMode::Copy));
    let file = objects::shmem(&mut w, 8);
    let (mm, cx) = (Arc::clone(&w.mm), &mut w.thread.cx());
    let (device, registration) = mm.register_tlb(cx, Iommu::new);
    mm.mmap(cx, &shared(0, 8).file(&file, 0)).unwrap();
    (0..8).for_each(|n| mm.store(cx, at(n), 1).unwrap());
    device.fill(cx, &mm, 8);
    mm.madvise(cx, at(0), 2 * PAGE, Advice::Remove).unwrap();
    device.check(cx, &mm, "MADV_REMOVE");
    assert!(device.gate.cached().len() <= 6);
    device.fill(cx, &mm, 8);
    assert_eq!(device.gate.cached().len(), 6);
    registration.unregister(cx);
    assert!(device.gate.cached().is_empty());
    assert_eq!(device.releases.load(SeqCst), 1);
    // A device that was released walks no more.
    assert_eq!(mm.walk(cx, &device.gate, page(4), Access::Read), Ok(false));
    mm.exit(cx);
    assert_eq!(device.releases.load(SeqCst), 1, "once");
}

#[test]
fn what_gains_is_not_flushed() {
    let mut w = World::with(config(ForkMode::Copy));
    w.map(0, 8, Prot::READ);
    let (mm, cx) = (Arc::clone(&w.mm), &mut w.thread.cx());
    let (device, _r) = mm.register_tlb(cx, Iommu::new);
    let write = |cx: &mut CallCx<'_>| mm.walk(cx, &device.gate, page(1), Access::Write);
    assert_eq!(write(cx), Ok(false));
    assert_eq!(
        mm.serve_page_request(cx, page(1), Access::Write),
        Err(FaultError::Denied(at(1)))
    );
    assert_eq!(mm.serve_page_request(cx, page(1), Access::Read), Ok(()));
    assert_eq!(mm.walk(cx, &device.gate, page(1), Access::Read), Ok(true));
    assert_eq!(device.flushes(cx), 0, "a page that comes is not told");
    mm.mprotect(cx, at(0), 8 * PAGE, RW).unwrap();
    // The zero page is replaced: that is a loss.
    assert_eq!(mm.serve_page_request(cx, page(1), Access::Write), Ok(()));
    assert!(device.flushes(cx) > 0);
    assert_eq!(write(cx), Ok(true));
    device
        .gate
        .write(cx, page(1), |mut frame| frame.write(0, &[5]))
        .unwrap();
    assert_eq!(mm.load(cx, at(1)), Ok(5));
    device.gate.evict(cx, page(1).into());
    assert!(device.gate.cached().is_empty());

    let another = Mm::new(&w.machine);
    let wrong = another.walk(cx, &device.gate, page(1), Access::Read);
    assert_eq!(wrong, Err(FaultError::WrongAddressSpace));
    assert_eq!(
        mm.walk(cx, &device.gate, Vpn(u64::MAX), Access::Read),
        Ok(false)
    );
    another.exit(cx);
    mm.exit(cx);
}

/// Ends the device's thread, also when a test panics.
struct Ending<'d>(&'d AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

/// A device reads and writes on one thread while operations run on another: a look at a frame that
/// has gone panics.
#[test]
fn a_device_that_runs_beside_operations_meets_no_frame_that_has_gone() {
    for fork in [ForkMode::Copy, ForkMode::Share] {
        let machine = Machine::new(config(fork));
        let mm = Mm::new(&machine);
        let done = &AtomicBool::new(false);
        let mut thread = machine.enter().unwrap();
        let cx = &mut thread.cx();
        let (device, _r) = mm.register_tlb(cx, Iommu::new);
        let (mm, machine, gate) = (&mm, &machine, &device);
        thread::scope(|s| {
            let _ended = Ending(done);
            s.spawn(move || {
                let mut thread = machine.enter().unwrap();
                let cx = &mut thread.cx();
                let mut n = 0;
                while !done.load(SeqCst) {
                    n = (n * 5 + 3) % 16;
                    let access = if n % 3 == 0 {
                        Access::Read
                    } else {
                        Access::Write
                    };
                    let _invalid = mm.serve_page_request(cx, page(n), access);
                    if mm.walk(cx, &gate.gate, page(n), access).unwrap() {
                        gate.gate.write(cx, page(n), |mut f| f.write(0, &[1]));
                        gate.gate.read(cx, page(n), |f| f.read_u8(0));
                    }
                }
            });
            for round in 0..40_u64 {
                mm.mmap(cx, &private(0, 512)).unwrap();
                (0..16).for_each(|n| mm.store(cx, at(n), n as u8).unwrap());
                let (_, op) = OPS[(round % OPS.len() as u64) as usize];
                op(cx, mm);
            }
        });
        mm.exit(cx);
        assert_eq!(machine.mem().in_use(), 0);
    }
}
