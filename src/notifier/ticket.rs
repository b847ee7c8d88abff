//! The ticket, which a driver draws before it looks a page up, and the gates that it is drawn from.

use super::{
    gate::Gate,
    gate_guard::GateGuard,
    notifiers::Notifiers,
    outcome::Access,
    seat::{Seat, Snapshot},
    store::ShadowStore,
};
use crate::{
    addr::{Vpn, VpnRange},
    ctx::{Below, Context, Cx, EnterFrom, rank},
};

/// A place on the board of windows, drawn from the gate `G` before the page table is read.
///
/// A ticket that is forgotten ([`std::mem::forget`]) keeps its place while the address space lives,
/// and every window over its 2-MiB block passes it.
///
/// A look-up consumes its ticket, so no second look-up relies on it:
///
/// ```compile_fail,E0382
/// use emmu::driver::*;
///
/// type Table = Gate<OrderedStore<Vpn>, (), Atomic>;
///
/// fn look_up_twice(mm: &Mm, cx: &mut CallCx<'_>, ticket: Ticket<'_, Table>) {
///     let _stale = mm.resolve(cx, ticket);
///     let _again = mm.resolve(cx, ticket); // draw another one: `gate.ticket(page, access)`
/// }
/// ```
#[must_use = "a ticket is for `Mm::resolve`"]
pub struct Ticket<'g, G> {
    pub(super) gate: &'g G,
    pub(super) vpn: Vpn,
    pub(super) access: Access,
    pub(super) snapshot: Snapshot<'g>,
    /// Set if a translation of the huge page around the page is welcome.
    pub(super) huge: bool,
    /// Set if a ticket for reading may give a writable translation.
    pub(super) or_writable: bool,
}

mod sealed {
    use super::{Below, Context, Cx, EnterFrom, GateGuard, Seat, ShadowStore, VpnRange, rank};
    /// A gate, or several: the holder of a registration's seat.
    pub trait Seated {
        fn seat(&self) -> &Seat;
    }
    /// The lock of new entries: the gate, or the one of several that the pages belong to.
    pub trait Admits: Seated {
        type Store: ShadowStore;
        type State;
        type Context: Context;

        /// Locks the gate for new entries of `range`, whose pages lie in one block. The caller
        /// checks the ticket next.
        fn lock_for<'p, R: Below<rank::Gate>, D: Context>(
            &'p self,
            cx: &'p mut Cx<'_, R, D>,
            range: VpnRange,
        ) -> GateGuard<'p, Self::Store, Self::State, Self::Context>
        where
            Self::Context: EnterFrom<D>;
    }
}
pub(crate) use sealed::{Admits, Seated};

impl<S: ShadowStore, T, C: Context> Seated for Gate<S, T, C> {
    fn seat(&self) -> &Seat {
        &self.seat
    }
}

impl<S: ShadowStore, T, C: Context> Admits for Gate<S, T, C> {
    type Store = S;
    type State = T;
    type Context = C;

    fn lock_for<'p, R: Below<rank::Gate>, D: Context>(
        &'p self,
        cx: &'p mut Cx<'_, R, D>,
        range: VpnRange,
    ) -> GateGuard<'p, S, T, C>
    where
        C: EnterFrom<D>,
    {
        let guard = self.lock(cx);
        // Under the lock: a window that asks the filter later finds the range noted.
        self.filter.note(range);
        guard
    }
}

impl<S: ShadowStore, T, C: Context> Gate<S, T, C> {
    /// Draws a ticket for one page, before anything about the page is looked up.
    pub fn ticket(&self, vpn: Vpn, access: Access) -> Ticket<'_, Self> {
        Ticket::draw(self, self.seat.snapshot(vpn.into()), vpn, access)
    }
    /// Makes a ticket without a place on the board, which no check accepts: for hardware that makes
    /// its own check of the translation that is [vouched](super::Pending::vouch) for.
    pub(crate) fn unplaced_ticket(&self, vpn: Vpn, access: Access) -> Ticket<'_, Self> {
        Ticket::draw(self, self.seat.unplaced(vpn.into()), vpn, access)
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
    /// Accepts a translation of the whole huge page, if the page is part of one that is mapped by
    /// one entry.
    pub fn allow_huge(mut self) -> Self {
        self.huge = true;
        self
    }
    /// Accepts a writable translation for a ticket for reading, where the page table allows writing
    /// already.
    pub fn or_writable(self) -> Self {
        self.or_writable_if(true)
    }
    /// Does so if `may`.
    pub(crate) fn or_writable_if(mut self, may: bool) -> Self {
        self.or_writable = may;
        self
    }
    /// Returns the page.
    pub fn vpn(&self) -> Vpn {
        self.vpn
    }
    pub(crate) fn seat(&self) -> &Seat
    where
        G: Seated,
    {
        self.gate.seat()
    }
    /// Returns the access that the ticket is for.
    pub fn access(&self) -> Access {
        self.access
    }
}

impl Seat {
    /// Returns true if the seat was given out by this address space.
    pub(super) fn is_of(&self, notifiers: &Notifiers) -> bool {
        notifiers
            .chain()
            .is_some_and(|chain| std::sync::Arc::ptr_eq(&chain.board, &self.board))
    }
}

impl<'g, G: Seated> Ticket<'g, G> {
    /// Returns true if the ticket was drawn from a driver of this address space.
    pub(crate) fn is_of(&self, notifiers: &Notifiers) -> bool {
        self.gate.seat().is_of(notifiers)
    }
    /// Returns true if the driver is notified of windows over the page.
    pub(crate) fn is_covered(&self) -> bool {
        self.gate.seat().covers(VpnRange::single(self.vpn))
    }
    /// Returns true if the ticket accepts a translation of all of `block`, and the driver is
    /// notified of windows over it.
    pub(crate) fn allows_huge(&self, block: VpnRange) -> bool {
        self.huge && self.gate.seat().covers(block)
    }
    /// Notes that the access was refused: the driver's tries to get the page are over.
    pub(crate) fn refused(&self) {
        self.gate.seat().got(self.vpn);
    }
    /// Returns true if the ticket cannot succeed: a window over the page is open that did not call
    /// the driver, or the driver is being unregistered.
    pub(crate) fn is_early(&self) -> bool {
        self.snapshot.is_early() || !self.gate.seat().phase.is_alive()
    }
}
