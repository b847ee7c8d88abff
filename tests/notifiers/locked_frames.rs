//! A frame that is locked for a driver: what it writes is kept, and what may only be read is not
//! written.

use crate::common::{PAGE, RW, at, objects::swapping};
use emmu::{
    MachineConfig,
    file::{DiskFile, File, FileMode, MemStore, XipFile},
    mm::{Advice, MapFlags, MmapArgs, Prot},
    notifier::Access,
};
use std::sync::Arc;

#[test]
fn what_is_written_under_the_lock_survives_swap() {
    let mut w = swapping(64, 64);
    w.map(0, 1, RW);
    w.put(0, 1);
    let mm = Arc::clone(&w.mm);
    let out = |w: &mut crate::common::World| {
        mm.madvise(&mut w.thread.cx(), at(0), PAGE, Advice::PageOut)
            .unwrap();
    };
    out(&mut w);
    assert_eq!(w.get(0), Ok(1));
    let cx = &mut w.thread.cx();
    let wrote = mm.with_locked_frame(cx, at(0), Access::Write, |_, locked| locked.write(0, &[77]));
    assert_eq!(wrote, Ok(true));
    out(&mut w);
    assert_eq!(w.get(0), Ok(77));
    w.end();
}

#[test]
fn what_is_written_under_the_lock_reaches_the_disk() {
    let mut w = crate::common::World::with(MachineConfig::default());
    let store = Box::<MemStore>::default();
    let disk = DiskFile::new(w.machine.host(), "x", PAGE, store).unwrap();
    let file = File::open(Arc::clone(&disk) as _, FileMode::ReadWrite);
    w.map_file(0, 1, &file, 0, MapFlags::SHARED);
    w.put(0, 1);
    file.sync(w.thread.cx()).unwrap();
    let cx = &mut w.thread.cx();
    let write =
        w.mm.with_locked_frame(cx, at(0), Access::Write, |_, locked| locked.write(0, &[77]));
    assert_eq!((write, disk.dirty()), (Ok(true), 1));
    file.sync(w.thread.cx()).unwrap();
    let mut block = [0; 4096];
    disk.store().read(0, &mut block).unwrap();
    assert_eq!(block[0], 77);
}

#[test]
fn a_frame_locked_for_reading_is_not_written() {
    let mut w = crate::common::World::with(MachineConfig::default());
    let store = Box::<MemStore>::default();
    let disk = DiskFile::new(w.machine.host(), "x", PAGE, store).unwrap();
    // All holes of this one are one frame.
    let holes = XipFile::new(w.machine.host(), "y", PAGE).unwrap();
    let files = [
        File::open(Arc::clone(&disk) as _, FileMode::ReadOnly),
        File::open(holes, FileMode::ReadOnly),
    ];
    for (n, file) in (0..).zip(&files) {
        let args = MmapArgs::anonymous(PAGE).prot(Prot::READ);
        let args = args.file(file, 0).shared().fixed(at(n));
        let cx = &mut w.thread.cx();
        w.mm.mmap(cx, &args).unwrap();
        let wrote =
            w.mm.with_locked_frame(cx, at(n), Access::Read, |_, locked| {
                let mut byte = [1];
                locked.read(0, &mut byte);
                (locked.write(0, &[9]), byte)
            });
        assert_eq!(wrote, Ok((false, [0])));
        assert_eq!((w.get(n), disk.dirty()), (Ok(0), 0));
    }
}
