//! Loom models of the protocol: two or three threads with one operation each, in every interleaving
//! up to a bound.
//!
//! Each model has a twin in which one thread makes a mistake, and which must fail: it shows that
//! the checker looks. The models run the code of this crate; only the page table is reduced to one
//! word.

use super::{
    Access, Ack, AgeKind, Event, ExternalMmu, FirstPass, Gate, Invalidation, Notifiers, OpenWindow,
    OrderedStore, Registration, Seat, ShadowStore, chain::Chain, driver::demand, reason::Terms,
};
use crate::{
    addr::{Pfn, Vpn, VpnRange},
    ctx::{Atomic, AtomicCallbackCx, CallCx, CallbackCx, Epoch, Thread},
    frame::{Contents, MemConfig, PhysMem},
    sync::{AtomicBool, AtomicU64, AtomicUsize, Despite, Ordering, thread},
};
use std::{
    convert::Infallible,
    sync::{Arc, Weak},
};

mod owner;
mod passing;
mod ranges;
pub(crate) mod run;
mod secondary;
mod spin;
mod vouching;

use owner::owned_window_against_permit;
use passing::{
    coming_and_going_against_call, window_against_two_tickets, window_that_finds_a_gate,
    window_that_passes_a_gate,
};
use ranges::range_against_window;
use secondary::{flush_against_walk, registration_of_a_walker, release_against_walk};
use spin::spin_lock_of_two;
use vouching::registration_of_a_voucher;

pub(crate) const PAGE: Vpn = Vpn(16);
/// A window that is in no bucket of the board.
const WIDE: VpnRange = VpnRange::ALL;
pub(crate) const RANGE: VpnRange = VpnRange::single(PAGE);

/// An address space of one page.
pub(crate) struct World {
    pub(crate) notifiers: Notifiers,
    pub(crate) epoch: Epoch,
    pub(crate) mem: Arc<PhysMem>,
    /// The frame of the page.
    pub(crate) pte: AtomicU64,
}

impl World {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            notifiers: Notifiers::new(),
            epoch: Epoch::new(),
            mem: Arc::new(PhysMem::new(MemConfig {
                frames: 3,
                contents: Contents::None,
                swap: 0,
            })),
            pte: AtomicU64::new(1),
        })
    }
    /// Runs `f` in a thread that has entered the machine.
    pub(crate) fn enter<T>(&self, f: impl FnOnce(CallCx<'_>) -> T) -> T {
        let mut thread = Thread::enter(&self.epoch).expect("once a thread");
        f(thread.cx())
    }
    pub(crate) fn found(&self) -> Pfn {
        Pfn(u32::try_from(self.pte.load(Ordering::Acquire)).expect("small"))
    }
    /// Opens a window in which the page gets another frame.
    pub(crate) fn replace(&self, cx: CallCx<'_>, inside: impl FnOnce()) {
        self.replace_in(cx, RANGE, inside);
    }
    fn replace_in(&self, cx: CallCx<'_>, range: VpnRange, inside: impl FnOnce()) {
        let Ok(window) = OpenWindow::open(&self.notifiers, cx, range, Event::Clear);
        self.pte.store(2, Ordering::Release);
        inside();
        drop(window);
    }
    /// Registers a driver on the whole address space.
    pub(crate) fn register<E: ExternalMmu + 'static>(
        &self,
        build: impl FnOnce(Seat) -> Arc<E>,
    ) -> (Arc<E>, Registration) {
        self.register_on(None, build)
    }
    fn register_on<E: ExternalMmu + 'static>(
        &self,
        range: Option<VpnRange>,
        build: impl FnOnce(Seat) -> Arc<E>,
    ) -> (Arc<E>, Registration) {
        self.enter(|mut cx| {
            self.notifiers
                .prepare(&cx.descend(), Weak::<()>::new(), || ());
            let done = self.notifiers.register(&mut cx, &self.mem, range, build);
            done.expect("new, with a gate")
        })
    }
    fn chain(&self) -> &Chain {
        self.notifiers
            .chain()
            .expect("made by the first one registered")
    }
}

struct Driver {
    gate: Gate<OrderedStore<u8>, (), Atomic>,
    /// Set if windows over blocks without entries do not lock the gate.
    entries_alone: bool,
    gone: AtomicBool,
    releases: AtomicUsize,
}

impl Driver {
    fn new(seat: Seat) -> Arc<Self> {
        Arc::new(Self {
            gate: Gate::new(seat, OrderedStore::default(), ()),
            entries_alone: false,
            gone: AtomicBool::new(false),
            releases: AtomicUsize::new(0),
        })
    }
    fn of_entries(seat: Seat) -> Arc<Self> {
        let mut driver = Self::new(seat);
        Arc::get_mut(&mut driver).expect("new").entries_alone = true;
        driver
    }
    fn holds(&self, cx: &mut CallCx<'_>) -> Option<Pfn> {
        self.gate.lock(cx).store().get(&0).map(|e| e.pfn())
    }
    /// Runs one attempt of a fault: loops must end under a checker.
    fn fault(&self, world: &World, cx: &mut CallCx<'_>, mistake: bool) {
        let early = world.found();
        let ticket = self.gate.ticket(PAGE, Access::Read);
        let pfn = if mistake { early } else { world.found() };
        let generation = world.mem.generation(pfn);
        match ticket.fill(RANGE, pfn, generation, false).admit(cx) {
            Ok(permit) => drop(permit.establish(0)),
            Err(_) => thread::yield_now(),
        }
    }
}

impl ExternalMmu for Driver {
    fn invalidate_start<'i>(&self, cx: CallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> {
        assert!(!self.gone.load(Ordering::Relaxed), "called after it left");
        if self.entries_alone {
            return self.gate.exclude_entries(cx, inv);
        }
        self.gate.exclude(cx, inv, |(), _, _| ())
    }
    fn invalidate_end(&self, _cx: AtomicCallbackCx<'_>, _range: VpnRange) {
        assert!(!self.gone.load(Ordering::Relaxed), "called after it left");
    }
    fn age(&self, _cx: AtomicCallbackCx<'_>, _range: VpnRange, _kind: AgeKind) -> bool {
        assert!(!self.gone.load(Ordering::Relaxed), "called after it left");
        true
    }
    fn release(&self, _cx: CallbackCx<'_>) {
        self.releases.fetch_add(1, Ordering::Relaxed);
    }
}

fn check_coherent(world: &World, driver: &Driver) {
    world.enter(|mut cx| {
        let held = driver.holds(&mut cx);
        assert!(
            held.is_none_or(|pfn| pfn == world.found()),
            "stale entry {held:?}"
        );
    });
}

/// The knowledge of a driver when the race begins.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Known {
    /// The driver has just been put on the chain.
    New,
    /// The driver has drawn a ticket with no window open, and so knows that every open window calls
    /// it.
    Drained,
}

/// The mistake: the page is looked up before the ticket is drawn.
fn window_against_permit(window: VpnRange, range: Option<VpnRange>, known: Known, mistake: bool) {
    let world = World::new();
    let (driver, _stays) = world.register_on(range, Driver::new);
    if known == Known::Drained {
        drop(driver.gate.ticket(PAGE, Access::Read));
    }
    let (w, d) = (Arc::clone(&world), Arc::clone(&driver));
    let other = loom::thread::spawn(move || w.enter(|mut cx| d.fault(&w, &mut cx, mistake)));
    world.enter(|cx| {
        world.replace_in(cx, window, || {
            let seen = driver
                .gate
                .audit(&mut |_| panic!("an entry inside a window"));
            assert!(seen);
        });
    });
    other.join().unwrap();
    check_coherent(&world, &driver);
}

/// The mistake: the window reads the chain before it is on the board.
fn registration_against_window(
    window: VpnRange,
    range: Option<VpnRange>,
    faults: usize,
    mistake: bool,
) {
    let world = World::new();
    world.enter(|mut cx| {
        world
            .notifiers
            .prepare(&cx.descend(), Weak::<()>::new(), || ())
    });
    let w = Arc::clone(&world);
    let other = loom::thread::spawn(move || {
        w.enter(|cx| {
            if mistake {
                window_in_wrong_order(&w, cx);
            } else {
                w.replace_in(cx, window, || ());
            }
        });
    });
    let (driver, _stays) = world.enter(|mut cx| {
        let mem = &world.mem;
        let made = world.notifiers.register(&mut cx, mem, range, Driver::new);
        let made = made.expect("new, with a gate");
        (0..faults).for_each(|_| made.0.fault(&world, &mut cx, false));
        made
    });
    other.join().unwrap();
    check_coherent(&world, &driver);
}

fn window_in_wrong_order(world: &World, mut cx: CallCx<'_>) {
    let callees = world.chain().callees(&mut cx, RANGE, (0, None));
    world.chain().board.begin(RANGE);
    let terms = Terms::new(RANGE, Event::Clear.into());
    for entry in callees.entries() {
        let Ok(None::<Infallible>) = demand(&terms, entry.reg, |inv| {
            let ack = entry.ext.invalidate_start(cx.descend(), inv);
            Ok::<_, Infallible>(FirstPass::Done(ack))
        });
    }
    world.pte.store(2, Ordering::Release);
    world.chain().board.end(RANGE);
}

/// The mistake: the driver is taken off without a wait for the windows that have it.
fn unregistration_against_window(range: Option<VpnRange>, mistake: bool) {
    let world = World::new();
    let (driver, registration) = world.register_on(range, Driver::new);
    let w = Arc::clone(&world);
    let other = loom::thread::spawn(move || w.enter(|cx| w.replace(cx, || ())));
    world.enter(|mut cx| {
        if mistake {
            registration.vanish(&mut cx);
        } else {
            registration.unregister(&mut cx);
        }
    });
    driver.gone.store(true, Ordering::Relaxed);
    let faulted = world.enter(|mut cx| {
        driver.fault(&world, &mut cx, false);
        driver.holds(&mut cx)
    });
    assert_eq!(faulted, None, "a driver that left got an entry");
    other.join().unwrap();
    assert_eq!(driver.releases.load(Ordering::Relaxed), 1);
}

/// The mistake: the driver is taken off without a wait for its visits. The aging thread walks the
/// chain under a pin alone.
fn unregistration_against_aging(range: Option<VpnRange>, mistake: bool) {
    let world = World::new();
    let (driver, registration) = world.register_on(range, Driver::new);
    let w = Arc::clone(&world);
    let other = loom::thread::spawn(move || {
        w.enter(|mut cx| {
            w.notifiers
                .age(&mut cx.non_blocking(), RANGE, AgeKind::Test)
        })
    });
    world.enter(|mut cx| {
        if mistake {
            registration.vanish(&mut cx);
        } else {
            registration.unregister(&mut cx);
        }
    });
    driver.gone.store(true, Ordering::Relaxed);
    other.join().unwrap();
}

/// The mistake: the end of the address space calls `release` without a check that it was called.
fn release_against_unregister(range: Option<VpnRange>, mistake: bool) {
    let world = World::new();
    let (driver, registration) = world.register_on(range, Driver::new);
    let (w, d) = (Arc::clone(&world), Arc::clone(&driver));
    let other = loom::thread::spawn(move || {
        w.enter(|mut cx| {
            if mistake {
                d.release(cx.descend());
            } else {
                let mut despite = Despite::default();
                drop(w.notifiers.release_all(&mut cx.descend(), &mut despite));
                despite.resume();
            }
        });
    });
    world.enter(|mut cx| registration.unregister(&mut cx));
    other.join().unwrap();
    assert_eq!(driver.releases.load(Ordering::Relaxed), 1);
    assert!(world.notifiers.is_empty(&world.epoch));
}

/// The mistake: the walker gives up its reference before it looks.
fn retirement_against_walk(mistake: bool) {
    let world = World::new();
    let first = world.mem.alloc().unwrap().into_raw();
    assert_eq!(first, Pfn(1));
    let w = Arc::clone(&world);
    let other = loom::thread::spawn(move || {
        // The entry goes before the reference that it had.
        w.pte.store(0, Ordering::Release);
        drop(w.mem.adopt(first));
    });
    let found = world.found();
    if !found.is_zero()
        && let Some(frame) = world.mem.try_get(found)
    {
        let generation = world.mem.generation(found);
        let frame = (!mistake).then_some(frame);
        if world.found() == found {
            thread::yield_now();
            assert_eq!(
                world.mem.generation(found),
                generation,
                "retired while held"
            );
        }
        drop(frame);
    }
    other.join().unwrap();
    assert_eq!(world.mem.in_use(), 0);
}

macro_rules! models {
    ($($model:ident($($arg:expr),*) $name:ident $twin:ident $why:literal)*) => {$(
        #[test]
        fn $name() {
            run::holds(stringify!($name), || super::$model($($arg,)* false));
        }
        #[test]
        fn $twin() {
            run::fails(stringify!($twin), $why, || super::$model($($arg,)* true));
        }
    )*};
}

mod tests {
    use super::{Known::*, RANGE, WIDE, run};
    models! {
        window_against_permit(RANGE, None, New) permit a_late_ticket "stale entry"
        window_against_permit(WIDE, None, New) permit_in_wide_window a_late_ticket_in_wide_window "stale entry"
        window_against_permit(RANGE, Some(RANGE), New) permit_of_interval a_late_ticket_of_interval "stale entry"
        window_against_permit(RANGE, Some(RANGE), Drained) permit_of_drained_interval a_late_ticket_of_drained_interval "stale entry"
        window_against_two_tickets() permit_of_two a_late_ticket_of_two "stale entry"
        window_that_passes_a_gate() gate_passed_by a_permit_unnoted "an entry inside a window"
        window_that_finds_a_gate() gate_found a_gate_that_forgets "an entry inside a window"
        registration_against_window(RANGE, None, 1) registration a_chain_read_before_the_board "stale entry"
        registration_against_window(WIDE, None, 1) registration_in_wide_window a_chain_read_before_wide_window "stale entry"
        registration_against_window(WIDE, Some(RANGE), 1) interval_insert_in_wide_window an_interval_tree_read_before_wide_window "stale entry"
        registration_against_window(RANGE, Some(RANGE), 1) interval_insert an_interval_tree_read_before_the_board "stale entry"
        registration_against_window(RANGE, Some(RANGE), 2) interval_insert_and_again an_interval_tree_read_before_the_board_and_again "stale entry"
        unregistration_against_window(None) unregistration a_leave_without_waiting "a driver that left got an entry"
        unregistration_against_window(Some(RANGE)) interval_remove an_interval_removed_without_waiting "a driver that left got an entry"
        coming_and_going_against_call() coming_and_going a_going_without_waiting "Causality violation"
        unregistration_against_aging(None) aging an_aging_without_waiting "called after it left"
        release_against_unregister(None) release a_second_release "left: 2"
        owned_window_against_permit() owned_window a_promise_that_is_broken "stale entry"
        range_against_window() range a_stamp_for_two_pieces "stale entry"
        flush_against_walk() flush a_flush_before_the_change "a frame that went is cached"
        registration_of_a_walker() walker_registers a_walker_that_drains_nothing "a frame that went is cached"
        release_against_walk() release_of_a_walker walks_that_are_not_forbidden "cached after the release"
        retirement_against_walk() retirement a_reference_given_up_early "retired while held"
        registration_of_a_voucher() voucher_registers a_voucher_that_takes_itself_for_called "a stale copy"
        spin_lock_of_two() spin_lock a_lock_given_back_unordered "Causality violation"
    }
}
