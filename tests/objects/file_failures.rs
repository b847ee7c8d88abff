//! Whatever an operation on a file asks for is made to fail in turn: each allocation, each block
//! that is read or written. What fails has changed neither size nor contents, and succeeds when it
//! is done again.

use crate::{
    common::{PAGE, World, at, objects::swapping},
    stores::{Puppet, Strings},
};
use emmu::{
    Errno, FaultError,
    error::ObjectError,
    file::{DiskFile, FallocateMode, File, FileMode, MemoryObject, Shmem, XipFile},
    mm::{MapFlags, MsyncFlags},
    testkit::{Failed, fail_each},
};
use std::sync::Arc;

const PAGES: u64 = 8;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    /// Nothing in memory.
    Cold,
    /// All of it in memory, the even pages dirty.
    Warm,
    /// Of memory, all of it in swap.
    Memory,
    InPlace,
}

/// A file of 8 pages less 1000 bytes, page `p` full of `p + 1`, mapped shared on pages 0 to 16.
struct Setting {
    w: World,
    file: Arc<File>,
    strings: Arc<Strings>,
}

fn setting(kind: Kind) -> Setting {
    let mut w = swapping(256, 64);
    let strings = Arc::new(Strings::default());
    let host = w.machine.host();
    let object: Arc<dyn MemoryObject> = match kind {
        Kind::Memory => Shmem::memfd(host, "m", 0).unwrap(),
        Kind::InPlace => XipFile::new(host, "/x", 0).unwrap(),
        _ => DiskFile::new(host, "/d", 0, Box::new(Puppet(Arc::clone(&strings)))).unwrap(),
    };
    let file = File::open(object, FileMode::ReadWrite);
    for page in 0..PAGES {
        let len = if page + 1 == PAGES { 3096 } else { 4096 };
        let bytes = vec![u8::try_from(page + 1).unwrap(); len];
        let n = file.write_at(w.thread.cx(), page * PAGE, &bytes).unwrap();
        assert_eq!(n, len);
    }
    file.sync(w.thread.cx()).unwrap();
    w.machine.reclaim_all(&mut w.thread.cx());
    w.map_file(0, 2 * PAGES, &file, 0, MapFlags::SHARED);
    if kind == Kind::Warm {
        for page in 0..PAGES {
            w.get(page).unwrap();
        }
        for page in (0..PAGES).step_by(2) {
            w.put(page, 100);
        }
    }
    Setting { w, file, strings }
}

/// Size and bytes, as the file gives them out.
fn contents(s: &mut Setting) -> (u64, Vec<u8>) {
    let size = s.file.object().size();
    let mut bytes = vec![0; usize::try_from(size).unwrap()];
    let n = s.file.read_at(s.w.thread.cx(), 0, &mut bytes).unwrap();
    assert_eq!(n as u64, size);
    (size, bytes)
}

/// `fallocate`; what the kind of file cannot do is done.
fn modes(s: &mut Setting, mode: u32, from: u64, len: u64) -> Result<(), Errno> {
    let mode = FallocateMode::from_bits_retain(mode);
    match s.file.fallocate(s.w.thread.cx(), mode, from, len) {
        Err(ObjectError::Unsupported) => Ok(()),
        done => object(done),
    }
}

type Work = fn(&mut Setting) -> Result<(), Errno>;

fn object(done: Result<(), ObjectError>) -> Result<(), Errno> {
    done.map_err(ObjectError::errno)
}
fn fault(done: Result<(), FaultError>) -> Result<(), Errno> {
    done.map_err(|why| why.errno())
}

/// Every operation, with odd numbers.
const WORKS: &[(&str, Work)] = &[
    ("cut", |s| {
        object(s.file.truncate(s.w.thread.cx(), 5 * PAGE + 100))
    }),
    ("cut in the last page", |s| {
        object(s.file.truncate(s.w.thread.cx(), 7 * PAGE + 1))
    }),
    ("cut to nothing", |s| {
        object(s.file.truncate(s.w.thread.cx(), 0))
    }),
    ("to the same size", |s| {
        object(s.file.truncate(s.w.thread.cx(), 8 * PAGE - 1000))
    }),
    ("grow", |s| {
        object(s.file.truncate(s.w.thread.cx(), 11 * PAGE + 5))
    }),
    ("punch", |s| {
        object(s.file.punch_hole(s.w.thread.cx(), PAGE + 7, 4 * PAGE))
    }),
    ("punch in a page", |s| {
        object(s.file.punch_hole(s.w.thread.cx(), 3 * PAGE + 7, 90))
    }),
    ("zero", |s| modes(s, 17, PAGE + 7, 4 * PAGE)),
    ("zero and grow", |s| modes(s, 16, 5 * PAGE + 7, 4 * PAGE)),
    ("allocate", |s| modes(s, 0, 7 * PAGE, 4 * PAGE + 1)),
    ("take out", |s| modes(s, 8, 2 * PAGE, 3 * PAGE)),
    ("put in", |s| modes(s, 32, 2 * PAGE, 3 * PAGE)),
    ("write", |s| {
        object(
            s.file
                .write_at(s.w.thread.cx(), PAGE + 9, &[9; 77])
                .map(|_| ()),
        )
    }),
    ("write beyond", |s| {
        object(
            s.file
                .write_at(s.w.thread.cx(), 10 * PAGE + 9, &[9; 77])
                .map(|_| ()),
        )
    }),
    ("read", |s| {
        object(
            s.file
                .read_at(s.w.thread.cx(), 3 * PAGE, &mut [0; 9])
                .map(|_| ()),
        )
    }),
    ("load", |s| {
        fault(s.w.mm.load(&mut s.w.thread.cx(), at(6)).map(|_| ()))
    }),
    ("store", |s| {
        fault(s.w.mm.store(&mut s.w.thread.cx(), at(5) + 4, 6))
    }),
    ("sync", |s| object(s.file.sync(s.w.thread.cx()))),
    ("msync", |s| {
        let done =
            s.w.mm
                .msync(&mut s.w.thread.cx(), at(0), 5 * PAGE, MsyncFlags::SYNC);
        done.map_err(|why| why.errno())
    }),
    ("reclaim", |s| {
        s.w.machine.reclaim_all(&mut s.w.thread.cx());
        Ok(())
    }),
];

/// What the work comes to when nothing fails.
fn unharmed(kind: Kind, work: Work) -> (u64, Vec<u8>) {
    let mut s = setting(kind);
    work(&mut s).expect("nothing fails");
    contents(&mut s)
}

#[test]
fn an_allocation_that_fails_leaves_a_file_as_it_was() {
    for kind in [Kind::Cold, Kind::Warm, Kind::Memory, Kind::InPlace] {
        for &(name, work) in WORKS {
            let wanted = unharmed(kind, work);
            let before = contents(&mut setting(kind));
            fail_each(
                || setting(kind),
                |s| Arc::clone(&s.w.machine),
                |s| {
                    let done = work(s);
                    s.w.machine.mem().inject().disarm();
                    if done.is_err() {
                        assert_eq!(contents(s), before, "{kind:?}, {name}: half done");
                    }
                    done
                },
                |mut s, came| {
                    if let Failed::Reported(errno) = came {
                        assert_eq!(errno, Errno::ENOMEM, "{kind:?}, {name}");
                    }
                    assert_eq!(contents(&mut s), wanted, "{kind:?}, {name}");
                    s.w.check_rmap();
                    drop(s.file);
                    s.w.end();
                },
            );
        }
    }
}

#[test]
fn a_block_that_fails_leaves_a_file_as_it_was() {
    for kind in [Kind::Cold, Kind::Warm] {
        for &(name, work) in WORKS {
            let wanted = unharmed(kind, work);
            let before = contents(&mut setting(kind));
            for block in 0..12 {
                let mut s = setting(kind);
                s.strings.unreadable.lock().unwrap().insert(block);
                s.strings.unwritable.lock().unwrap().insert(block);
                let done = work(&mut s);
                s.strings.unreadable.lock().unwrap().clear();
                s.strings.unwritable.lock().unwrap().clear();
                let here = format!("{kind:?}, {name}, block {block}");
                if let Err(errno) = done {
                    // An access has a signal; a call that it was made by has EFAULT.
                    let known = matches!(errno, Errno::EIO | Errno::EFAULT);
                    assert!(known, "{here}: {errno}");
                    assert_eq!(contents(&mut s), before, "{here}: half done");
                    work(&mut s).unwrap_or_else(|why| panic!("{here}: again {why}"));
                }
                assert_eq!(contents(&mut s), wanted, "{here}");
                s.file.sync(s.w.thread.cx()).unwrap();
                s.w.machine.reclaim_all(&mut s.w.thread.cx());
                s.w.machine.reclaim_all(&mut s.w.thread.cx());
                assert_eq!(contents(&mut s), wanted, "{here}: from its store");
                drop(s.file);
                s.w.end();
            }
        }
    }
}

/// `pwrite` and `pread` of several pages, one of which cannot be read: what came before it is done,
/// and counts.
#[test]
fn a_write_that_fails_on_its_way_is_short() {
    let mut s = setting(Kind::Cold);
    s.strings.unreadable.lock().unwrap().insert(3);
    let n = s.file.write_at(s.w.thread.cx(), 2 * PAGE + 96, &[50; 8192]);
    assert_eq!(n, Ok(4000));
    let mut bytes = vec![0; 8192];
    let n = s.file.read_at(s.w.thread.cx(), 2 * PAGE + 96, &mut bytes);
    assert_eq!((n, bytes[3999]), (Ok(4000), 50));
    let none = s.file.read_at(s.w.thread.cx(), 3 * PAGE, &mut bytes);
    assert_eq!(none, Err(ObjectError::Io(3)));
    s.strings.unreadable.lock().unwrap().clear();
    assert_eq!(s.w.get(3), Ok(4));
}

/// The case that was found: the size was cut, and the pages beyond it stayed.
#[test]
fn a_cut_that_cannot_read_the_last_page_cuts_nothing() {
    let mut s = setting(Kind::Cold);
    s.strings.unreadable.lock().unwrap().insert(5);
    let cut = s.file.truncate(s.w.thread.cx(), 5 * PAGE + 100);
    assert_eq!(cut, Err(ObjectError::Io(5)));
    assert_eq!(s.file.object().size(), 8 * PAGE - 1000);
    assert_eq!((s.w.get(6), s.w.get(7)), (Ok(7), Ok(8)));
    s.strings.unreadable.lock().unwrap().clear();
    s.file.truncate(s.w.thread.cx(), 5 * PAGE + 100).unwrap();
    assert_eq!(s.w.get(6), Err(FaultError::Beyond(at(6))));
}
