//! Pending pages and permit of a range: all pieces are checked under one lock of the gate.

use super::{
    cached::Cached,
    gate::Gate,
    gate_guard::GateGuard,
    outcome::Retry,
    range_ticket::{Piece, RangeTicket, Slot},
    seat::Seat,
    store::ShadowStore,
    translation::Translation,
};
use crate::{
    addr::{Vpn, VpnRange},
    ctx::{Below, Context, Cx, EnterFrom, rank},
    error::RangeFault,
    frame::{AccessBits, FrameView, FrameViewMut},
};

/// The pages of a range that were looked up, but may have changed since: nothing of them can be
/// read.
///
/// ```compile_fail,E0599
/// use emmu::driver::*;
///
/// fn first_byte(pending: RangePending<'_, Gate<OrderedStore<Vpn>, (), Atomic>>) -> Option<u8> {
///     let at = pending.range().start();
///     Some(pending.frame(at)?.read_u8(0)) // `admit` checks the stamps, and gives a permit
/// }
/// ```
#[must_use = "pages that were found are of no use before `admit`"]
pub struct RangePending<'g, G> {
    ticket: RangeTicket<'g, G>,
}

/// A range that was not admitted: windows have touched some of its pieces.
#[must_use = "the pieces that are still current need no second look-up"]
pub struct RangeRetry<'g, G> {
    reason: Retry,
    at: VpnRange,
    ticket: Box<RangeTicket<'g, G>>,
}

/// The outcome of an admission.
type Admitted<'p, 'g, S, T, C> = Result<RangePermit<'p, S, T, C>, RangeRetry<'g, Gate<S, T, C>>>;

/// The right to establish the pages of a range: the gate is held, and the stamp of each piece was
/// checked under it, so no overlapping window is open.
///
/// A view of a frame ends before the permit does:
///
/// ```compile_fail,E0505
/// use emmu::driver::*;
///
/// fn first_byte(permit: RangePermit<'_, OrderedStore<Vpn>, (), Atomic>) -> Option<u8> {
///     let frame = permit.frame(permit.range().start())?;
///     drop(permit); // windows open again
///     Some(frame.read_u8(0))
/// }
/// ```
#[must_use = "nothing is translated before `establish`"]
pub struct RangePermit<'p, S: ShadowStore, T, C: Context> {
    guard: GateGuard<'p, S, T, C>,
    seat: &'p Seat,
    range: VpnRange,
    /// The pieces, their stamps checked.
    pieces: Vec<Piece<'p>>,
    stopped: Option<RangeFault>,
}

impl<'g, G> RangePending<'g, G> {
    /// Wraps a ticket whose pages were all looked up.
    pub(crate) fn new(ticket: RangeTicket<'g, G>) -> Self {
        debug_assert_eq!(ticket.next_piece(), None, "a piece was not looked up");
        Self { ticket }
    }
    /// Returns the pages that were looked up: all that were asked for, or those below an error.
    pub fn range(&self) -> VpnRange {
        self.ticket.range
    }
    /// Returns the error of the page behind [`range`](Self::range), if one cut the range short.
    pub fn stopped(&self) -> Option<RangeFault> {
        self.ticket.stopped
    }
}

impl<'g, S: ShadowStore, T, C: Context> RangePending<'g, Gate<S, T, C>> {
    /// Locks the gate, and checks the stamp of each piece under it.
    ///
    /// # Errors
    ///
    /// [`RangeRetry`] if one piece is not current: nothing is admitted. Its ticket keeps the pieces
    /// that are; look it up again, unless the driver is detached.
    pub fn admit<'p, R: Below<rank::Gate>, D: Context>(
        mut self,
        cx: &'p mut Cx<'_, R, D>,
    ) -> Admitted<'p, 'g, S, T, C>
    where
        'g: 'p,
        C: EnterFrom<D>,
    {
        let guard = self.lock(cx);
        let mut refused = None;
        let seat = &self.ticket.gate.seat;
        self.ticket.pieces.retain(|piece| {
            let checked = piece.check(seat);
            if let Err(reason) = checked {
                refused.get_or_insert((reason, piece.pages));
            }
            checked.is_ok()
        });
        let Some((reason, at)) = refused else {
            return Ok(RangePermit::new(guard, seat, self.ticket));
        };
        drop(guard);
        let ticket = Box::new(self.ticket);
        Err(RangeRetry { reason, at, ticket })
    }
    /// Locks the gate, and checks the stamps from the first piece on: the permit is for the pages
    /// below the first piece that is not current.
    ///
    /// # Errors
    ///
    /// [`RangeRetry`] if the first piece is not current, as for [`admit`](Self::admit).
    pub fn admit_prefix<'p, R: Below<rank::Gate>, D: Context>(
        mut self,
        cx: &'p mut Cx<'_, R, D>,
    ) -> Admitted<'p, 'g, S, T, C>
    where
        'g: 'p,
        C: EnterFrom<D>,
    {
        let guard = self.lock(cx);
        let seat = &self.ticket.gate.seat;
        let mut pieces = self.ticket.pieces.iter().enumerate();
        let refused = pieces.find_map(|(good, piece)| {
            let reason = piece.check(seat).err()?;
            Some((good, reason, piece.pages))
        });
        let Some((good, reason, at)) = refused else {
            return Ok(RangePermit::new(guard, seat, self.ticket));
        };
        let Some(range) = VpnRange::new(self.ticket.range.start(), at.start()) else {
            drop(guard);
            self.ticket.pieces.remove(0);
            let ticket = Box::new(self.ticket);
            return Err(RangeRetry { reason, at, ticket });
        };
        self.ticket.pieces.truncate(good);
        (self.ticket.range, self.ticket.stopped) = (range, None);
        Ok(RangePermit::new(guard, seat, self.ticket))
    }
    /// Locks the gate. Windows that open from now on find the blocks of the range noted.
    fn lock<'p, R: Below<rank::Gate>, D: Context>(
        &self,
        cx: &'p mut Cx<'_, R, D>,
    ) -> GateGuard<'p, S, T, C>
    where
        'g: 'p,
        C: EnterFrom<D>,
    {
        let gate = self.ticket.gate;
        gate.seat.tried(self.ticket.range.start());
        let guard = gate.lock(cx);
        for piece in &self.ticket.pieces {
            gate.filter.note(piece.pages);
        }
        guard
    }
}

impl<G> std::fmt::Debug for RangeRetry<'_, G> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RangeRetry({:?}, {:?})", self.reason, self.at)
    }
}

impl<'g, G> RangeRetry<'g, G> {
    /// Returns the reason.
    pub fn reason(&self) -> Retry {
        self.reason
    }
    /// Returns the pages of the first piece that is not current.
    pub fn pages(&self) -> VpnRange {
        self.at
    }
    /// Returns the ticket, which keeps the pieces that are current: a look-up reads the others
    /// alone.
    pub fn into_ticket(self) -> RangeTicket<'g, G> {
        *self.ticket
    }
}

impl<'p, S: ShadowStore, T, C: Context> RangePermit<'p, S, T, C> {
    fn new<'g: 'p, G>(
        guard: GateGuard<'p, S, T, C>,
        seat: &'p Seat,
        ticket: RangeTicket<'g, G>,
    ) -> Self {
        let pieces: Vec<Piece<'p>> = ticket.pieces;
        let slots = pieces.iter().flat_map(|piece| &piece.slots);
        slots
            .filter_map(Slot::translation)
            .for_each(|found| seat.handed_out(found));
        seat.got(ticket.range.start());
        Self {
            guard,
            seat,
            range: ticket.range,
            pieces,
            stopped: ticket.stopped,
        }
    }
    /// Returns the pages of the permit.
    pub fn range(&self) -> VpnRange {
        self.range
    }
    /// Returns the error of the page behind [`range`](Self::range), if one cut the range short.
    pub fn stopped(&self) -> Option<RangeFault> {
        self.stopped
    }
    /// Reduces the permit to the pages of `range`; a huge page with a page there stays whole.
    /// Returns `None` if none of the pages lies there: the gate is unlocked.
    pub fn only(mut self, range: VpnRange) -> Option<Self> {
        let end = self.range.end();
        self.range = self.range.intersect(range)?;
        if self.range.end() < end {
            self.stopped = None;
        }
        Some(self)
    }
    /// Returns the slot of a page; `None` outside of the permit.
    pub fn slot(&self, at: Vpn) -> Option<Slot> {
        if !self.range.contains(at) {
            return None;
        }
        let nth = self.pieces.partition_point(|piece| piece.pages.end() <= at);
        Some(*self.pieces[nth].slot(at))
    }
    /// Visits the slots in ascending order, each with the pages of the permit that it is of: one
    /// page, or those of a huge page.
    pub fn slots(&self) -> impl Iterator<Item = (VpnRange, Slot)> {
        let mut at = self.range.start();
        std::iter::from_fn(move || {
            let slot = self.slot(at)?;
            let reach = slot.translation().map_or(at.into(), |found| found.range);
            let pages = VpnRange::new(at, reach.end().min(self.range.end()))?;
            at = pages.end();
            Some((pages, slot))
        })
    }
    /// Returns the frame of a page, for reading; `None` if it is not present.
    pub fn frame(&self, at: Vpn) -> Option<FrameView<'_>> {
        self.seat.view(&self.of(at)?, at)
    }
    /// Returns the frame of a page, for writing; `None` if it is not present and writable.
    pub fn frame_mut(&mut self, at: Vpn) -> Option<FrameViewMut<'_>> {
        self.seat.view_mut(&self.of(at)?, at)
    }
    /// Copies the translation of a page for a TLB, which must be filled while this permit, or the
    /// guard that it becomes, lives.
    pub fn cached(&self, at: Vpn) -> Option<Cached> {
        let found = self.of(at)?;
        self.seat.got(at);
        Some(self.seat.cache(found))
    }
    fn of(&self, at: Vpn) -> Option<Translation> {
        self.slot(at)?.translation().copied()
    }
    /// Returns the driver's state.
    pub fn state(&mut self) -> &mut T {
        self.guard.state()
    }
    /// Returns the guard of the gate.
    pub fn guard(&mut self) -> &mut GateGuard<'p, S, T, C> {
        &mut self.guard
    }
    /// Puts the translation of each page that is present into the store, under the key that `key`
    /// returns for it. Keeps the gate locked.
    pub fn establish(self, key: impl FnMut(&Translation) -> S::Key) -> GateGuard<'p, S, T, C> {
        self.record(key, false)
    }
    /// Puts the translations into the store as [`establish`](Self::establish) does, with a
    /// reference on each frame, which the gate gives up when the entry is removed.
    pub fn establish_held(self, key: impl FnMut(&Translation) -> S::Key) -> GateGuard<'p, S, T, C> {
        self.record(key, true)
    }
    fn record(
        mut self,
        mut key: impl FnMut(&Translation) -> S::Key,
        held: bool,
    ) -> GateGuard<'p, S, T, C> {
        let slots: Vec<Slot> = self.slots().map(|(_, slot)| slot).collect();
        for found in slots.iter().filter_map(Slot::translation) {
            self.seat.got(found.range.start());
            self.guard
                .enter(*found, key(found), (held, AccessBits::default()));
        }
        self.guard
    }
}
