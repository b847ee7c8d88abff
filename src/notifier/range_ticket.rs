//! The ticket of a range: many pages that are looked up at once (`struct hmm_range`).
//!
//! A range is looked up in pieces, one for each 2-MiB block. The look-up, not the driver, draws the
//! stamp of a piece, just before it reads the piece; the stamp stays with what was read. So a
//! window that closes between two pieces makes stale only those that it touches, and no stamp
//! vouches for a piece that was read before it was drawn.
//! `docs/adr/0032-a-range-has-a-stamp-for-each-piece.md` says why.

#[cfg(feature = "testkit")]
use super::test_hook::Moment;
use super::{
    gate::Gate,
    notifiers::Notifiers,
    outcome::Access,
    seat::{Seat, Snapshot},
    store::ShadowStore,
    ticket::Seated,
    translation::Translation,
};
use crate::{
    addr::{Pfn, Vpn, VpnRange},
    ctx::Context,
    error::RangeFault,
    frame::{DeviceId, DeviceMemory},
};

/// The request for one page of a range. A higher one includes the lower ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FaultRequest {
    /// The page as it is: nothing is faulted in.
    Snapshot,
    /// A page that can be read (`HMM_PFN_REQ_FAULT`).
    Read,
    /// A page that can be written (`HMM_PFN_REQ_WRITE`).
    Write,
}

/// The request of a page for an access.
impl From<Access> for FaultRequest {
    fn from(access: Access) -> Self {
        match access {
            Access::Read => Self::Read,
            Access::Write => Self::Write,
        }
    }
}

/// The outcome of a look-up for one page of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// Nothing is present, and nothing was requested. A fault could make the page present.
    Missing,
    /// A fault could not make the page present either: nothing is mapped there, or without the
    /// right to read, or secret memory (`HMM_PFN_ERROR`).
    ///
    /// No window comes when something is mapped there later, so a driver must not remember this.
    Inaccessible,
    /// The page is present (`HMM_PFN_VALID`), and writable if the page table allows writing
    /// (`HMM_PFN_WRITE`). The pages are 1 or 512; a huge page may reach out of the range.
    Mapped(Translation),
}

impl Slot {
    /// Returns the translation of a page that is present.
    pub fn translation(&self) -> Option<&Translation> {
        match self {
            Self::Mapped(found) => Some(found),
            Self::Missing | Self::Inaccessible => None,
        }
    }
}

/// A part of a range, in one 2-MiB block, that was looked up.
pub(crate) struct Piece<'g> {
    pub(super) snapshot: Snapshot<'g>,
    /// The pages of the piece.
    pub(super) pages: VpnRange,
    /// One slot for each page, or one alone for the huge page around them.
    pub(super) slots: Vec<Slot>,
}

impl Piece<'_> {
    /// Returns the pages that windows must not have touched: the huge page's, or the piece's own.
    fn reach(&self) -> VpnRange {
        let first = self.slots.first().and_then(Slot::translation);
        let huge = first.filter(|found| found.range.covers(self.pages));
        huge.map_or(self.pages, |found| found.range)
    }
    /// Returns the slot of a page of the piece.
    pub(super) fn slot(&self, at: Vpn) -> &Slot {
        let nth = usize::try_from(at.0 - self.pages.start().0).expect("below 512");
        self.slots.get(nth).unwrap_or(&self.slots[0])
    }
    /// Checks that no window has touched the piece since it was read. The caller holds the gate.
    pub(super) fn check(&self, seat: &Seat) -> Result<(), super::Retry> {
        seat.look(self.reach(), &self.snapshot)
    }
}

/// A request for the pages of a range, drawn from the gate `G`.
///
/// The stamps are drawn by the look-up, so a ticket that waits does not become stale. A ticket that
/// was looked up once and found stale keeps the pieces that are still current
/// ([`RangeRetry::into_ticket`](super::RangeRetry::into_ticket)).
///
/// A look-up consumes its ticket:
///
/// ```compile_fail,E0382
/// use emmu::driver::*;
///
/// type Table = Gate<OrderedStore<Vpn>, (), Atomic>;
///
/// fn look_up_twice(mm: &Mm, cx: &mut CallCx<'_>, ticket: RangeTicket<'_, Table>) {
///     let _first = mm.resolve_range(cx, ticket);
///     let _again = mm.resolve_range(cx, ticket);
/// }
/// ```
#[must_use = "a ticket is for `Mm::resolve_range`"]
pub struct RangeTicket<'g, G> {
    pub(super) gate: &'g G,
    pub(super) range: VpnRange,
    /// The request for every page.
    default: FaultRequest,
    /// Higher requests for some.
    raised: Vec<(VpnRange, FaultRequest)>,
    huge: bool,
    /// The device memory whose pages the driver can use where they are.
    own: Option<DeviceId>,
    /// The pieces that were looked up, in ascending order. Pages between them were not.
    pub(super) pieces: Vec<Piece<'g>>,
    /// The error that cut the range short.
    pub(super) stopped: Option<RangeFault>,
}

impl<S: ShadowStore, T, C: Context> Gate<S, T, C> {
    /// Draws one ticket for the pages of a range. `request` is asked for each of them, as the
    /// `default_flags` of `struct hmm_range` are.
    ///
    /// The look-up takes memory for each page of the range, a [`Slot`] as `hmm_pfns` has an entry,
    /// also where nothing is mapped.
    pub fn range_ticket(&self, range: VpnRange, request: FaultRequest) -> RangeTicket<'_, Self> {
        RangeTicket {
            gate: self,
            range,
            default: request,
            raised: Vec::new(),
            huge: false,
            own: None,
            pieces: Vec::new(),
            stopped: None,
        }
    }
}

impl<'g, G> RangeTicket<'g, G> {
    /// Asks for more rights on some pages than on the rest of the range; no call asks for less. As
    /// in `hmm_range_fault` the flags of a page add to those of the range.
    pub fn request(mut self, pages: VpnRange, request: FaultRequest) -> Self {
        self.raised.push((pages, request));
        // What was read before may not serve a higher request.
        self.pieces.clear();
        self
    }
    /// Accepts translations of whole huge pages, also of those that reach out of the range.
    pub fn allow_huge(mut self) -> Self {
        self.huge = true;
        self
    }
    /// Accepts pages that lie in this memory, the driver's own, where they are: they do not come
    /// home (`hmm_range::dev_private_owner`). A page that is to be written, and that the device may
    /// only read, comes home.
    pub fn allow_private(mut self, memory: &DeviceMemory) -> Self {
        self.own = Some(memory.id());
        self
    }
    /// Returns the memory whose pages need not come home.
    pub(crate) fn own(&self) -> Option<DeviceId> {
        self.own
    }
    pub(crate) fn seat(&self) -> &Seat
    where
        G: Seated,
    {
        self.gate.seat()
    }
    /// Returns the pages; fewer than were asked for if an error cut them short.
    pub fn range(&self) -> VpnRange {
        self.range
    }
    /// Returns the request for a page.
    pub fn request_of(&self, at: Vpn) -> FaultRequest {
        let raised = self.raised.iter().filter(|(pages, _)| pages.contains(at));
        raised.fold(self.default, |most, &(_, request)| most.max(request))
    }
    /// Returns true if a translation of the huge page around a piece is welcome.
    pub(crate) fn allows_huge(&self) -> bool {
        self.huge
    }
    /// Returns the first pages, of one block, that were not looked up yet.
    pub(crate) fn next_piece(&self) -> Option<VpnRange> {
        let mut at = self.range.start();
        for piece in &self.pieces {
            if piece.pages.start() > at {
                break;
            }
            at = piece.pages.end();
        }
        let rest = VpnRange::new(at, self.range.end())?;
        // A piece that was looked up covers its block's part of the range.
        rest.intersect(VpnRange::block_of(at))
    }
    fn cut(&mut self, fault: RangeFault) -> Result<(), RangeFault> {
        self.range = VpnRange::new(self.range.start(), fault.at).ok_or(fault)?;
        self.pieces.retain(|piece| self.range.covers(piece.pages));
        self.stopped = Some(fault);
        Ok(())
    }
}

impl<'g, G: Seated> RangeTicket<'g, G> {
    /// Ends the range at the page of an error. Returns the error if no page is left.
    pub(crate) fn stop_at(&mut self, fault: RangeFault) -> Result<(), RangeFault> {
        self.cut(fault)
            .inspect_err(|_| self.gate.seat().got(self.range.start()))
    }
    /// Adds a piece that was looked up after `snapshot` was taken.
    pub(crate) fn put(&mut self, snapshot: Snapshot<'g>, pages: VpnRange, slots: Vec<Slot>) {
        #[cfg(feature = "testkit")]
        self.report(pages);
        let at = |piece: &Piece<'_>| piece.pages.start() < pages.start();
        let nth = self.pieces.partition_point(at);
        let piece = Piece {
            snapshot,
            pages,
            slots,
        };
        self.pieces.insert(nth, piece);
    }
    /// Calls the hook of tests: one look-up of all pages, some of them for writing.
    #[cfg(feature = "testkit")]
    fn report(&self, pages: VpnRange) {
        let seat = self.gate.seat();
        seat.reached(Moment::LookedUp(pages.start(), Access::Read));
        let written = |at: &Vpn| self.request_of(*at) == FaultRequest::Write;
        for at in pages.iter().filter(written) {
            seat.reached(Moment::RequestedForWriting(at));
        }
    }
    /// Returns true if the ticket was drawn from a driver of this address space.
    pub(crate) fn is_of(&self, notifiers: &Notifiers) -> bool {
        self.gate.seat().is_of(notifiers)
    }
    /// Returns true if the driver is notified of windows over all of `range`.
    pub(crate) fn is_covered(&self, range: VpnRange) -> bool {
        self.gate.seat().covers(range)
    }
    /// Takes the stamp of a piece that is about to be looked up.
    pub(crate) fn snapshot(&self, pages: VpnRange) -> Snapshot<'g> {
        self.gate.seat().snapshot(pages)
    }
    /// Returns the slot of a page, or of the huge page, that is mapped to the frames from `pfn` on;
    /// the first one is in this generation.
    pub(crate) fn mapped(
        &self,
        range: VpnRange,
        pfn: Pfn,
        generation: u32,
        writable: bool,
    ) -> Slot {
        Slot::Mapped(Translation {
            range,
            pfn,
            generation,
            writable,
            tag: self.gate.seat().tag,
        })
    }
}
