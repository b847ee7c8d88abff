//! The kernel's self tests of HMM (`tools/testing/selftests/mm/hmm-tests.c`) that need no memory of
//! a device, each with its expected outcome and under its name. `hmm_device` has the others.

use crate::common::{
    PAGE, RW, World, at,
    mirror::{Mirror, fill, pattern, world_of},
    objects,
};
use emmu::{
    Errno,
    mm::{Advice, MapFlags, MmapArgs, Prot},
};
use std::{sync::Arc, thread};

/// A world with private memory on pages 0 to `n`, and a mirror of it.
fn world(n: u64, prot: Prot) -> (World, Arc<Mirror>) {
    let mut w = world_of(n, prot, 2);
    let mirror = Mirror::on(&mut w.thread.cx(), &w.mm);
    (w, mirror)
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

/// The pages of a file that is used in place are a driver's, in no cache. The first read maps one,
/// where the module of Linux's test maps it with the file.
#[test]
fn mixedmap() {
    let (mut w, mirror) = world(0, RW);
    let (_, file) = objects::xip(&w, 1);
    let cx = &mut w.thread.cx();
    file.write_at(cx.reborrow(), 0, &[7]).unwrap();
    let args = MmapArgs::anonymous(PAGE).fixed(at(0)).file(&file, 0);
    w.mm.mmap(cx, &args).unwrap();
    assert_eq!(w.mm.load(cx, at(0)), Ok(7));
    assert_eq!(mirror.snapshot(cx, &w.mm, 0, 1), "r");
    // A write of the device copies the page.
    assert_eq!(mirror.write(cx, &w.mm, 0, 1), Ok((vec![1], 1)));
    assert_eq!(mirror.snapshot(cx, &w.mm, 0, 1), "w");
    let mut byte = [0];
    file.read_at(cx.reborrow(), 0, &mut byte).unwrap();
    assert_eq!((byte, w.mm.load(cx, at(0))), ([7], Ok(1)));
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
