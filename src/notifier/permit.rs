//! Ticket, pending frame, permit: the steps by which a driver establishes a translation.
//!
//! A driver draws a [`Ticket`], has its page looked up, which gives a [`Pending`] frame that cannot
//! be read, and has the ticket checked under its gate ([`Pending::admit`]). Only the [`Permit`]
//! that comes of this can establish an entry. Each step consumes the value of the step before
//! (ADRs 8 and 10).

#[cfg(feature = "testkit")]
use super::test_hook::Moment;
use super::{
    cached::Cached,
    gate_guard::GateGuard,
    outcome::{Access, Retry},
    seat::Seat,
    store::ShadowStore,
    ticket::{Admits, Seated, Ticket},
    translation::Translation,
};
use crate::{
    addr::{Pfn, Vpn, VpnRange},
    ctx::{Below, Context, Cx, EnterFrom, rank},
    frame::{AccessBits, FrameView, FrameViewMut},
};

/// A frame that was found for a page, but may already be gone: nothing of it can be read.
///
/// The page may have changed since the look-up, so a pending frame has no view:
///
/// ```compile_fail,E0599
/// use emmu::driver::*;
///
/// fn first_byte(pending: Pending<'_, Gate<OrderedStore<Vpn>, (), Atomic>>) -> u8 {
///     pending.frame().read_u8(0) // `admit` checks the ticket, and gives a permit
/// }
/// ```
#[must_use = "a frame that was found is of no use before `admit`"]
pub struct Pending<'g, G> {
    ticket: Ticket<'g, G>,
    found: Translation,
    /// The number of windows that an observer had seen open after the look-up.
    since: u64,
}

/// The right to establish a translation: the gate is held, and the ticket was checked under it, so
/// no overlapping window is open.
///
/// A view of the frame ends before the permit does, and the permit with its gate:
///
/// ```
/// use emmu::driver::*;
///
/// fn first_byte(permit: Permit<'_, OrderedStore<Vpn>, (), Atomic>) -> u8 {
///     let byte = permit.frame().read_u8(0);
///     drop(permit); // unlocks the gate: windows open again
///     byte
/// }
/// ```
///
/// A read after that does not compile:
///
/// ```compile_fail,E0505
/// use emmu::driver::*;
///
/// fn first_byte(permit: Permit<'_, OrderedStore<Vpn>, (), Atomic>) -> u8 {
///     let frame = permit.frame();
///     drop(permit);
///     frame.read_u8(0) // the page may be gone
/// }
/// ```
#[must_use = "nothing is translated before `establish`"]
pub struct Permit<'p, S: ShadowStore, T, C: Context> {
    guard: GateGuard<'p, S, T, C>,
    seat: &'p Seat,
    vpn: Vpn,
    found: Translation,
    /// The accessed and dirty bits of the entry that is made.
    used: AccessBits,
}

/// The permit of a gate, or of the one of several that the page belongs to.
pub(crate) type PermitOf<'p, G> =
    Permit<'p, <G as Admits>::Store, <G as Admits>::State, <G as Admits>::Context>;

impl<'g, G: Seated> Ticket<'g, G> {
    /// Makes a pending frame of the outcome of a look-up: the pages of `range` are mapped to the
    /// frames from `pfn` on, and the first one is in this generation.
    #[inline(always)]
    pub(crate) fn fill(
        self,
        range: VpnRange,
        pfn: Pfn,
        generation: u32,
        may_write: bool,
    ) -> Pending<'g, G> {
        let writable = self.access == Access::Write || (self.or_writable && may_write);
        Pending {
            found: Translation {
                range,
                pfn,
                generation,
                writable,
                tag: self.gate.seat().tag,
            },
            since: 0,
            ticket: self,
        }
    }
}

impl<G: Seated> Pending<'_, G> {
    /// Notes how many windows an observer has seen open.
    #[inline(always)]
    pub(crate) fn stamped(mut self) -> Self {
        let seat = self.ticket.gate.seat();
        self.since = seat.windows_opened();
        #[cfg(feature = "testkit")]
        seat.reached(Moment::LookedUp(self.ticket.vpn, self.ticket.access));
        self
    }
}

impl<G: Admits> Pending<'_, G> {
    /// Locks the gate of the page and checks the ticket under it.
    ///
    /// # Errors
    ///
    /// [`Retry`]: draw a new ticket and look the page up again, unless the driver is detached.
    #[inline(always)]
    pub fn admit<'p, R: Below<rank::Gate>, D: Context>(
        self,
        cx: &'p mut Cx<'_, R, D>,
    ) -> Result<PermitOf<'p, G>, Retry>
    where
        Self: 'p,
        G::Context: EnterFrom<D>,
    {
        let (gate, range) = (self.ticket.gate, self.found.range);
        self.admit_under(|| gate.lock_for(cx, range))
    }
}

#[cfg(all(test, loom))]
impl<S: ShadowStore, T, C: Context> Pending<'_, super::gate::Gate<S, T, C>> {
    /// Does not note the page in the gate's filter: the mistake that a model must find.
    pub(super) fn admit_unnoted<'p, R: Below<rank::Gate>, D: Context>(
        self,
        cx: &'p mut Cx<'_, R, D>,
    ) -> Result<Permit<'p, S, T, C>, Retry>
    where
        Self: 'p,
        C: EnterFrom<D>,
    {
        let gate = self.ticket.gate;
        self.admit_under(|| gate.lock(cx))
    }
}

impl<'g, G: Seated> Pending<'g, G> {
    /// Locks the gate by `lock`, and checks the ticket under it.
    #[inline(always)]
    pub(super) fn admit_under<'p, S: ShadowStore, T, C: Context>(
        self,
        lock: impl FnOnce() -> GateGuard<'p, S, T, C>,
    ) -> Result<Permit<'p, S, T, C>, Retry>
    where
        'g: 'p,
    {
        let Ticket {
            gate,
            vpn,
            snapshot,
            ..
        } = self.ticket;
        let seat = gate.seat();
        seat.tried(vpn);
        let guard = lock();
        seat.check(self.found.range, snapshot)?;
        seat.handed_out(&self.found);
        Ok(Permit {
            guard,
            seat,
            vpn,
            found: self.found,
            used: AccessBits::default(),
        })
    }
    /// Checks the ticket for a translation in a TLB.
    ///
    /// The caller holds the lock under which its invalidation callback drops the translations of
    /// this TLB; then the translation is as good as one under the gate.
    ///
    /// # Errors
    ///
    /// [`Retry`], as for [`admit`](Self::admit).
    pub fn validate(self) -> Result<Cached, Retry> {
        let seat = self.ticket.gate.seat();
        seat.tried(self.ticket.vpn);
        seat.check(self.found.range, self.ticket.snapshot)?;
        seat.got(self.ticket.vpn);
        seat.handed_out(&self.found);
        #[cfg(feature = "testkit")]
        seat.reached(Moment::Validated(self.ticket.vpn));
        Ok(seat.cache_since(self.found, self.since))
    }
    /// Returns the translation without a check for windows since the ticket was drawn, for hardware
    /// that makes its own: a miss that a purge has cancelled meanwhile is ignored there. In any
    /// other use this creates a stale translation.
    ///
    /// # Errors
    ///
    /// [`Retry::Busy`]: a window over the page was open that had begun before the driver was
    /// registered. It calls the driver neither for its beginning nor for its end, so no hardware
    /// hears of it. [`Gate::wait_idle`](super::Gate::wait_idle) waits for its end.
    pub fn vouch(self) -> Result<Cached, Retry> {
        let seat = self.ticket.gate.seat();
        if self.ticket.snapshot.is_early() {
            return Err(Retry::Busy);
        }
        seat.handed_out(&self.found);
        seat.got(self.ticket.vpn);
        Ok(seat.cache_since(self.found, self.since))
    }
    /// Returns the pages that the look-up found.
    pub fn range(&self) -> VpnRange {
        self.found.range
    }
}

impl<'p, S: ShadowStore, T, C: Context> Permit<'p, S, T, C> {
    /// Returns the frame of the page, for reading.
    pub fn frame(&self) -> FrameView<'_> {
        self.seat.got(self.vpn);
        self.view()
    }
    fn view(&self) -> FrameView<'_> {
        let view = self.seat.view(&self.found, self.vpn);
        view.expect("the page that was asked for is in what was found")
    }
    /// Returns the frame of the page, for writing; `None` if the translation does not allow that.
    pub fn frame_mut(&mut self) -> Option<FrameViewMut<'_>> {
        self.seat.got(self.vpn);
        self.seat.view_mut(&self.found, self.vpn)
    }
    /// Returns the number of the page's frame.
    pub fn pfn(&self) -> Pfn {
        let frame = self.found.frame_of(self.vpn);
        frame.expect("the page that was asked for is in what was found")
    }
    /// Returns the pages that [`establish`](Self::establish) will translate.
    pub fn range(&self) -> VpnRange {
        self.found.range
    }
    /// Returns true if the translation allows writing.
    pub fn is_writable(&self) -> bool {
        self.found.writable
    }
    /// Reduces a translation of a huge page to the page of the ticket.
    pub fn only_page(mut self) -> Self {
        let (at, pfn) = (self.vpn, self.pfn());
        let generation = self.view().generation();
        self.found = Translation {
            range: VpnRange::single(at),
            pfn,
            generation,
            ..self.found
        };
        self
    }
    /// Copies the translation for a TLB, which must be filled while this permit, or the guard that
    /// it becomes, lives.
    pub fn cached(&self) -> Cached {
        self.seat.got(self.vpn);
        self.seat.cache(self.found)
    }
    /// Returns the driver's state.
    pub fn state(&mut self) -> &mut T {
        self.guard.state()
    }
    /// Returns the guard of the gate.
    pub fn guard(&mut self) -> &mut GateGuard<'p, S, T, C> {
        &mut self.guard
    }
    /// Has the entry be made with its accessed bit set, and its dirty bit too if `access` is one to
    /// write: for a device whose walk makes the entry and uses it.
    pub fn used_for(mut self, access: Access) -> Self {
        self.used = AccessBits {
            young: true,
            dirty: access == Access::Write,
        };
        self
    }
    /// Puts the translation into the store under `key`, and keeps the gate locked.
    pub fn establish(self, key: S::Key) -> GateGuard<'p, S, T, C> {
        self.record(key, false)
    }
    /// Puts the translation into the store with a reference on each frame (`get_page`), which the
    /// gate gives up when the entry is removed. Keeps the gate locked.
    pub fn establish_held(self, key: S::Key) -> GateGuard<'p, S, T, C> {
        self.record(key, true)
    }
    fn record(mut self, key: S::Key, held: bool) -> GateGuard<'p, S, T, C> {
        self.seat.got(self.vpn);
        self.guard.enter(self.found, key, (held, self.used));
        self.guard
    }
}
