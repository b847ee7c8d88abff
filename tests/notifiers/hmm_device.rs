//! The kernel's self tests of HMM with memory of a device, each with its expected outcome and under
//! its name, for both kinds of memory.

use crate::common::{
    PAGE, RW, World, at,
    mirror::{Board, Mirror, bytes, fill, pages, pattern, unmap, world_of},
    objects,
};
use emmu::{
    Errno,
    frame::{
        AtomicOp,
        DeviceKind::{self, Coherent, Private},
    },
    mm::{DeviceRegistration, MapFlags, MigrateSelect, MigrateTo, MmapArgs, PinKind, Prot},
    notifier::Access,
    oracle::Oracle,
};
use std::sync::{Arc, atomic::Ordering};

fn both(test: impl Fn(DeviceKind)) {
    [Private, Coherent].into_iter().for_each(test);
}

/// A world with private memory on pages 0 to `n`, a mirror of it with memory, and an oracle that
/// watches it.
struct Hmm {
    w: World,
    board: Arc<Board>,
    mirror: Arc<Mirror>,
    oracle: Arc<Oracle>,
    device: DeviceRegistration,
}

impl Hmm {
    fn new(kind: DeviceKind, n: u64) -> Self {
        Self::with_pool(kind, n, 0)
    }
    fn with_pool(kind: DeviceKind, n: u64, pool: u64) -> Self {
        let mut w = world_of(n, RW, pool);
        let (board, device) = Board::add_kind(&w, kind, 256);
        let mirror = Mirror::with(&mut w.thread.cx(), &w.mm, Some(board.clone()));
        let oracle = Oracle::new(&w.machine);
        oracle.watch(&w.mm, mirror.clone());
        Self {
            w,
            board,
            mirror,
            oracle,
            device,
        }
    }
    fn take_in(&mut self, from: u64, n: u64) -> Result<Vec<u8>, Errno> {
        self.mirror
            .take_in(&mut self.w.thread.cx(), &self.w.mm, from, n)
    }
    fn snapshot(&mut self, from: u64, n: u64) -> String {
        self.mirror
            .snapshot(&mut self.w.thread.cx(), &self.w.mm, from, n)
    }
    /// Ends the world: nothing is left of it, on the device neither.
    fn end(mut self) {
        self.w.check_rmap();
        self.w.mm.exit(&mut self.w.thread.cx());
        assert_eq!(self.board.memory.in_use(), 0, "frames left on the device");
        let gone = self
            .w
            .machine
            .remove_device(&mut self.w.thread.cx(), self.device);
        gone.expect("no page is left");
        self.oracle.assert_silent();
        self.w.end();
    }
}

/// A device and a mirror come and go, and nothing is left of them.
#[test]
fn open_close() {
    both(|kind| {
        let mut t = Hmm::new(kind, 2);
        let w = &mut t.w;
        fill(w, 0, 2);
        let (mirror, registration) = Mirror::registered(&mut w.thread.cx(), &w.mm);
        let read = mirror.read(&mut w.thread.cx(), &w.mm, 0, 1);
        assert_eq!(read.unwrap().0, [1]);
        registration.unregister(&mut w.thread.cx());
        let late = mirror.read(&mut w.thread.cx(), &w.mm, 1, 1);
        assert!(late.is_err(), "a mirror that is closed");
        drop(mirror);
        t.end();
    });
}

#[test]
fn migrate() {
    both(|kind| {
        let mut h = Hmm::new(kind, 64);
        fill(&mut h.w, 0, 64);
        assert_eq!(h.take_in(0, 64), Ok(pattern(0, 64)));
        assert_eq!(h.board.memory.in_use(), 64);
        assert_eq!(h.snapshot(0, 4), "PPPP");
        h.end();
    });
}

#[test]
fn migrate_file_private() {
    both(|kind| {
        let mut h = Hmm::new(kind, 0);
        let (_, file) = objects::disk(&mut h.w, 8);
        h.w.map_file(0, 8, &file, 0, MapFlags::PRIVATE);
        fill(&mut h.w, 0, 8);
        assert_eq!(h.take_in(0, 8), Ok(pattern(0, 8)));
        assert_eq!(bytes(&mut h.w, 0, 8), pattern(0, 8));
        unmap(&mut h.w, 0, 8);
        assert_eq!(h.board.memory.in_use(), 0);
        h.oracle.assert_silent();
    });
}

#[test]
fn migrate_fault() {
    both(|kind| {
        let mut h = Hmm::new(kind, 64);
        fill(&mut h.w, 0, 64);
        assert_eq!(h.take_in(0, 64), Ok(pattern(0, 64)));
        assert_eq!(bytes(&mut h.w, 0, 32), pattern(0, 32));
        let left = if kind == Private { 32 } else { 64 };
        assert_eq!(h.board.memory.in_use(), left);
        // To the device again: half of the pages are there already, and stay mapped meanwhile.
        h.mirror
            .migrate(
                &mut h.w.thread.cx(),
                &h.w.mm,
                (0, 64),
                MigrateSelect::SYSTEM,
                MigrateTo::Device,
            )
            .unwrap();
        let cx = &mut h.w.thread.cx();
        assert_eq!(h.mirror.has(cx, 0), kind == Coherent);
        assert!(h.mirror.has(cx, 32));
        assert_eq!(
            h.mirror.read(cx, &h.w.mm, 0, 64),
            Ok((pattern(0, 64), u32::from(kind == Private))),
            "what came home is mapped anew"
        );
        assert_eq!(h.board.memory.in_use(), 64);
        h.end();
    });
}

#[test]
fn migrate_release() {
    both(|kind| {
        let mut h = Hmm::new(kind, 64);
        fill(&mut h.w, 0, 64);
        assert_eq!(h.take_in(0, 64), Ok(pattern(0, 64)));
        let left =
            h.w.machine
                .evict_device(&mut h.w.thread.cx(), &h.board.memory);
        assert_eq!((left, h.board.memory.in_use()), (0, 0));
        assert_eq!(bytes(&mut h.w, 0, 32), pattern(0, 32));
        h.end();
    });
}

#[test]
fn migrate_shared() {
    both(|kind| {
        let mut h = Hmm::new(kind, 0);
        h.w.share(0, 8);
        assert_eq!(h.take_in(0, 8), Err(Errno::ENOENT));
        assert_eq!(h.board.memory.in_use(), 0);
        h.end();
    });
}

#[test]
fn migrate_mixed() {
    both(|kind| {
        let mut h = Hmm::new(kind, 0);
        h.w.map(0, 6, Prot::empty());
        let (other, _registration) = Board::add_kind(&h.w, kind, 8);
        let second = Mirror::with(&mut h.w.thread.cx(), &h.w.mm, Some(other));
        assert_eq!(h.take_in(0, 6), Err(Errno::EINVAL), "no access");
        unmap(&mut h.w, 1, 1);
        assert_eq!(h.take_in(0, 3), Err(Errno::EINVAL), "a hole");
        let cx = &mut h.w.thread.cx();
        // 2: the zero page, 3: written and read-only, 4 and 5: written.
        h.w.mm.mprotect(cx, at(2), PAGE, Prot::READ).unwrap();
        assert_eq!(h.w.mm.load(cx, at(2)), Ok(0));
        h.w.mm.mprotect(cx, at(3), 3 * PAGE, RW).unwrap();
        (3..6).for_each(|n| h.w.mm.store(cx, at(n), 3).unwrap());
        h.w.mm.mprotect(cx, at(3), PAGE, Prot::READ).unwrap();
        let mut there = Vec::new();
        for (from, n) in [(2, 1), (3, 1), (4, 2)] {
            there.extend(h.mirror.take_in(cx, &h.w.mm, from, n).unwrap());
        }
        assert_eq!(there, [0, 3, 3, 3]);
        assert_eq!(h.mirror.snapshot(cx, &h.w.mm, 2, 4), "ppPP");
        // Page 5 is on another device.
        assert_eq!(second.take_in(cx, &h.w.mm, 5, 1), Err(Errno::ENOENT));
        let remote = if kind == Private { "-" } else { "w" };
        assert_eq!(second.snapshot(cx, &h.w.mm, 5, 1), remote);
        h.end();
    });
}

#[test]
fn migrate_multiple() {
    both(|kind| {
        let mut h = Hmm::new(kind, 0);
        for round in 0..10 {
            h.w.map(round * 16, 16, RW);
            fill(&mut h.w, round * 16, 16);
            assert_eq!(h.take_in(round * 16, 16), Ok(pattern(round * 16, 16)));
            if kind == Coherent {
                let (select, to) = (MigrateSelect::DEVICE_COHERENT, MigrateTo::System);
                let cx = &mut h.w.thread.cx();
                let done = h.mirror.migrate(cx, &h.w.mm, (round * 16, 16), select, to);
                assert_eq!(done.unwrap().moved(), 16);
            }
            assert_eq!(bytes(&mut h.w, round * 16, 16), pattern(round * 16, 16));
            assert_eq!(h.board.memory.in_use(), 0);
            unmap(&mut h.w, round * 16, 16);
        }
        h.end();
    });
}

#[test]
fn snapshot() {
    both(|kind| {
        let mut h = Hmm::new(kind, 7);
        let (other, _registration) = Board::add_kind(&h.w, kind, 8);
        let second = Mirror::with(&mut h.w.thread.cx(), &h.w.mm, Some(other));
        h.w.fill(5, 2);
        h.take_in(5, 1).unwrap();
        second.take_in(&mut h.w.thread.cx(), &h.w.mm, 6, 1).unwrap();
        // Page 5 is on this device, page 6 on the other.
        let (local, remote) = match kind {
            Private => ("-P-", "--P"),
            Coherent => ("-Pw", "-wP"),
        };
        assert_eq!(h.snapshot(4, 3), local);
        assert_eq!(second.snapshot(&mut h.w.thread.cx(), &h.w.mm, 4, 3), remote);
        h.end();
    });
}

#[test]
fn double_map() {
    both(|kind| {
        let mut h = Hmm::new(kind, 8);
        fill(&mut h.w, 0, 8);
        let cx = &mut h.w.thread.cx();
        h.w.mm.mprotect(cx, at(0), 8 * PAGE, Prot::READ).unwrap();
        let first = Mirror::on(cx, &h.w.mm);
        h.oracle.watch(&h.w.mm, first.clone());
        for device in [&first, &h.mirror] {
            assert_eq!(device.read(cx, &h.w.mm, 0, 8), Ok((pattern(0, 8), 1)));
        }
        assert_eq!(
            h.mirror.take_in(cx, &h.w.mm, 0, 8),
            Ok(pattern(0, 8)),
            "the pages go to one device"
        );
        assert!(!first.has(cx, 0));
        assert_eq!(
            first.read(cx, &h.w.mm, 0, 8),
            Ok((pattern(0, 8), 1)),
            "and come home for the other, which does not reach them"
        );
        assert_eq!(h.mirror.has(cx, 0), kind == Coherent);
        h.end();
    });
}

/// Pages come home for each kind of hold, or for long ones only.
#[test]
fn hmm_gup_test() {
    both(|kind| {
        let mut h = Hmm::new(kind, 4);
        fill(&mut h.w, 0, 4);
        assert_eq!(h.take_in(0, 4), Ok(pattern(0, 4)));
        let cx = &mut h.w.thread.cx();
        let mut held = Vec::new();
        for n in 0..2 {
            let mm = &h.w.mm;
            held.push(mm.get_pages(cx, at(n), 1).unwrap());
            let long = PinKind::LongTerm;
            held.push(mm.pin(cx, at(n + 2), 1, Access::Write, long).unwrap());
        }
        let left = if kind == Private { "wwww" } else { "PPww" };
        assert_eq!(h.mirror.snapshot(cx, &h.w.mm, 0, 4), left);
        drop(held);
        assert_eq!(bytes(&mut h.w, 0, 4), pattern(0, 4));
        h.end();
    });
}

#[test]
fn hmm_cow_in_device() {
    both(|kind| {
        let mut h = Hmm::new(kind, 4);
        fill(&mut h.w, 0, 4);
        assert_eq!(h.take_in(0, 4), Ok(pattern(0, 4)));
        let child = h.w.mm.fork(&mut h.w.thread.cx()).unwrap();
        assert_eq!(h.board.memory.in_use(), 4, "both have the pages there");
        assert_eq!(h.snapshot(0, 4), "pppp");
        (0..4).for_each(|n| h.w.put(n, 100));
        assert_eq!(h.snapshot(0, 4), "wwww");
        let cx = &mut h.w.thread.cx();
        assert_eq!(child.load(cx, at(3)), Ok(4));
        child.exit(cx);
        h.end();
    });
}

/// Each page is read as the device left it, and incremented; then the device has none alone.
#[test]
fn exclusive() {
    both(|kind| {
        let mut h = Hmm::new(kind, 16);
        fill(&mut h.w, 0, 16);
        let cx = &mut h.w.thread.cx();
        h.mirror.exclusive(cx, &h.w.mm, 0, 16).unwrap();
        assert_eq!(h.mirror.read(cx, &h.w.mm, 0, 16), Ok((pattern(0, 16), 0)));
        h.w.told();
        for n in 0..16 {
            let cx = &mut h.w.thread.cx();
            let add = AtomicOp::Add(1_u8);
            let old = h.w.mm.atomic(cx, at(n), add, Ordering::Relaxed);
            assert_eq!(old, Ok(n as u8 + 1));
            assert!(!h.mirror.has(cx, n), "taken back");
        }
        assert_eq!(bytes(&mut h.w, 0, 16), pattern(1, 16));
        h.end();
    });
}

#[test]
fn exclusive_mprotect() {
    both(|kind| {
        let mut h = Hmm::new(kind, 4);
        fill(&mut h.w, 0, 4);
        let cx = &mut h.w.thread.cx();
        h.mirror.exclusive(cx, &h.w.mm, 0, 4).unwrap();
        h.w.mm.mprotect(cx, at(0), 4 * PAGE, Prot::READ).unwrap();
        assert_eq!(h.mirror.write(cx, &h.w.mm, 0, 4), Err(Errno::EPERM));
        assert_eq!(h.mirror.exclusive(cx, &h.w.mm, 0, 4), Err(Errno::EFAULT));
        assert_eq!(bytes(&mut h.w, 0, 4), pattern(0, 4));
        h.end();
    });
}

#[test]
fn exclusive_cow() {
    both(|kind| {
        let mut h = Hmm::new(kind, 4);
        fill(&mut h.w, 0, 4);
        h.mirror
            .exclusive(&mut h.w.thread.cx(), &h.w.mm, 0, 4)
            .unwrap();
        let child = h.w.fork();
        for mm in [h.w.mm.clone(), child.clone()] {
            h.w.inside(&mm, |w| {
                let cx = &mut w.thread.cx();
                for n in 0..4 {
                    let add = AtomicOp::Add(1_u8);
                    w.mm.atomic(cx, at(n), add, Ordering::Relaxed).unwrap();
                }
            });
            assert_eq!(h.w.inside(&mm, |w| bytes(w, 0, 4)), pattern(1, 4));
        }
        h.w.reap(&child);
        h.end();
    });
}

/// A range is a part of one mapping, of a kind that migrates.
#[test]
fn bad_ranges_change_nothing() {
    both(|kind| {
        let mut h = Hmm::with_pool(kind, 8, 1);
        let cx = &mut h.w.thread.cx();
        h.w.mm.mprotect(cx, at(4), 4 * PAGE, Prot::READ).unwrap();
        let huge = MmapArgs::anonymous(512 * PAGE).fixed(at(512));
        h.w.mm.mmap(cx, &huge.flags(MapFlags::HUGETLB)).unwrap();
        h.w.windows();
        let cx = &mut h.w.thread.cx();
        for (from, n) in [(2, 4), (8, 1), (7, 2), (512, 512)] {
            let select = MigrateSelect::all();
            let to = MigrateTo::Device;
            let done = h.mirror.migrate(cx, &h.w.mm, (from, n), select, to);
            assert_eq!(done.err(), Some(Errno::EINVAL), "{:?}", pages(from, n));
        }
        assert_eq!(h.w.windows(), []);
        h.oracle.assert_silent();
    });
}
