//! Huge pages of shared memory where threads meet: a thread faults while a page is made, or split.
//! The thread acts inside the windows of that, so the order is the same each time.

use crate::common::{PAGE, World, at, objects::shmem};
use emmu::{
    Errno, Machine, Mm,
    addr::VpnRange,
    ctx::{Atomic, CallCx, CallbackCx},
    file::File,
    mm::{Advice, MapFlags, MmapArgs},
    notifier::{Ack, ExternalMmu, Gate, Invalidation, OrderedStore, Registration, Seat},
};
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread::{JoinHandle, sleep, spawn},
    time::{Duration, Instant},
};

const HUGE: u64 = 512;
type Act = Box<dyn FnOnce() + Send>;

/// A device that runs an action, once, when a window over certain pages opens.
struct Meddler {
    gate: Gate<OrderedStore<u64>, (), Atomic>,
    due: Mutex<Option<(VpnRange, Act)>>,
}

impl ExternalMmu for Meddler {
    fn invalidate_start<'i>(&self, cx: CallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> {
        let mut due = self.due.lock().unwrap();
        let now = due.as_ref().is_some_and(|(range, _)| *range == inv.range());
        let act = now.then(|| due.take()).flatten();
        drop(due);
        if let Some((_, act)) = act {
            act();
        }
        self.gate.exclude(cx, inv, |(), _, _| ())
    }
}

/// Two processes with the same 1024 pages of a file; byte 0 of page `p` is `p % 255 + 1`. Only the
/// first one has a device.
struct Story {
    w: World,
    file: Arc<File>,
    other: Arc<Mm>,
    meddler: Arc<Meddler>,
    _registration: Registration,
}

fn story() -> Story {
    let mut w = World::on(crate::common::machine(8192));
    let file = shmem(&mut w, 1024);
    w.map_file(0, 1024, &file, 0, MapFlags::SHARED);
    let other = Mm::new(&w.machine);
    let args = MmapArgs::anonymous(1024 * PAGE).fixed(at(0)).file(&file, 0);
    let shared = MmapArgs {
        flags: MapFlags::FIXED | MapFlags::SHARED,
        ..args
    };
    other.mmap(&mut w.thread.cx(), &shared).unwrap();
    let (meddler, registration) = w.mm.register(&mut w.thread.cx(), |seat: Seat| {
        Arc::new(Meddler {
            gate: Gate::new(seat, OrderedStore::default(), ()),
            due: Mutex::default(),
        })
    });
    Story {
        w,
        file,
        other,
        meddler,
        _registration: registration,
    }
}

/// Work on another thread.
struct Elsewhere<T> {
    thread: JoinHandle<T>,
    done: Arc<AtomicBool>,
}

impl<T: Send + 'static> Elsewhere<T> {
    fn does(
        machine: &Arc<Machine>,
        mm: &Arc<Mm>,
        f: impl FnOnce(&Mm, &mut CallCx<'_>) -> T + Send + 'static,
    ) -> Self {
        let (machine, mm) = (Arc::clone(machine), Arc::clone(mm));
        let done = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&done);
        let thread = spawn(move || {
            let mut thread = machine.enter().unwrap();
            let out = f(&mm, &mut thread.cx());
            told.store(true, SeqCst);
            out
        });
        Self { thread, done }
    }
    /// Returns true if the work ends within some time.
    fn ends_soon(&self) -> bool {
        let until = Instant::now() + Duration::from_millis(200);
        while !self.done.load(SeqCst) && Instant::now() < until {
            sleep(Duration::from_millis(5));
        }
        self.done.load(SeqCst)
    }
}

/// Runs `f` in the second process while a window over pages `[from, to)` of the first one is open;
/// returns true if it ended in the window, and its result.
fn in_window<T: Send + 'static>(
    s: &mut Story,
    (from, to): (u64, u64),
    f: impl FnOnce(&Mm, &mut CallCx<'_>) -> T + Send + 'static,
    work: impl FnOnce(&mut Story),
) -> (bool, T) {
    let (tell, told) = std::sync::mpsc::channel();
    let (machine, other) = (Arc::clone(&s.w.machine), Arc::clone(&s.other));
    let act = move || {
        let elsewhere = Elsewhere::does(&machine, &other, f);
        tell.send((elsewhere.ends_soon(), elsewhere)).unwrap();
    };
    *s.meddler.due.lock().unwrap() = Some((World::pages(from, to), Box::new(act)));
    work(s);
    let (soon, elsewhere) = told.try_recv().expect("the window opened");
    (soon, elsewhere.thread.join().unwrap())
}

fn collapsed(s: &mut Story) -> Result<(), Errno> {
    let cx = &mut s.w.thread.cx();
    let done = s.w.mm.madvise(cx, at(0), HUGE * PAGE, Advice::Collapse);
    done.map_err(|why| why.errno())
}
fn collapse(s: &mut Story) {
    assert_eq!(collapsed(s), Ok(()));
}
fn load(page: u64) -> impl FnOnce(&Mm, &mut CallCx<'_>) -> u8 + Send + 'static {
    move |mm, cx| mm.load(cx, at(page)).unwrap()
}
fn store(page: u64, byte: u8) -> impl FnOnce(&Mm, &mut CallCx<'_>) + Send + 'static {
    move |mm, cx| mm.store(cx, at(page), byte).unwrap()
}
fn end(s: Story) {
    let Story {
        mut w, file, other, ..
    } = s;
    w.check_rmap();
    let lost = other.unreachable_pages(&mut w.thread.cx());
    assert!(lost.is_empty(), "not found by reverse maps: {lost:?}");
    other.exit(&mut w.thread.cx());
    drop(file);
    w.end();
}

/// A fault waits for a page that becomes part of a huge one. The waiting thread has a reference on
/// it, so the page stays, and no store to it is lost.
#[test]
fn a_page_that_somebody_waits_for_is_not_collapsed() {
    let mut s = story();
    s.w.put(3, 100);
    let (soon, ()) = in_window(&mut s, (3, 4), store(3, 101), |s| {
        assert_eq!(collapsed(s), Err(Errno::EAGAIN));
    });
    assert!(!soon, "it was had in the window");
    assert_eq!(s.w.get(3), Ok(101));
    collapse(&mut s);
    assert_eq!(s.w.get(3), Ok(101));
    end(s);
}

/// The twin: a fault on any other page ends at once, so the test above sees a thread that waits.
#[test]
fn a_page_of_another_block_is_had_at_once() {
    let mut s = story();
    s.w.put(3, 100);
    let (soon, got) = in_window(&mut s, (3, 4), load(600), collapse);
    assert!(soon);
    assert_eq!(s.w.get(600), Ok(got));
    end(s);
}

/// A store to a page that is taken later is copied with the page.
#[test]
fn a_store_to_a_page_that_comes_later_is_copied() {
    let mut s = story();
    s.w.put(3, 100);
    let (soon, ()) = in_window(&mut s, (3, 4), store(300, 77), collapse);
    assert!(soon);
    assert_eq!((s.w.get(300), s.w.get(3)), (Ok(77), Ok(100)));
    end(s);
}

/// While tables are retracted, the huge page exists already: a fault gets a page of it.
#[test]
fn a_fault_while_tables_are_retracted_maps_what_is_there_now() {
    let mut s = story();
    s.w.put(3, 100);
    let (_, got) = in_window(&mut s, (0, 512), load(3), collapse);
    assert_eq!(got, 100);
    s.w.put(3, 102);
    let cx = &mut s.w.thread.cx();
    assert_eq!(s.other.load(cx, at(3)), Ok(102));
    end(s);
}

/// While a huge page is being split no fault maps it as one: the part that is cut out would stay
/// mapped.
#[test]
fn a_huge_page_being_split_is_not_mapped_as_one() {
    for (hole, page) in [((4, 1), 4), ((0, 1), 0), ((511, 1), 511)] {
        let mut s = story();
        collapse(&mut s);
        // The page is split after the hole's own windows. The mapping of the first process is gone
        // by then, but the window is opened.
        let cx = &mut s.w.thread.cx();
        s.w.mm
            .madvise(cx, at(0), 512 * PAGE, Advice::DontNeed)
            .unwrap();
        let (_, got) = in_window(&mut s, (0, 512), load(page), |s| {
            let (from, n) = (hole.0 * PAGE, hole.1 * PAGE);
            s.file.punch_hole(s.w.thread.cx(), from, n).unwrap();
        });
        let old = u8::try_from(page % 255 + 1).unwrap();
        assert!(got == 0 || got == old, "page {page}: {got}");
        let cx = &mut s.w.thread.cx();
        assert_eq!(s.other.load(cx, at(page)), Ok(0), "page {page}");
        assert_eq!(s.w.get(page), Ok(0));
        s.w.put(page, 9);
        let cx = &mut s.w.thread.cx();
        assert_eq!(s.other.load(cx, at(page)), Ok(9));
        end(s);
    }
}
