//! The kernel's self tests of HMM (`tools/testing/selftests/mm/hmm-tests.c`) that need no memory of
//! a device, each with its expected outcome and under its name.

use crate::common::{PAGE, RW, World, at, numbered::page, objects};
use emmu::{
    Errno, HugePoolConfig, MachineConfig, MemConfig,
    driver::*,
    mm::{Advice, MapFlags, MmapArgs, Prot},
};
use std::{sync::Arc, thread};

/// `struct dmirror`: a device that mirrors an address space.
struct Mirror(Gate<OrderedStore<Vpn>, (), Atomic>);

impl SpinningMmu for Mirror {
    fn invalidate<'i>(&self, cx: AtomicCallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> {
        self.0.exclude(cx, inv, |(), _, _| ())
    }
    fn translations(&self, visit: &mut dyn FnMut(Translation)) -> bool {
        self.0.audit(visit)
    }
}

/// The first byte of each page, and the number of faults of the device.
type Done = Result<(Vec<u8>, u32), Errno>;

impl Mirror {
    fn on(cx: &mut CallCx<'_>, mm: &Mm) -> Arc<Self> {
        let new = |seat| Arc::new(Self(Gate::new(seat, OrderedStore::default(), ())));
        mm.register(cx, new).0
    }
    /// `dmirror_read`, `dmirror_write`: copies up to the first page that is not mirrored, and
    /// faults in the rest.
    fn copy(
        &self,
        cx: &mut CallCx<'_>,
        mm: &Mm,
        range: VpnRange,
        request: FaultRequest,
        mut page: impl FnMut(&mut GateGuard<'_, OrderedStore<Vpn>, (), Atomic>, Vpn) -> Option<u8>,
    ) -> Done {
        let (mut bytes, mut faults) = (Vec::new(), 0);
        loop {
            let rest = {
                let mut gate = self.0.lock(cx);
                let at = range.start().plus(bytes.len() as u64);
                let copied: Vec<_> = (at.0..range.end().0)
                    .map_while(|at| page(&mut gate, Vpn(at)))
                    .collect();
                bytes.extend(copied);
                VpnRange::new(range.start().plus(bytes.len() as u64), range.end())
            };
            let Some(rest) = rest else {
                return Ok((bytes, faults));
            };
            faults += 1;
            let stopped = self.0.translate_range(cx, mm, rest, request, |permit| {
                let stopped = permit.stopped();
                // All or nothing, as `dmirror_do_fault`.
                if stopped.is_none() {
                    drop(permit.establish(|found| found.range().start()));
                }
                stopped
            });
            match stopped {
                Ok(None) => {}
                Ok(Some(fault)) => return Err(fault.errno()),
                Err(why) => return Err(why.errno()),
            }
        }
    }
    fn read(&self, cx: &mut CallCx<'_>, mm: &Mm, from: u64, n: u64) -> Done {
        self.copy(cx, mm, pages(from, n), FaultRequest::Read, |gate, at| {
            Some(gate.lookup(&at)?.read_u8(0))
        })
    }
    /// Writes page number plus one, modulo 256, to each page.
    fn write(&self, cx: &mut CallCx<'_>, mm: &Mm, from: u64, n: u64) -> Done {
        self.copy(cx, mm, pages(from, n), FaultRequest::Write, |gate, at| {
            let byte = (at.0 - page(0).0 + 1) as u8;
            gate.lookup_mut(&at)?.write(0, &[byte]);
            Some(byte)
        })
    }
    /// `HMM_DMIRROR_SNAPSHOT`: E error, `-` none, r and w small pages, R and W parts of huge ones.
    fn snapshot(&self, cx: &mut CallCx<'_>, mm: &Mm, from: u64, n: u64) -> String {
        let ticket = self.0.range_ticket(pages(from, n), FaultRequest::Snapshot);
        let shown = self
            .0
            .translate_ticket(cx, mm, ticket.allow_huge(), |permit| {
                let letter = |(pages, slot): (VpnRange, Slot)| {
                    let letter = match slot {
                        Slot::Inaccessible => "E",
                        Slot::Missing => "-",
                        Slot::Mapped(t) => match (t.range().pages() > 1, t.is_writable()) {
                            (false, false) => "r",
                            (false, true) => "w",
                            (true, false) => "R",
                            (true, true) => "W",
                        },
                    };
                    letter.repeat(pages.pages() as usize)
                };
                permit.slots().map(letter).collect()
            });
        shown.expect("a snapshot has no error")
    }
}

fn pages(from: u64, n: u64) -> VpnRange {
    World::pages(from, from + n)
}
fn pattern(from: u64, n: u64) -> Vec<u8> {
    (from..from + n).map(|n| (n + 1) as u8).collect()
}

/// A world with private memory on pages 0 to `n`, and a mirror of it.
fn world(n: u64, prot: Prot) -> (World, Arc<Mirror>) {
    let mut w = World::with(MachineConfig {
        memory: MemConfig {
            frames: 8192,
            ..MemConfig::default()
        },
        huge_pages: HugePoolConfig {
            pages: 2,
            overcommit: 0,
        },
        ..MachineConfig::default()
    });
    if n > 0 {
        w.map(0, n, prot);
    }
    let mirror = Mirror::on(&mut w.thread.cx(), &w.mm);
    (w, mirror)
}
fn fill(w: &mut World, from: u64, n: u64) {
    let mut cx = w.thread.cx();
    (from..from + n).for_each(|n| w.mm.store(&mut cx, at(n), (n + 1) as u8).unwrap());
}

#[test]
fn anon_read() {
    let (mut w, mirror) = world(64, RW);
    fill(&mut w, 2, 62);
    let cx = &mut w.thread.cx();
    // Page 0 is the zero page, page 1 was never touched.
    assert_eq!(w.mm.load(cx, at(0)), Ok(0));
    w.mm.mprotect(cx, at(0), 64 * PAGE, Prot::READ).unwrap();
    let want = [vec![0, 0], pattern(2, 62)].concat();
    assert_eq!(mirror.read(cx, &w.mm, 0, 64), Ok((want, 1)));
}

#[test]
fn anon_read_prot() {
    let (mut w, mirror) = world(4, RW);
    fill(&mut w, 0, 4);
    let cx = &mut w.thread.cx();
    w.mm.mprotect(cx, at(0), 4 * PAGE, Prot::empty()).unwrap();
    assert_eq!(mirror.read(cx, &w.mm, 0, 4), Err(Errno::EFAULT));
    w.mm.mprotect(cx, at(0), 4 * PAGE, RW).unwrap();
    assert_eq!(w.mm.load(cx, at(3)), Ok(4));
}

#[test]
fn anon_write() {
    let (mut w, mirror) = world(64, RW);
    let cx = &mut w.thread.cx();
    assert_eq!(mirror.write(cx, &w.mm, 0, 64), Ok((pattern(0, 64), 1)));
    for n in 0..64 {
        assert_eq!(w.mm.load(cx, at(n)), Ok(n as u8 + 1));
    }
}

#[test]
fn anon_write_prot() {
    let (mut w, mirror) = world(2, Prot::READ);
    let cx = &mut w.thread.cx();
    assert_eq!(mirror.read(cx, &w.mm, 0, 1), Ok((vec![0], 1)));
    assert_eq!(mirror.write(cx, &w.mm, 0, 2), Err(Errno::EPERM));
    assert_eq!(w.mm.load(cx, at(0)), Ok(0));
    w.mm.mprotect(cx, at(0), 2 * PAGE, RW).unwrap();
    assert_eq!(mirror.write(cx, &w.mm, 0, 2), Ok((vec![1, 2], 1)));
    assert_eq!(w.mm.load(cx, at(1)), Ok(2));
}

#[test]
fn anon_write_child() {
    let (mut w, _parents) = world(8, RW);
    fill(&mut w, 0, 8);
    let cx = &mut w.thread.cx();
    w.mm.store(cx, at(3), 99).unwrap();
    let child = w.mm.fork(cx).unwrap();
    let mirror = Mirror::on(cx, &child);
    assert_eq!(mirror.write(cx, &child, 0, 8), Ok((pattern(0, 8), 1)));
    assert_eq!(child.load(cx, at(3)), Ok(4));
    assert_eq!(w.mm.load(cx, at(3)), Ok(99), "private");
    child.exit(cx);
}

#[test]
fn anon_write_child_shared() {
    let (mut w, _parents) = world(0, RW);
    let cx = &mut w.thread.cx();
    let args = MmapArgs::anonymous(8 * PAGE).fixed(at(0));
    w.mm.mmap(cx, &args.shared()).unwrap();
    let child = w.mm.fork(cx).unwrap();
    let mirror = Mirror::on(cx, &child);
    assert_eq!(mirror.write(cx, &child, 0, 8), Ok((pattern(0, 8), 1)));
    assert_eq!(w.mm.load(cx, at(3)), Ok(4), "shared");
    child.exit(cx);
}

#[test]
fn anon_write_huge() {
    let (mut w, mirror) = world(1024, RW);
    let cx = &mut w.thread.cx();
    w.mm.madvise(cx, at(0), 1024 * PAGE, Advice::HugePage)
        .unwrap();
    let done = mirror.write(cx, &w.mm, 0, 512).unwrap();
    assert_eq!(done, (pattern(0, 512), 1));
    assert_eq!(w.mm.load(cx, at(511)), Ok(0));
    assert_eq!(w.mm.load(cx, at(100)), Ok(101));
    assert_eq!(
        mirror.snapshot(cx, &w.mm, 500, 24),
        "W".repeat(12) + &"-".repeat(12)
    );
}

/// `anon_write_hugetlbfs` and `compound`.
#[test]
fn compound() {
    let (mut w, mirror) = world(0, RW);
    let cx = &mut w.thread.cx();
    let args = MmapArgs::anonymous(1024 * PAGE).fixed(at(0));
    w.mm.mmap(cx, &args.flags(MapFlags::HUGETLB)).unwrap();
    let done = mirror.write(cx, &w.mm, 0, 1024).unwrap();
    assert_eq!(done, (pattern(0, 1024), 1));
    assert_eq!(w.mm.load(cx, at(1000)), Ok(1001_u64 as u8));
    assert_eq!(mirror.snapshot(cx, &w.mm, 0, 1024), "W".repeat(1024));
    w.mm.mprotect(cx, at(0), 1024 * PAGE, Prot::READ).unwrap();
    assert_eq!(mirror.snapshot(cx, &w.mm, 0, 1024), "R".repeat(1024));
}

#[test]
fn file_read() {
    let (mut w, mirror) = world(0, RW);
    let (_, file) = objects::disk(&mut w, 8);
    let cx = &mut w.thread.cx();
    let args = MmapArgs::anonymous(8 * PAGE).fixed(at(0)).file(&file, 0);
    w.mm.mmap(cx, &args.prot(Prot::READ)).unwrap();
    assert_eq!(mirror.read(cx, &w.mm, 0, 8), Ok((pattern(0, 8), 1)));
}

#[test]
fn file_write() {
    let (mut w, mirror) = world(0, RW);
    let file = objects::shmem(&mut w, 12);
    let cx = &mut w.thread.cx();
    let args = MmapArgs::anonymous(8 * PAGE)
        .fixed(at(0))
        .file(&file, 4 * PAGE);
    w.mm.mmap(cx, &args.shared()).unwrap();
    assert_eq!(mirror.write(cx, &w.mm, 0, 8), Ok((pattern(0, 8), 1)));
    let again = MmapArgs::anonymous(8 * PAGE)
        .fixed(at(100))
        .file(&file, 4 * PAGE);
    w.mm.mmap(cx, &again.shared().prot(Prot::READ)).unwrap();
    assert_eq!(w.mm.load(cx, at(107)), Ok(8), "in the file");
}

#[test]
fn anon_read_multiple() {
    let (mut w, mirror) = world(0, RW);
    for round in 0..10 {
        w.map(round * 16, 16, RW);
        fill(&mut w, round * 16, 16);
        let cx = &mut w.thread.cx();
        let want = (pattern(round * 16, 16), 1);
        assert_eq!(mirror.read(cx, &w.mm, round * 16, 16), Ok(want));
        w.mm.munmap(cx, at(round * 16), 16 * PAGE).unwrap();
    }
}

#[test]
fn anon_teardown() {
    let (mut w, mirror) = world(0, RW);
    for _ in 0..10 {
        w.map(0, 64, RW);
        fill(&mut w, 0, 64);
        let (mm, machine) = (&w.mm, &w.machine);
        let done = thread::scope(|s| {
            s.spawn(|| {
                let mut thread = machine.enter().unwrap();
                mm.munmap(&mut thread.cx(), at(32), 32 * PAGE).unwrap();
            });
            mirror.read(&mut w.thread.cx(), mm, 0, 64)
        });
        match done {
            Ok((bytes, _)) => assert_eq!(bytes, pattern(0, 64)),
            Err(why) => assert_eq!(why, Errno::EFAULT),
        }
    }
}

/// Without the pages of devices.
#[test]
fn snapshot() {
    let (mut w, mirror) = world(7, RW);
    let cx = &mut w.thread.cx();
    // 0: no access, 1: a hole, 2: the zero page, 3: written and read-only, 4: written.
    w.mm.mprotect(cx, at(0), PAGE, Prot::empty()).unwrap();
    w.mm.munmap(cx, at(1), PAGE).unwrap();
    w.mm.load(cx, at(2)).unwrap();
    w.mm.store(cx, at(3), 1).unwrap();
    w.mm.mprotect(cx, at(3), PAGE, Prot::READ).unwrap();
    w.mm.store(cx, at(4), 1).unwrap();
    assert_eq!(mirror.snapshot(cx, &w.mm, 0, 7), "EErrw--");
    assert_eq!(w.mm.load(cx, at(5)), Ok(0), "nothing was faulted in");
}

#[test]
fn double_map() {
    let (mut w, first) = world(8, RW);
    fill(&mut w, 0, 8);
    let cx = &mut w.thread.cx();
    let second = Mirror::on(cx, &w.mm);
    w.mm.mprotect(cx, at(0), 8 * PAGE, Prot::READ).unwrap();
    for device in [&first, &second] {
        assert_eq!(device.read(cx, &w.mm, 0, 8), Ok((pattern(0, 8), 1)));
    }
}
