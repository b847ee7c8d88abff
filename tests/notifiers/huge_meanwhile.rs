//! A fault maps a huge page after an operation has split the huge pages at the edges of its range,
//! and before it has come to them: as Linux does, the operation splits this one as well.

use crate::common::{World, at, calls::private, machine, numbered::page};
use emmu::{
    FaultError, PAGE_SIZE,
    driver::*,
    file::{File, FileMode, HugePolicy, Shmem},
    mm::{
        Advice, FillMode, MapFlags, MoveMode, ProtectMode, Pte, RegisterMode, UffdFeatures,
        Userfault,
    },
};
use std::{
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    thread,
};

const HUGE: u64 = 512;

/// An access of another thread.
type Access = fn(&Mm, &mut CallCx<'_>);

/// A driver during some windows of which another thread accesses memory.
struct Busy {
    gate: Gate<OrderedStore<u64>, (), Atomic>,
    windows: AtomicU64,
    /// The accesses, each with the number of its window.
    plan: Mutex<Vec<(u64, Access)>>,
    mm: Mutex<Weak<Mm>>,
}

impl SpinningMmu for Busy {
    fn invalidate<'i>(&self, cx: AtomicCallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> {
        let nth = self.windows.fetch_add(1, SeqCst) + 1;
        let due = self.plan.lock().unwrap().pop_if(|(at, _)| *at == nth);
        if let Some((_, access)) = due {
            let mm = self.mm.lock().unwrap().upgrade().unwrap();
            let run = move || mm.machine().with_current(|cx| access(&mm, cx));
            thread::spawn(run).join().unwrap().unwrap();
        }
        self.gate.exclude(cx, inv, |(), _, _| ())
    }
}

impl Busy {
    fn register(w: &mut World) -> Arc<Self> {
        let (busy, _registration) = w.mm.register(&mut w.thread.cx(), |seat| {
            Arc::new(Self {
                gate: Gate::new(seat, OrderedStore::default(), ()),
                windows: AtomicU64::new(0),
                plan: Mutex::default(),
                mm: Mutex::new(Weak::new()),
            })
        });
        *busy.mm.lock().unwrap() = Arc::downgrade(&w.mm);
        busy
    }
    /// Has an access made in the nth window from now on; the last one first.
    fn plan(&self, nth: u64, access: Access) {
        let nth = self.windows.load(SeqCst) + nth;
        self.plan.lock().unwrap().push((nth, access));
    }
    fn was_planned(&self) -> bool {
        !self.plan.lock().unwrap().is_empty()
    }
}

/// Reads a page of the first block.
const READ: Access = |mm, cx| assert_eq!(mm.load(cx, at(HUGE + 7)), Ok(0));

struct Scene {
    w: World,
    uffd: Userfault,
    busy: Arc<Busy>,
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
    let busy = Busy::register(&mut w);
    Scene { w, uffd, busy }
}

impl Scene {
    /// A driver that accepts huge pages finds each page of the first block as the table has it.
    fn check(&mut self, gone: u64) {
        assert!(!self.busy.was_planned(), "it was read");
        let mut cx = self.w.thread.cx();
        let block = VpnRange::try_new(page(HUGE), page(2 * HUGE)).unwrap();
        let ticket = self.busy.gate.range_ticket(block, FaultRequest::Snapshot);
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
    scene.busy.plan(2, READ);
    scene.w.advise(HUGE + 5, HUGE, Advice::DontNeed).unwrap();
    scene.check(HUGE + 5);
}

/// `move_pages_pte`.
#[test]
fn a_page_that_moves_leaves_small_pages() {
    let mut scene = scene(4 * HUGE, RegisterMode::MISSING);
    scene.busy.plan(1, READ);
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
    scene.busy.plan(2, READ);
    let part = (at(HUGE + 5), HUGE * PAGE_SIZE);
    let protect = scene
        .uffd
        .write_protect(&mut cx, part.0, part.1, ProtectMode::WP);
    assert_eq!(protect, Ok(()));
    assert!(!scene.busy.was_planned(), "it was read");
    scene.w.put(HUGE + 4, 1);
    let refused = scene.w.mm.store(&mut scene.w.thread.cx(), at(HUGE + 8), 1);
    assert_eq!(refused, Err(FaultError::Userfault(at(HUGE + 8))));
}

/// A page that a late fault has mapped is unmapped before it leaves its object; private copies of
/// the pages beside it stay, as in any hole.
#[test]
fn a_copy_that_splits_a_page_which_leaves_its_object_is_not_lost() {
    let mut w = World::new();
    let object = Shmem::tmpfs(
        w.machine.host(),
        "/f",
        2 * HUGE * PAGE_SIZE,
        HugePolicy::Always,
    );
    let file = File::open(object.unwrap(), FileMode::ReadWrite);
    for (n, place) in [(0, HUGE), (HUGE, 4 * HUGE)] {
        file.write_at(w.thread.cx(), n * PAGE_SIZE, &[9]).unwrap();
        let private = private(place, HUGE).file(&file, n * PAGE_SIZE);
        w.mmap(&private.flags(MapFlags::FIXED | MapFlags::PRIVATE))
            .unwrap();
        assert_eq!(w.get(place), Ok(9));
    }
    let busy = Busy::register(&mut w);
    // The mappings are unmapped, in order, and then what a fault has brought back.
    busy.plan(3, |mm, cx| mm.store(cx, at(HUGE + 5), 77).unwrap());
    busy.plan(2, READ);
    file.punch_hole(w.thread.cx(), 0, 2 * HUGE * PAGE_SIZE)
        .unwrap();
    assert!(!busy.was_planned());
    assert_eq!((w.get(HUGE), w.get(HUGE + 5)), (Ok(0), Ok(77)));
    w.mm.exit(&mut w.thread.cx());
}

/// A huge page that is split for good stays that page until its split is complete, although its
/// drivers give another thread time to move it: its frames are not those of other huge pages then.
#[test]
fn a_page_that_is_split_is_not_another_one_meanwhile() {
    let mut w = World::on(machine(2048));
    w.mmap(&private(HUGE, HUGE)).unwrap();
    w.mmap(&private(4 * HUGE, 2 * HUGE)).unwrap();
    w.advise(HUGE, HUGE, Advice::HugePage).unwrap();
    w.advise(4 * HUGE, 2 * HUGE, Advice::HugePage).unwrap();
    w.put(HUGE, 1);
    let busy = Busy::register(&mut w);
    busy.plan(2, |mm, cx| {
        let _moved = mm.migrate(cx, at(HUGE));
        mm.store(cx, at(4 * HUGE), 2).unwrap();
        mm.store(cx, at(5 * HUGE), 3).unwrap();
    });
    w.advise(HUGE + 5, 10, Advice::Free).unwrap();
    assert!(!busy.was_planned());
    let mut cx = w.thread.cx();
    for (place, byte) in [(HUGE, 1), (4 * HUGE, 2), (5 * HUGE, 3)] {
        let moved = w.mm.migrate(&mut cx, at(place));
        assert!(matches!(moved, Ok(Some(_))), "{place}: {moved:?}");
        assert_eq!(w.mm.load(&mut cx, at(place)), Ok(byte));
    }
    w.mm.exit(&mut cx);
    assert_eq!(w.machine.mem().in_use(), 0);
}
