//! Files in several threads, ordered by their stores: what is cut off is read back by nobody, and
//! nobody waits who need not.

use crate::{
    common::{
        PAGE, World, at,
        moving::Comes,
        objects::{shmem, swapping},
    },
    stores::{Puppet, Strings, a_while},
};
use emmu::{
    FaultError, Machine, Mm,
    ctx::{CallbackCx, Sleepable},
    error::ObjectError,
    file::{DiskFile, File, FileMode, MemoryObject},
    mm::{Advice, MapFlags, MmapArgs},
    notifier::{Ack, ExternalMmu, Gate, Invalidation, OrderedStore},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

const PAGES: u64 = 8;

struct Story {
    w: World,
    strings: Arc<Strings>,
    object: Arc<DiskFile>,
    file: Arc<File>,
}

/// A file of 8 pages on a disk, each 7, of which nothing is in memory; mapped shared on pages 0 to
/// 8.
fn story() -> Story {
    let mut w = swapping(4096, 64);
    let strings = Arc::new(Strings::default());
    let store = Box::new(Puppet(Arc::clone(&strings)));
    let object = DiskFile::new(w.machine.host(), "/d", PAGES * PAGE, store).unwrap();
    let file = File::open(object.clone(), FileMode::ReadWrite);
    for page in 0..PAGES {
        file.write_at(w.thread.cx(), page * PAGE, &[7; 4096])
            .unwrap();
    }
    file.sync(w.thread.cx()).unwrap();
    w.machine.reclaim_all(&mut w.thread.cx());
    w.map_file(0, PAGES, &file, 0, MapFlags::SHARED);
    // Every page for itself.
    w.mm.madvise(&mut w.thread.cx(), at(0), PAGES * PAGE, Advice::Random)
        .unwrap();
    Story {
        w,
        strings,
        object,
        file,
    }
}

/// Another thread reads a byte.
fn elsewhere(
    machine: &Arc<Machine>,
    mm: &Arc<Mm>,
    page: u64,
) -> thread::JoinHandle<Result<u8, FaultError>> {
    let (machine, mm) = (Arc::clone(machine), Arc::clone(mm));
    thread::spawn(move || {
        let mut thread = machine.enter().unwrap();
        mm.load(&mut thread.cx(), at(page))
    })
}

/// While the blocks of what is cut off are about to go, another thread reads a page of it.
fn read_between(s: &mut Story, page: u64, cut: impl FnOnce(&mut Story)) {
    let came = Arc::new(AtomicBool::new(false));
    let (machine, mm) = (Arc::clone(&s.w.machine), Arc::clone(&s.w.mm));
    let (reader, seen) = std::sync::mpsc::channel();
    let hook = move || {
        let reading = elsewhere(&machine, &mm, page);
        let came = Arc::clone(&came);
        let waits = thread::spawn({
            let came = Arc::clone(&came);
            move || {
                let got = reading.join().unwrap();
                came.store(true, SeqCst);
                got
            }
        });
        a_while(&|| came.load(SeqCst));
        reader.send(waits).unwrap();
    };
    *s.strings.on_discard.lock().unwrap() = Some(Box::new(hook));
    cut(s);
    let got = seen.recv().unwrap().join().unwrap();
    assert!(matches!(got, Ok(0) | Err(FaultError::Beyond(_))), "{got:?}");
}

#[test]
fn a_hole_is_not_read_back_before_its_blocks_are_gone() {
    let mut s = story();
    read_between(&mut s, 3, |s| {
        s.file
            .punch_hole(s.w.thread.cx(), 2 * PAGE, 3 * PAGE)
            .unwrap();
    });
    assert_eq!((s.w.get(3), s.w.get(5)), (Ok(0), Ok(7)));
}

#[test]
fn what_was_cut_off_is_not_read_back_when_the_file_grows_again() {
    let mut s = story();
    read_between(&mut s, 3, |s| {
        s.file.truncate(s.w.thread.cx(), 2 * PAGE).unwrap();
    });
    s.file.truncate(s.w.thread.cx(), PAGES * PAGE).unwrap();
    assert_eq!((s.w.get(1), s.w.get(3)), (Ok(7), Ok(0)));
}

/// Reading around a fault has seen the old size.
#[test]
fn reading_ahead_ends_where_the_file_was_cut_meanwhile() {
    let mut s = story();
    s.w.mm
        .madvise(&mut s.w.thread.cx(), at(0), PAGES * PAGE, Advice::Normal)
        .unwrap();
    *s.strings.guarded.lock().unwrap() = Some(1);
    s.strings.door.shut();
    let reading = elsewhere(&s.w.machine, &s.w.mm, 0);
    s.strings.door.wait();
    let (machine, file) = (Arc::clone(&s.w.machine), Arc::clone(&s.file));
    let cutting = thread::spawn(move || {
        let mut thread = machine.enter().unwrap();
        file.truncate(thread.cx(), 2 * PAGE)
    });
    s.strings.door.open();
    assert_eq!(reading.join().unwrap(), Ok(7));
    assert_eq!(cutting.join().unwrap(), Ok(()));
    s.file.truncate(s.w.thread.cx(), PAGES * PAGE).unwrap();
    for page in 2..PAGES {
        assert_eq!(s.w.get(page), Ok(0), "page {page}");
    }
}

#[test]
fn aslow_store_holds_up_those_alone_who_want_its_page() {
    let mut s = story();
    assert_eq!(s.w.get(1), Ok(7));
    *s.strings.guarded.lock().unwrap() = Some(5);
    s.strings.door.shut();
    let reading = elsewhere(&s.w.machine, &s.w.mm, 5);
    s.strings.door.wait();
    assert_eq!(s.object.dirty(), 0);
    assert_eq!((s.w.get(1), s.w.get(2)), (Ok(7), Ok(7)));
    s.w.put(2, 9);
    s.file.sync(s.w.thread.cx()).unwrap();
    let mut byte = [0];
    s.file
        .read_at(s.w.thread.cx(), 6 * PAGE, &mut byte)
        .unwrap();
    assert_eq!((byte, s.object.dirty()), ([7], 0));
    assert!(s.object.resident(5).is_none(), "it is being read");
    s.strings.door.open();
    assert_eq!(reading.join().unwrap(), Ok(7));
}

/// A write that makes the file longer stands between two of its pages.
#[test]
fn what_is_written_beyond_the_end_is_kept_by_a_writeback_beside_it() {
    let mut s = story();
    let (machine, file) = (Arc::clone(&s.w.machine), Arc::clone(&s.file));
    *s.strings.guarded.lock().unwrap() = Some(PAGES + 2);
    s.strings.door.shut();
    let writing = thread::spawn(move || {
        let mut thread = machine.enter().unwrap();
        file.write_at(thread.cx(), PAGES * PAGE + 1, &[9; 4 * 4096])
    });
    s.strings.door.wait();
    s.file.sync(s.w.thread.cx()).unwrap();
    s.strings.door.open();
    assert_eq!(writing.join().unwrap(), Ok(4 * 4096));
    s.file.sync(s.w.thread.cx()).unwrap();
    let mut seen = vec![0; 4 * 4096];
    let read = s.file.read_at(s.w.thread.cx(), PAGES * PAGE + 1, &mut seen);
    assert_eq!(read, Ok(seen.len()));
    assert!(seen.iter().all(|byte| *byte == 9));
}

/// Sleeps in its callback once, while a page is written back.
struct Slow {
    gate: Gate<OrderedStore<u64>, (), Sleepable>,
    armed: AtomicBool,
    inside: AtomicBool,
}

impl ExternalMmu for Slow {
    fn invalidate_start<'i>(&self, cx: CallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> {
        if self.armed.swap(false, SeqCst) {
            self.inside.store(true, SeqCst);
            // The other thread stores meanwhile, or waits for the lock of the page.
            thread::sleep(Duration::from_millis(100));
        }
        self.gate.exclude_entries(cx, inv)
    }
}

/// `present`: the process that stores has the page for reading.
fn stored_during_writeback(present: bool) {
    let mut s = story();
    let (slow, registration) = s.w.mm.register(&mut s.w.thread.cx(), |seat| {
        Arc::new(Slow {
            gate: Gate::new(seat, OrderedStore::default(), ()),
            armed: AtomicBool::new(false),
            inside: AtomicBool::new(false),
        })
    });
    s.w.put(3, 1);
    let cx = &mut s.w.thread.cx();
    let two = Mm::new(&s.w.machine);
    let args = MmapArgs::anonymous(PAGE).file(&s.file, 3 * PAGE).shared();
    two.mmap(cx, &args.fixed(at(3))).unwrap();
    if present {
        two.load(cx, at(3)).unwrap();
    }
    slow.armed.store(true, SeqCst);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut thread = s.w.machine.enter().unwrap();
            s.file.sync(thread.cx()).unwrap();
        });
        while !slow.inside.load(SeqCst) {
            thread::yield_now();
        }
        two.store(cx, at(3) + 8, 77).unwrap();
    });
    assert_eq!(s.object.dirty(), 1, "present: {present}");
    s.file.sync(cx.reborrow()).unwrap();
    let mut block = [0; 4096];
    s.object.store().read(3, &mut block).unwrap();
    assert_eq!((block[0], block[8]), (1, 77), "present: {present}");
    two.exit(cx);
    registration.unregister(cx);
}

#[test]
fn what_is_stored_while_the_page_is_written_back_is_dirty_afterwards() {
    stored_during_writeback(true);
    stored_during_writeback(false);
}

#[test]
fn who_waits_for_a_page_that_cannot_be_read_tries_for_himself() {
    let s = story();
    *s.strings.guarded.lock().unwrap() = Some(5);
    s.strings.unreadable.lock().unwrap().insert(5);
    s.strings.door.shut();
    let readers = [(); 2].map(|()| elsewhere(&s.w.machine, &s.w.mm, 5));
    s.strings.door.wait();
    s.strings.door.open();
    for reader in readers {
        let got = reader.join().unwrap();
        let why = ObjectError::Io(5);
        assert_eq!(got, Err(FaultError::Object { addr: at(5), why }));
    }
    s.strings.unreadable.lock().unwrap().clear();
    assert_eq!(elsewhere(&s.w.machine, &s.w.mm, 5).join().unwrap(), Ok(7));
}

#[test]
fn a_store_may_ask_its_own_file() {
    let mut s = story();
    s.strings.own.set(Arc::downgrade(&s.object)).unwrap();
    assert_eq!(s.w.get(3), Ok(7));
    s.file.punch_hole(s.w.thread.cx(), 100, 2 * PAGE).unwrap();
    s.file.truncate(s.w.thread.cx(), 5 * PAGE + 1).unwrap();
    assert_eq!((s.w.get(0), s.w.get(1)), (Ok(7), Ok(0)));
}

/// A write to shared memory holds the lock of the page (`shmem_write_begin`), as a move of the page
/// does: no byte comes between the copy of the page and its replacement.
#[test]
fn a_write_waits_for_a_page_that_moves() {
    let mut w = swapping(64, 0);
    let file = shmem(&mut w, 1);
    w.map_file(0, 1, &file, 0, MapFlags::SHARED);
    assert!(w.get(0).is_ok());
    // Its reference keeps the page where it is.
    let written = w.waits_for_moving(0, Comes::ToNothingByThat, |_, cx| {
        file.write_at(cx.reborrow(), 0, &[9])
    });
    assert_eq!((written, w.get(0)), (Ok(1), Ok(9)));
    w.mm.exit(&mut w.thread.cx());
}
