//! A driver's place on the chain: what its tickets are checked against.
//!
//! A driver of the whole address space is checked against the board, page by page; one that subscribed to a range, against
//! the sequence of its subscription. Both kinds draw the same tickets and get the same permits.

use super::{
    board::{Board, BoardTicket, Verdict},
    entry::{Brand, RegId, RegistrationPhase},
    permit::Retry,
    subscription::Subscription,
};
use crate::{
    addr::{Vpn, VpnRange},
    frame::PhysMem,
};
use std::sync::Arc;

/// Unforgeable right to build the one gate of a registration.
pub struct Seat {
    pub(super) reg: RegId,
    pub(super) brand: Brand,
    pub(super) board: Arc<Board>,
    pub(super) standing: Arc<RegistrationPhase>,
    pub(super) mem: Arc<PhysMem>,
    pub(super) sub: Option<Arc<Subscription>>,
}

/// What a ticket is checked against.
#[derive(Debug)]
enum SnapshotKind<'s> {
    Board(BoardTicket<'s>),
    Subscription(&'s Subscription, u64),
}

/// When a ticket was drawn.
#[derive(Debug)]
pub(super) struct Snapshot<'s> {
    against: SnapshotKind<'s>,
    /// A window over the page, or the subscription, was open that began before the driver was on the chain: it was not
    /// told.
    early: bool,
}

impl Snapshot<'_> {
    pub(super) fn is_early(&self) -> bool {
        self.early
    }
}

impl Seat {
    /// To be taken before anything about the page is looked up.
    pub(super) fn stamp(&self, at: Vpn) -> Snapshot<'_> {
        // First: windows that did not see the driver are over before the sequence is read that only others advance.
        let early = !self.standing.is_settled() && self.is_early(VpnRange::single(at));
        let against = match &self.sub {
            Some(sub) => SnapshotKind::Subscription(sub, sub.snapshot()),
            None => SnapshotKind::Board(self.board.draw(at)),
        };
        Snapshot { against, early }
    }
    #[cold]
    fn is_early(&self, at: VpnRange) -> bool {
        if !self.standing.is_listed() {
            return true;
        }
        let over = self.sub.as_ref().map_or(at, |sub| sub.range);
        let busy = self.board.is_busy(over);
        let over_all = self.sub.is_none();
        if !busy && (!over_all || self.board.open() == 0) {
            self.standing.settle();
        }
        busy
    }
    /// Whether what was found for `range` after the stamp still holds. Under the driver's lock.
    pub(super) fn check(&self, range: VpnRange, stamp: Snapshot<'_>) -> Result<(), Retry> {
        if !self.standing.is_alive() {
            return Err(Retry::Detached);
        }
        let verdict = match stamp.against {
            SnapshotKind::Subscription(..) if stamp.early => Verdict::Busy,
            SnapshotKind::Subscription(sub, since) => sub.validate(since),
            SnapshotKind::Board(drawn) => drawn.settle(range),
        };
        match verdict {
            Verdict::Busy => Err(Retry::Busy),
            Verdict::Stale => Err(Retry::Stale),
            Verdict::Current => Ok(()),
        }
    }
    /// Sleeps until no window overlaps `range`; of a subscription, all of it.
    pub(crate) fn wait_idle(&self, range: VpnRange) {
        let Some(sub) = &self.sub else {
            return self.board.wait_idle(range);
        };
        if !self.standing.is_settled() {
            self.board.wait_idle(sub.range);
        }
        sub.wait_idle();
    }
    /// Whether windows over all of `range` reach the driver.
    pub(super) fn covers(&self, range: VpnRange) -> bool {
        self.sub.as_ref().is_none_or(|sub| sub.range.covers(range))
    }
}

impl std::fmt::Debug for Seat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Seat({:?})", self.reg)
    }
}
