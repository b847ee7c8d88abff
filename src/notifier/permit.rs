//! Ticket, pending frame, permit: how a translation is established.

use super::{
    cached::Cached,
    gate::Gate,
    gate_guard::GateGuard,
    notifiers::Notifiers,
    outcome::{Access, Retry},
    seat::{Seat, Snapshot},
    shadow_entry::ShadowEntry,
    store::ShadowStore,
    translation::Translation,
};
use crate::{
    addr::{Pfn, Vpn, VpnRange},
    ctx::{Below, Context, Cx, EnterFrom, rank},
    frame::{FrameView, FrameViewMut},
};

/// A place on the board of windows, taken from the gate `G` before the page table is read.
///
/// One that is forgotten ([`std::mem::forget`]) keeps its place while the address space lives, and every window over its
/// 2 MiB passes it.
#[must_use = "a ticket is for `Mm::resolve`"]
pub struct Ticket<'g, G> {
    gate: &'g G,
    vpn: Vpn,
    access: Access,
    snapshot: Snapshot<'g>,
    /// The huge page around it will do.
    huge: bool,
    /// Writing will do if it is allowed anyway.
    or_writable: bool,
}

/// A frame was found but may already be gone: nothing about it is readable.
#[must_use = "a frame that was found is of no use before `admit`"]
pub struct Pending<'g, G> {
    ticket: Ticket<'g, G>,
    found: Translation,
}

/// The gate is held and the snapshot is current: no overlapping window is open.
#[must_use = "nothing is translated before `establish`"]
pub struct Permit<'p, S: ShadowStore, T, C: Context> {
    guard: GateGuard<'p, S, T, C>,
    seat: &'p Seat,
    vpn: Vpn,
    found: Translation,
}

mod sealed {
    use super::Seat;
    /// What has a seat on a chain.
    pub trait Seated {
        fn seat(&self) -> &Seat;
    }
}
pub(crate) use sealed::Seated;

impl<S: ShadowStore, T, C: Context> Seated for Gate<S, T, C> {
    fn seat(&self) -> &Seat {
        &self.seat
    }
}

impl<S: ShadowStore, T, C: Context> Gate<S, T, C> {
    /// Draws a ticket for one page, before anything about the page is looked up.
    pub fn ticket(&self, vpn: Vpn, access: Access) -> Ticket<'_, Self> {
        Ticket::draw(self, self.seat.snapshot(vpn), vpn, access)
    }
}

impl<'g, G> Ticket<'g, G> {
    pub(super) fn draw(gate: &'g G, snapshot: Snapshot<'g>, vpn: Vpn, access: Access) -> Self {
        Self {
            gate,
            vpn,
            access,
            snapshot,
            huge: false,
            or_writable: false,
        }
    }
    /// If the page is part of a huge page that is mapped as one, a translation of all of it is welcome.
    pub fn allow_huge(mut self) -> Self {
        self.huge = true;
        self
    }
    /// A ticket for reading gives a writable translation where the page table allows writing already.
    pub fn or_writable(mut self) -> Self {
        self.or_writable = true;
        self
    }
    /// The page.
    pub fn vpn(&self) -> Vpn {
        self.vpn
    }
    /// The access wanted.
    pub fn access(&self) -> Access {
        self.access
    }
}

impl<'g, G: Seated> Ticket<'g, G> {
    /// The page was found to be this frame, in this generation, or the pages of `range` to be the frames from `pfn` on.
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
                brand: self.gate.seat().brand,
            },
            ticket: self,
        }
    }
    /// Whether the ticket was drawn from a driver of this chain.
    pub(crate) fn is_of(&self, notifiers: &Notifiers) -> bool {
        let board = &self.gate.seat().board;
        notifiers
            .chain()
            .is_some_and(|chain| std::sync::Arc::ptr_eq(&chain.board, board))
    }
    /// Whether the driver is told of windows over the page.
    pub(crate) fn is_covered(&self) -> bool {
        self.gate.seat().covers(VpnRange::single(self.vpn))
    }
    /// Whether a translation of all of `block` may be given.
    pub(crate) fn allows_huge(&self, block: VpnRange) -> bool {
        self.huge && self.gate.seat().covers(block)
    }
    /// A window over the page is open that the driver was not told of, or it is unregistrations.
    pub(crate) fn is_early(&self) -> bool {
        self.snapshot.is_early() || !self.gate.seat().phase.is_alive()
    }
}

impl<S: ShadowStore, T, C: Context> Pending<'_, Gate<S, T, C>> {
    /// Takes the gate and validates the snapshot under it.
    ///
    /// # Errors
    ///
    /// [`Retry`]: draw a new ticket and look up again, unless the driver is detached.
    pub fn admit<'p, R: Below<rank::Gate>, D: Context>(
        self,
        cx: &'p mut Cx<'_, R, D>,
    ) -> Result<Permit<'p, S, T, C>, Retry>
    where
        Self: 'p,
        C: EnterFrom<D>,
    {
        let (gate, range) = (self.ticket.gate, self.found.range);
        self.admit_under(|| gate.lock_for(cx, range))
    }
}

#[cfg(all(test, loom))]
impl<S: ShadowStore, T, C: Context> Pending<'_, Gate<S, T, C>> {
    /// The mistake: the gate does not know where the entry comes.
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
    pub(super) fn gate(&self) -> &'g G {
        self.ticket.gate
    }
    /// Validates the snapshot under the driver's lock, which `lock` takes.
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
        })
    }
    /// Validates the snapshot for a TLB. To be called with the lock held under which the driver, asked to invalidate,
    /// drops what this TLB holds; then the translation is as good as one under the gate.
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
        Ok(Cached(self.found))
    }
    /// The translation without any check, for hardware that has its own: one that knows of a miss which a purge has
    /// cancelled meanwhile. Everybody else creates a stale translation with this.
    pub fn vouch(self) -> Cached {
        self.ticket.gate.seat().handed_out(&self.found);
        self.ticket.gate.seat().got(self.ticket.vpn);
        Cached(self.found)
    }
    /// The pages that were found.
    pub fn range(&self) -> VpnRange {
        self.found.range
    }
}

impl<'p, S: ShadowStore, T, C: Context> Permit<'p, S, T, C> {
    /// The frame, readable from here on.
    pub fn frame(&self) -> FrameView<'_> {
        let cached = Cached(self.found);
        let view = self.seat.follow(&cached, self.vpn);
        view.expect("the page that was asked for is in what was found")
    }
    /// The frame to write to, if the translation allows it.
    pub fn frame_mut(&mut self) -> Option<FrameViewMut<'_>> {
        let cached = Cached(self.found);
        self.seat.follow_mut(&cached, self.vpn)
    }
    /// Its number.
    pub fn pfn(&self) -> Pfn {
        let frame = self.found.frame_of(self.vpn);
        frame.expect("the page that was asked for is in what was found")
    }
    /// The pages that [`establish`](Self::establish) will translate.
    pub fn range(&self) -> VpnRange {
        self.found.range
    }
    /// Whether it may be written through.
    pub fn is_writable(&self) -> bool {
        self.found.writable
    }
    /// Keeps one page of a huge one.
    pub fn only_page(mut self) -> Self {
        let (at, pfn) = (self.vpn, self.pfn());
        let view = self.frame();
        let generation = view.generation();
        self.found = Translation {
            range: VpnRange::single(at),
            pfn,
            generation,
            ..self.found
        };
        self
    }
    /// A copy for a TLB, to be entered while this permit, or the guard that comes of it, lives.
    pub fn cached(&self) -> Cached {
        self.seat.got(self.vpn);
        Cached(self.found)
    }
    /// Driver state.
    pub fn state(&mut self) -> &mut T {
        self.guard.state()
    }
    /// Store and state, under the gate.
    pub fn guard(&mut self) -> &mut GateGuard<'p, S, T, C> {
        &mut self.guard
    }
    /// Records the translation under `key` and keeps the gate held.
    pub fn establish(self, key: S::Key) -> GateGuard<'p, S, T, C> {
        self.record(key, false)
    }
    /// The same with a reference on each frame (`get_page`), given up by the gate when the entry goes.
    pub fn establish_pinned(self, key: S::Key) -> GateGuard<'p, S, T, C> {
        self.record(key, true)
    }
    fn record(mut self, key: S::Key, pinned: bool) -> GateGuard<'p, S, T, C> {
        self.seat.established(&self.found);
        self.seat.got(self.vpn);
        // The zero page has no counts.
        let pinned = pinned && !self.found.pfn.is_zero();
        if pinned {
            for pfn in self.found.frames() {
                let _kept_by_the_entry = self.seat.mem.get(pfn).into_raw();
            }
        }
        let entry = ShadowEntry::new(self.found, pinned);
        let gone = self.guard.guarded.insert(key, entry);
        self.guard.discard(gone);
        self.guard
    }
}
