//! Memory objects through their mappings: what is stored is what is read, by whatever way.

use crate::common::{
    PAGE, RW, World, at,
    objects::{disk, shmem, swapping, xip},
};
use emmu::{
    FaultError,
    file::{File, FileMode},
    mm::{MapFlags, MmapArgs, MsyncFlags, Prot},
    testkit::{Profile, Suite},
};
use std::sync::Arc;

const SHARED: MapFlags = MapFlags::SHARED;
const PRIVATE: MapFlags = MapFlags::PRIVATE;

fn beyond(n: u64) -> Result<u8, FaultError> {
    Err(FaultError::Beyond(at(n)))
}

#[test]
fn private_and_shared_mappings_of_one_file() {
    let mut w = World::new();
    let file = shmem(&mut w, 8);
    w.map_file(0, 8, &file, 0, SHARED);
    w.map_file(10, 8, &file, 0, PRIVATE);
    assert_eq!((w.get(3), w.get(13)), (Ok(4), Ok(4)));
    w.put(3, 50);
    assert_eq!(w.get(13), Ok(50), "not yet copied");
    w.put(13, 60);
    w.put(3, 70);
    assert_eq!((w.get(3), w.get(13)), (Ok(70), Ok(60)));
    let mut byte = [0];
    file.read_at(w.thread.cx(), 3 * PAGE, &mut byte).unwrap();
    assert_eq!(byte, [70]);
    file.write_at(w.thread.cx(), 4 * PAGE, &[80]).unwrap();
    assert_eq!((w.get(4), w.get(14)), (Ok(80), Ok(80)));
    w.check_rmap();
}

#[test]
fn what_is_cut_off_is_gone_and_comes_back_empty() {
    let mut w = World::new();
    let file = shmem(&mut w, 4);
    w.map_file(0, 4, &file, 0, SHARED);
    w.map_file(10, 4, &file, 0, PRIVATE);
    (0..4).for_each(|n| w.put(10 + n, 9));
    w.mm.write_bytes(&mut w.thread.cx(), at(1), &[7; 4096])
        .unwrap();
    file.truncate(w.thread.cx(), PAGE + 100).unwrap();
    assert_eq!(
        (w.get(1), w.get(2), w.get(12)),
        (Ok(7), beyond(2), beyond(12))
    );
    assert_eq!(w.get(11), Ok(9), "the copy of the last page stays");
    file.truncate(w.thread.cx(), 4 * PAGE).unwrap();
    let mut tail = [1; 2];
    w.mm.read_bytes(&mut w.thread.cx(), at(1) + 99, &mut tail)
        .unwrap();
    assert_eq!((tail, w.get(2), w.get(12)), ([7, 0], Ok(0), Ok(0)));
}

#[test]
fn a_hole_leaves_private_copies() {
    let mut w = World::new();
    let file = shmem(&mut w, 4);
    w.map_file(0, 4, &file, 0, SHARED);
    w.map_file(10, 4, &file, 0, PRIVATE);
    w.put(11, 9);
    w.get(12).unwrap();
    file.punch_hole(w.thread.cx(), PAGE, 2 * PAGE).unwrap();
    let seen: Vec<_> = [0, 1, 2, 3, 11, 12].map(|n| w.get(n).unwrap()).into();
    assert_eq!(seen, [1, 0, 0, 4, 9, 0]);
}

#[test]
fn a_read_only_file_is_mapped_shared_for_reading_and_private_for_writing() {
    let mut w = World::new();
    let whole = shmem(&mut w, 2);
    let open = |mode| File::open(Arc::clone(whole.object()), mode);
    let (ro, wo) = (open(FileMode::ReadOnly), open(FileMode::WriteOnly));
    let map = |w: &mut World, file: &Arc<File>, kind, prot| {
        let mut args = MmapArgs::anonymous(PAGE)
            .fixed(at(0))
            .file(file, 0)
            .prot(prot);
        args.flags = MapFlags::FIXED | kind;
        w.mm.mmap(&mut w.thread.cx(), &args)
            .map_err(|e| e.errno().to_string())
    };
    let denied = Err("EACCES".to_owned());
    assert_eq!(map(&mut w, &ro, SHARED, RW), denied);
    assert_eq!(map(&mut w, &wo, PRIVATE, Prot::READ), denied);
    assert!(map(&mut w, &ro, PRIVATE, RW).is_ok());
    w.put(0, 5);
    assert!(map(&mut w, &ro, SHARED, Prot::READ).is_ok());
    assert_eq!((w.get(0), w.vmas()[0].2.as_str()), (Ok(1), "r--s"));
    let protect = w.mm.mprotect(&mut w.thread.cx(), at(0), PAGE, RW);
    assert_eq!(protect.unwrap_err().errno().to_string(), "EACCES");
    assert!(ro.write_at(w.thread.cx(), 0, &[1]).is_err());
    assert!(wo.read_at(w.thread.cx(), 0, &mut [0]).is_err());
    assert!(ro.truncate(w.thread.cx(), 0).is_err());
}

#[test]
fn writeback_brings_stores_to_the_store() {
    let mut w = World::new();
    let (object, file) = disk(&mut w, 4);
    w.map_file(0, 4, &file, 0, SHARED);
    w.put(2, 99);
    assert_eq!(object.dirty(), 1);
    w.sync(0, 4, MsyncFlags::SYNC).unwrap();
    assert_eq!(object.dirty(), 0);
    let mut block = [0; 4096];
    object.store().read(2, &mut block).unwrap();
    assert_eq!(block[0], 99);
}

#[test]
fn objects_go_when_nobody_has_them() {
    let mut w = swapping(512, 64);
    let file = shmem(&mut w, 8);
    let (_, on_disk) = disk(&mut w, 8);
    let (_, in_place) = xip(&w, 8);
    for (n, file) in [&file, &on_disk, &in_place].into_iter().enumerate() {
        w.map_file(n as u64 * 10, 8, file, 0, SHARED);
        w.fill(n as u64 * 10, 8);
    }
    w.machine.reclaim_all(&mut w.thread.cx());
    drop((file, on_disk, in_place));
    let machine = w.machine.clone();
    w.end();
    assert_eq!(machine.mem().swap().used(), 0);
}

/// Of memory, of a disk, used in place; mapped twice shared and once private.
#[test]
fn every_mapping_shows_the_object() {
    let suite = Suite::new([]).profile(Profile::Files).cases(256).steps(40);
    if let Err(failure) = suite.regressions(crate::drawn::kept("files")).run() {
        panic!("\n{failure}");
    }
}
