//! A fault maps a huge page after an operation has split the huge pages at the edges of its range,
//! and before it has come to them: as Linux does, the operation splits this one as well.

use crate::common::{World, at, calls::private, numbered::page};
use emmu::{
    FaultError, PAGE_SIZE,
    driver::*,
    mm::{Advice, FillMode, MoveMode, ProtectMode, Pte, RegisterMode, UffdFeatures, Userfault},
};
use std::{
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    thread,
};

const HUGE: u64 = 512;

/// A driver that has another thread read a page during one of its windows.
struct Reader {
    gate: Gate<OrderedStore<u64>, (), Atomic>,
    /// The windows up to that one.
    left: AtomicU64,
    mm: Mutex<Weak<Mm>>,
}

impl SpinningMmu for Reader {
    fn invalidate<'i>(&self, cx: AtomicCallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> {
        if self.left.load(SeqCst) > 0 && self.left.fetch_sub(1, SeqCst) == 1 {
            let mm = self.mm.lock().unwrap().upgrade().unwrap();
            let read = move || mm.machine().with_current(|cx| mm.load(cx, at(HUGE + 7)));
            assert_eq!(thread::spawn(read).join().unwrap(), Ok(Ok(0)));
        }
        self.gate.exclude(cx, inv, |(), _, _| ())
    }
}

struct Scene {
    w: World,
    uffd: Userfault,
    reader: Arc<Reader>,
}

/// Two blocks for huge pages, the second one mapped by a page; behind them registered memory.
fn scene(register: u64, mode: RegisterMode) -> Scene {
    let mut w = World::new();
    w.mmap(&private(HUGE, 2 * HUGE)).unwrap();
    w.mmap(&private(4 * HUGE, HUGE)).unwrap();
    w.advise(HUGE, 2 * HUGE, Advice::HugePage).unwrap();
    w.put(2 * HUGE + 1, 3);
    let uffd = w.userfaultfd(UffdFeatures::empty());
    w.register(&uffd, register, HUGE, mode);
    let (reader, _registration) = w.mm.register(&mut w.thread.cx(), |seat| {
        Arc::new(Reader {
            gate: Gate::new(seat, OrderedStore::default(), ()),
            left: AtomicU64::new(0),
            mm: Mutex::new(Weak::new()),
        })
    });
    *reader.mm.lock().unwrap() = Arc::downgrade(&w.mm);
    Scene { w, uffd, reader }
}

impl Scene {
    /// Has the first block read in the nth window from now on.
    fn read_in_window(&self, nth: u64) {
        self.reader.left.store(nth, SeqCst);
    }
    /// A driver that accepts huge pages finds each page of the first block as the table has it.
    fn check(&mut self, gone: u64) {
        assert_eq!(self.reader.left.load(SeqCst), 0, "it was read");
        let mut cx = self.w.thread.cx();
        let block = VpnRange::try_new(page(HUGE), page(2 * HUGE)).unwrap();
        let ticket = self.reader.gate.range_ticket(block, FaultRequest::Snapshot);
        let pending = self.w.mm.resolve_range(&mut cx, ticket.allow_huge());
        let permit = pending.unwrap().admit(&mut cx).map_err(|e| e.reason());
        let permit = permit.unwrap();
        let slots: Vec<bool> = block
            .iter()
            .map(|at| permit.slot(at).unwrap().translation().is_some())
            .collect();
        drop(permit);
        let walker = self.w.mm.walker(&mut cx);
        for (at, present) in block.iter().zip(slots) {
            let is = matches!(walker.pte(at), Pte::Present { .. });
            assert_eq!(present, is, "{at:?}");
        }
        drop(walker);
        assert_eq!(self.w.mm.pagemap(&mut cx, page(gone).into()), []);
        self.w.mm.exit(&mut cx);
    }
}

/// `zap_pmd_range`: the nested window is that of the page at the other edge.
#[test]
fn an_advice_drops_its_part_of_the_page_and_splits_it() {
    let mut scene = scene(4 * HUGE, RegisterMode::MISSING);
    scene.read_in_window(2);
    scene.w.advise(HUGE + 5, HUGE, Advice::DontNeed).unwrap();
    scene.check(HUGE + 5);
}

/// `move_pages_pte`.
#[test]
fn a_page_that_moves_leaves_small_pages() {
    let mut scene = scene(4 * HUGE, RegisterMode::MISSING);
    scene.read_in_window(1);
    let (from, to) = (at(HUGE + 5), at(4 * HUGE));
    let moved = scene.uffd.move_pages(
        &mut scene.w.thread.cx(),
        to,
        (from, PAGE_SIZE),
        MoveMode::ALLOW_SRC_HOLES,
    );
    assert_eq!(moved, Ok(PAGE_SIZE));
    let exists = scene
        .uffd
        .zeropage(&mut scene.w.thread.cx(), to, PAGE_SIZE, FillMode::empty());
    assert!(exists.is_err(), "a page has arrived");
    scene.check(HUGE + 5);
}

/// `change_pmd_range`: pages with the mark and pages without it are small ones.
#[test]
fn write_protection_of_a_part_is_not_lost_with_a_store_beside_it() {
    let mut scene = scene(HUGE, RegisterMode::WP);
    let mut cx = scene.w.thread.cx();
    scene
        .uffd
        .register(&mut cx, at(2 * HUGE), HUGE * PAGE_SIZE, RegisterMode::WP)
        .unwrap();
    scene.reader.left.store(2, SeqCst);
    let part = (at(HUGE + 5), HUGE * PAGE_SIZE);
    let protect = scene
        .uffd
        .write_protect(&mut cx, part.0, part.1, ProtectMode::WP);
    assert_eq!(protect, Ok(()));
    assert_eq!(scene.reader.left.load(SeqCst), 0, "it was read");
    scene.w.put(HUGE + 4, 1);
    let refused = scene.w.mm.store(&mut scene.w.thread.cx(), at(HUGE + 8), 1);
    assert_eq!(refused, Err(FaultError::Userfault(at(HUGE + 8))));
}
