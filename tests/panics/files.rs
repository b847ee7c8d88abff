//! Operations on files; and objects and stores that panic themselves.

use crate::{
    bomb::Call,
    common::{PAGE, at},
    world::{On, World, blast},
};
use emmu::{
    ctx::{CallCx, FaultCx},
    error::ObjectError,
    file::{
        BLOCK, DiskFile, File, FileMode, MemStore, MemoryObject, PageRequest, Shmem, Store,
        StoreError, XipFile,
    },
    frame::Frame,
    mm::{Advice, MapFlags, Prot},
    reclaim::RmapWindows,
    rmap::Mapping,
};
use std::{
    borrow::Cow,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex},
};

pub fn memfd(w: &World, pages: u64) -> Arc<File> {
    let object = Shmem::memfd(w.machine.host(), "m", pages * PAGE).unwrap();
    File::open(object, FileMode::ReadWrite)
}
fn disk(w: &World, pages: u64, store: Box<dyn Store>) -> Arc<File> {
    let object = DiskFile::new(w.machine.host(), "/d", pages * PAGE, store).unwrap();
    File::open(object, FileMode::ReadWrite)
}
fn xip(w: &World, pages: u64) -> Arc<File> {
    let object = XipFile::new(w.machine.host(), "/x", pages * PAGE).unwrap();
    File::open(object, FileMode::ReadWrite)
}

/// Each kind of file, mapped twice shared and once private with copies of its own.
fn mapped(w: &mut World, file: Arc<File>) {
    for from in [0, 20] {
        w.map_file(from..from + 8, file.clone(), MapFlags::SHARED);
    }
    w.map_file(40..48, file, MapFlags::PRIVATE);
    w.fill(0..8);
    w.fill(44..48);
    w.take(0..8);
    w.take(20..28);
    w.take(40..48);
}
fn on_memfd(w: &mut World) {
    let file = memfd(w, 8);
    mapped(w, file);
}
fn on_disk(w: &mut World) {
    let file = disk(w, 8, Box::<MemStore>::default());
    mapped(w, file);
}
fn on_xip(w: &mut World) {
    let file = xip(w, 8);
    mapped(w, file);
}

fn each(least: u64, work: fn(&mut World), check: fn(&mut World)) {
    for prepare in [on_memfd, on_disk, on_xip] {
        for on in [On::Chain, On::Range] {
            let how = (on, RmapWindows::Sleepable);
            let bangs = blast(how, &Call::ALL, prepare, work, check);
            assert!(bangs >= least, "{on:?}: {bangs}");
        }
    }
}
/// No page beyond the end is mapped.
fn nothing_beyond(w: &mut World) {
    let pages = w.files[0].object().pages();
    for from in [0, 20, 40] {
        w.reads(from + pages..from + 8, &[None]);
        w.reads(from..from + pages, &[Some(0), Some(1)]);
    }
}

#[test]
fn truncating() {
    each(
        6,
        |w| {
            let file = w.files[0].clone();
            file.truncate(w.cx(), 2 * PAGE).unwrap();
        },
        |w| {
            nothing_beyond(w);
            w.reads(0..2, &[Some(1)]);
        },
    );
    each(
        6,
        |w| {
            let file = w.files[0].clone();
            file.truncate(w.cx(), 2 * PAGE + 5).unwrap();
        },
        nothing_beyond,
    );
}

#[test]
fn punching() {
    each(
        6,
        |w| {
            let file = w.files[0].clone();
            file.punch_hole(w.cx(), 2 * PAGE, 4 * PAGE).unwrap();
        },
        |w| {
            nothing_beyond(w);
            w.reads(0..2, &[Some(1)]);
            // Its own copies stay.
            w.reads(44..48, &[Some(1)]);
        },
    );
    each(
        6,
        |w| {
            let mm = w.mm.clone();
            mm.madvise(&mut w.cx(), at(2), 4 * PAGE, Advice::Remove)
                .unwrap();
        },
        nothing_beyond,
    );
}

#[test]
fn writing_back() {
    for on in [On::Chain, On::Range] {
        let how = (on, RmapWindows::Sleepable);
        let bangs = blast(
            how,
            &Call::ALL,
            on_disk,
            |w| {
                let file = w.files[0].clone();
                file.sync(w.cx()).unwrap();
            },
            |w| w.reads(0..8, &[Some(1)]),
        );
        assert!(bangs >= 24, "{bangs}");
    }
}

/// The first write to a hole drives the sparse page out of every mapping.
#[test]
fn filling_a_hole() {
    fn prepare(w: &mut World) {
        let file = xip(w, 8);
        for from in [0, 20] {
            w.map_file(from..from + 8, file.clone(), MapFlags::SHARED);
            w.reads(from..from + 8, &[Some(0)]);
        }
    }
    let how = (On::Chain, RmapWindows::Sleepable);
    let bangs = blast(
        how,
        &Call::ALL,
        prepare,
        |w| w.put(3, 7),
        |w| {
            w.reads_alike(3..4, &[Some(0), Some(7)]);
            let same = (w.get(3), w.get(23));
            assert_eq!(same.0, same.1);
        },
    );
    assert!(bangs >= 6, "{bangs}");
}

/// What of an object or a store panics.
type Fuse = Arc<Mutex<Option<&'static str>>>;

fn burn(fuse: &Fuse, method: &'static str) {
    let armed = fuse.lock().unwrap().take_if(|armed| *armed == method);
    assert!(armed.is_none(), "{method} panics");
}

#[derive(Debug)]
struct BadStore(MemStore, Fuse);

impl Store for BadStore {
    fn read(&self, index: u64, block: &mut [u8; BLOCK]) -> Result<bool, StoreError> {
        burn(&self.1, "read");
        self.0.read(index, block)
    }
    fn write(&self, index: u64, block: &[u8; BLOCK]) -> Result<(), StoreError> {
        burn(&self.1, "write");
        self.0.write(index, block)
    }
    fn discard(&self, from: u64, to: u64) {
        burn(&self.1, "discard");
        self.0.discard(from, to);
    }
}

/// A memfd, any method of which can panic.
#[derive(Debug)]
struct BadObject(Arc<Shmem>, Fuse);

impl MemoryObject for BadObject {
    fn name(&self) -> Cow<'_, str> {
        burn(&self.1, "name");
        self.0.name()
    }
    fn mapping(&self) -> &Arc<Mapping> {
        burn(&self.1, "mapping");
        self.0.mapping()
    }
    fn size(&self) -> u64 {
        burn(&self.1, "size");
        self.0.size()
    }
    fn page(
        &self,
        cx: FaultCx<'_>,
        index: u64,
        want: &PageRequest,
    ) -> Result<Frame<'_>, ObjectError> {
        burn(&self.1, "page");
        self.0.page(cx, index, want)
    }
    fn resident(&self, index: u64) -> Option<Frame<'_>> {
        burn(&self.1, "resident");
        self.0.resident(index)
    }
    fn notes_writes(&self) -> bool {
        burn(&self.1, "notes_writes");
        false
    }
    fn is_nameless(&self) -> bool {
        burn(&self.1, "is_nameless");
        false
    }
    fn huge_aligned(&self) -> bool {
        burn(&self.1, "huge_aligned");
        false
    }
    fn truncate(&self, cx: CallCx<'_>, size: u64) -> Result<(), ObjectError> {
        burn(&self.1, "truncate");
        self.0.truncate(cx, size)
    }
    fn punch_hole(&self, cx: CallCx<'_>, from: u64, len: u64) -> Result<(), ObjectError> {
        burn(&self.1, "punch_hole");
        self.0.punch_hole(cx, from, len)
    }
    fn sync(&self, _: CallCx<'_>, _: u64, _: u64) -> Result<(), ObjectError> {
        burn(&self.1, "sync");
        Ok(())
    }
    fn read_at(&self, cx: CallCx<'_>, offset: u64, out: &mut [u8]) -> Result<usize, ObjectError> {
        burn(&self.1, "read_at");
        self.0.read_at(cx, offset, out)
    }
    fn write_at(&self, cx: CallCx<'_>, offset: u64, bytes: &[u8]) -> Result<usize, ObjectError> {
        burn(&self.1, "write_at");
        self.0.write_at(cx, offset, bytes)
    }
}

/// One on what is mapped of a file at page 0, which may end in a panic.
type Step = (&'static str, fn(&mut World, &Arc<File>));

fn on_mm(w: &mut World, f: impl FnOnce(&emmu::Mm, &mut CallCx<'_>)) {
    let mm = w.mm.clone();
    f(&mm, &mut w.cx());
}
/// Steps on pages, and on the file.
fn steps_on_pages() -> [Step; 11] {
    [
        ("load", |w, _| _ = w.get(6)),
        ("store", |w, _| {
            on_mm(w, |mm, cx| _ = mm.store(cx, at(7), 1));
        }),
        ("copy", |w, _| {
            on_mm(w, |mm, cx| _ = mm.store(cx, at(25), 1));
        }),
        ("mincore", |w, _| {
            on_mm(w, |mm, cx| _ = mm.mincore(cx, at(0), 8 * PAGE));
        }),
        ("fork", |w, _| {
            on_mm(w, |mm, cx| mm.fork(cx).unwrap().exit(cx))
        }),
        ("sync", |w, file| _ = file.sync(w.cx())),
        ("pwrite", |w, file| {
            _ = file.write_at(w.cx(), 10, &[1; 10_000]);
        }),
        ("pread", |w, file| {
            _ = file.read_at(w.cx(), 10, &mut [0; 10_000]);
        }),
        ("punch", |w, file| {
            _ = file.punch_hole(w.cx(), 100, 3 * PAGE);
        }),
        ("truncate", |w, file| {
            _ = file.truncate(w.cx(), 5 * PAGE + 100);
        }),
        ("reclaim", |w, _| {
            _ = w.machine.clone().reclaim_all(&mut w.cx());
        }),
    ]
}
/// Steps on mappings.
fn steps_on_mappings() -> [Step; 7] {
    [
        ("map", |w, file| {
            w.map_file(100..104, file.clone(), MapFlags::SHARED);
        }),
        ("map over", |w, file| {
            w.map_file(2..4, file.clone(), MapFlags::PRIVATE);
        }),
        ("maps", |w, _| on_mm(w, |mm, cx| _ = mm.maps(cx))),
        ("mprotect", |w, _| {
            on_mm(w, |mm, cx| {
                _ = mm.mprotect(cx, at(1), 2 * PAGE, Prot::READ);
            });
        }),
        ("split", |w, _| {
            on_mm(w, |mm, cx| {
                _ = mm.madvise(cx, at(1), PAGE, Advice::DontFork);
            });
        }),
        ("mremap", |w, _| {
            let args = emmu::mm::MremapArgs {
                addr: at(0),
                old_len: 8 * PAGE,
                new_len: 12 * PAGE,
                flags: emmu::mm::MremapFlags::MAYMOVE,
                new_addr: 0,
            };
            on_mm(w, |mm, cx| _ = mm.mremap(cx, args));
        }),
        ("munmap", |w, _| {
            on_mm(w, |mm, cx| _ = mm.munmap(cx, at(1), 3 * PAGE));
        }),
    ]
}
fn steps() -> impl Iterator<Item = Step> {
    steps_on_pages().into_iter().chain(steps_on_mappings())
}

/// One method panics once, in whichever step calls it first; all steps are taken before and after.
fn go(method: &'static str, make: fn(&World, &Fuse) -> Arc<File>) -> bool {
    let mut hit = false;
    for (name, step) in steps() {
        let mut w = World::new(On::Chain, RmapWindows::Sleepable);
        let fuse = Fuse::default();
        let file = make(&w, &fuse);
        w.map_file(0..8, file.clone(), MapFlags::SHARED);
        w.map_file(20..28, file.clone(), MapFlags::PRIVATE);
        for from in [0, 20] {
            let mm = w.mm.clone();
            mm.madvise(&mut w.cx(), at(from), 8 * PAGE, Advice::Random)
                .unwrap();
        }
        w.fill(0..3);
        w.fill(20..22);
        w.take(0..3);
        *fuse.lock().unwrap() = Some(method);
        let went = catch_unwind(AssertUnwindSafe(|| step(&mut w, &file))).is_err();
        let unused = fuse.lock().unwrap().take().is_some();
        assert_eq!(
            went, !unused,
            "{method} in {name}: a panic of somebody else"
        );
        hit |= went;
        w.check();
        let pages = file.object().pages();
        for n in pages..8 {
            assert!(
                w.get(n).is_err(),
                "{method} in {name}: page {n} was cut off"
            );
        }
        for (_, step) in steps() {
            step(&mut w, &file);
            w.check();
        }
        drop(file);
        w.end();
    }
    hit
}

#[test]
fn stores_that_panic() {
    for method in ["read", "write", "discard"] {
        let hit = go(method, |w, fuse| {
            disk(w, 8, Box::new(BadStore(MemStore::default(), fuse.clone())))
        });
        assert!(hit, "{method} is called by no step");
    }
}

#[test]
fn objects_that_panic() {
    for method in [
        "name",
        "mapping",
        "size",
        "page",
        "resident",
        "notes_writes",
        "truncate",
        "punch_hole",
        "sync",
        "read_at",
        "write_at",
    ] {
        let hit = go(method, |w, fuse| {
            let object = Shmem::memfd(w.machine.host(), "m", 8 * PAGE).unwrap();
            File::open(
                Arc::new(BadObject(object, fuse.clone())),
                FileMode::ReadWrite,
            )
        });
        assert!(hit, "{method} is called by no step");
    }
}

/// What a store did not take is dirty still.
#[test]
fn a_page_whose_write_panicked_is_written_later() {
    let mut w = World::new(On::Chain, RmapWindows::Sleepable);
    let fuse = Fuse::default();
    let store = Box::new(BadStore(MemStore::default(), fuse.clone()));
    let object = DiskFile::new(w.machine.host(), "/d", PAGE, store).unwrap();
    let file = File::open(object.clone(), FileMode::ReadWrite);
    w.map_file(0..1, file.clone(), MapFlags::SHARED);
    w.put(0, 7);
    *fuse.lock().unwrap() = Some("write");
    catch_unwind(AssertUnwindSafe(|| file.sync(w.cx()))).unwrap_err();
    assert_eq!(object.dirty(), 1);
    file.sync(w.cx()).unwrap();
    let mut block = [0; BLOCK];
    assert_eq!(object.store().read(0, &mut block), Ok(true));
    assert_eq!((block[0], object.dirty()), (7, 0));
    drop((file, object));
    w.end();
}
