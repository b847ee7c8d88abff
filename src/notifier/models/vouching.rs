//! A loom model of a driver that takes what it has looked up without a check of the ticket, as the
//! hardware of a GRU does: such a driver relies on the word of [`Ticket::is_early`].
//!
//! [`Ticket::is_early`]: crate::notifier::Ticket::is_early

use super::{PAGE, World};
use crate::{
    addr::{Pfn, Vpn, VpnRange},
    ctx::{Atomic, AtomicCallbackCx, CallCx, CallbackCx},
    notifier::{Access, Ack, ExternalMmu, Gate, Invalidation, NoStore, Seat},
    sync::thread,
};
use std::sync::{Arc, Weak};

/// A page in another bucket of the board.
const ELSEWHERE: Vpn = Vpn(PAGE.0 + 512);

#[derive(Default)]
struct Hardware {
    /// Set while a miss is in service that no window has cancelled.
    armed: bool,
    /// The windows that have begun and not ended.
    active: usize,
    cached: Option<Pfn>,
}

struct Voucher(Gate<NoStore, Hardware, Atomic>);

impl ExternalMmu for Voucher {
    fn invalidate_start<'i>(&self, cx: CallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> {
        self.0.exclude(cx, inv, |hardware, _, _| {
            hardware.active += 1;
            hardware.armed = false;
            hardware.cached = None;
        })
    }
    fn invalidate_end(&self, mut cx: AtomicCallbackCx<'_>, _: VpnRange) {
        self.0.lock(&mut cx).state().active -= 1;
    }
}

impl Voucher {
    fn new(seat: Seat) -> Arc<Self> {
        Arc::new(Self(Gate::new(seat, NoStore, Hardware::default())))
    }
    /// Runs one attempt to serve a miss of a page.
    fn serve(&self, world: &World, cx: &mut CallCx<'_>, page: Vpn) {
        let mut gate = self.0.lock(cx);
        let quiet = gate.state().active == 0;
        gate.state().armed = quiet;
        drop(gate);
        let ticket = self.0.ticket(page, Access::Read);
        if !quiet || ticket.is_early() {
            return thread::yield_now();
        }
        let found = world.found();
        let mut gate = self.0.lock(cx);
        let hardware = gate.state();
        if hardware.armed {
            hardware.cached = (page == PAGE).then_some(found);
        }
    }
}

/// A driver registers beside a window, and serves a miss elsewhere, which makes it look at all of
/// the board, and then one of the page of the window. The mistake: it takes itself for called by
/// every window.
pub(super) fn registration_of_a_voucher(mistake: bool) {
    let world = World::new();
    world.enter(|mut cx| {
        let made = &world.notifiers;
        made.prepare(&cx.descend(), Weak::<()>::new(), || ());
    });
    let w = Arc::clone(&world);
    let other = loom::thread::spawn(move || w.enter(|cx| w.replace(cx, || ())));
    // In one stay on the machine: to leave it is a fence.
    let (driver, _stays) = world.enter(|mut cx| {
        let mem = &world.mem;
        let made = world.notifiers.register(&mut cx, mem, None, Voucher::new);
        let made = made.expect("new, with a gate");
        if mistake {
            made.0.0.seat.phase.mark_drained();
        }
        made.0.serve(&world, &mut cx, ELSEWHERE);
        made.0.serve(&world, &mut cx, PAGE);
        made
    });
    other.join().unwrap();
    world.enter(|mut cx| {
        let cached = driver.0.lock(&mut cx).state().cached;
        assert!(
            cached.is_none_or(|pfn| pfn == world.found()),
            "a stale copy"
        );
    });
}
