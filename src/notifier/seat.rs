//! A driver's place on the chain, against which its tickets are checked.
//!
//! Tickets of a driver of the whole address space are checked against the board, page by page;
//! those of a driver of a range against the sequence of its subscription. Both kinds of driver use
//! the same tickets and permits.

#[cfg(feature = "testkit")]
use super::test_hook::{self, HookedSpace, Moment};
use super::{
    board::{Board, BoardTicket},
    driver::Invalidation,
    observer::WindowObserver,
    outcome::{Access, Retry},
    registration_phase::RegistrationPhase,
    subscription::Subscription,
    translation::{RegId, RegTag, Translation},
};
use crate::{
    addr::{Vpn, VpnRange},
    frame::PhysMem,
    trace,
};
use std::sync::Arc;

/// The right to make the gate, or the gates, of one registration. It cannot be forged or cloned.
///
/// A registration has one gate, since windows pass only that one. A gate takes the seat:
///
/// ```compile_fail,E0382
/// use emmu::driver::*;
///
/// type Table = Gate<OrderedStore<Vpn>, (), Atomic>;
///
/// fn two_gates(seat: Seat) -> (Table, Table) {
///     let new = |seat| Gate::new(seat, OrderedStore::default(), ());
///     (new(seat), new(seat)) // no window would reach the second
/// }
/// ```
pub struct Seat {
    pub(super) reg: RegId,
    pub(super) tag: RegTag,
    pub(super) board: Arc<Board>,
    pub(super) phase: Arc<RegistrationPhase>,
    pub(super) mem: Arc<PhysMem>,
    pub(super) sub: Option<Arc<Subscription>>,
}

/// The thing that a ticket is checked against.
#[derive(Debug)]
enum SnapshotKind<'s> {
    Board(BoardTicket<'s>),
    Subscription(&'s Subscription, u64),
    /// Nothing: no check succeeds.
    Unplaced,
}

/// The moment at which a ticket was drawn.
#[derive(Debug)]
pub(crate) struct Snapshot<'s> {
    kind: SnapshotKind<'s>,
    /// Set if a window over the page, or over the subscribed range, was open that had begun before
    /// the driver was on the chain, and so did not call it.
    early: bool,
}

impl Snapshot<'_> {
    pub(super) fn is_early(&self) -> bool {
        self.early
    }
}

impl Seat {
    /// Takes a snapshot for a ticket of pages of one block, before anything about them is looked
    /// up.
    pub(crate) fn snapshot(&self, pages: VpnRange) -> Snapshot<'_> {
        // First: only windows that call the driver advance the sequence, so the others must be over
        // before it is read.
        let early = self.is_early(pages);
        let kind = match &self.sub {
            Some(sub) => SnapshotKind::Subscription(sub, sub.snapshot()),
            None => SnapshotKind::Board(self.board.draw(pages)),
        };
        Snapshot { kind, early }
    }
    /// Takes a snapshot that no check accepts, as one that has no place on the board.
    pub(super) fn unplaced(&self, pages: VpnRange) -> Snapshot<'_> {
        Snapshot {
            kind: SnapshotKind::Unplaced,
            early: self.is_early(pages),
        }
    }
    #[inline]
    fn is_early(&self, at: VpnRange) -> bool {
        !self.phase.is_drained() && self.is_early_undrained(at)
    }
    #[cold]
    fn is_early_undrained(&self, at: VpnRange) -> bool {
        if !self.phase.is_listed() {
            return true;
        }
        let over = self.sub.as_ref().map_or(at, |sub| sub.range);
        let busy = self.board.is_busy(over);
        let over_all = self.sub.is_none();
        if !busy && (!over_all || self.board.is_idle()) {
            self.phase.mark_drained();
        }
        busy
    }
    /// Checks that the look-up which followed the snapshot still holds for `range`. The caller
    /// holds the driver's lock.
    pub(super) fn check(&self, range: VpnRange, snapshot: Snapshot<'_>) -> Result<(), Retry> {
        if !self.phase.is_alive() {
            return Err(Retry::Detached);
        }
        match snapshot.kind {
            SnapshotKind::Board(drawn) => drawn.verdict(range).check(),
            SnapshotKind::Subscription(sub, since) => sub.check(since, snapshot.early),
            SnapshotKind::Unplaced => Err(Retry::Stale),
        }
    }
    /// Checks as [`check`](Self::check) does, and keeps the snapshot for another check.
    pub(super) fn look(&self, range: VpnRange, snapshot: &Snapshot<'_>) -> Result<(), Retry> {
        if !self.phase.is_alive() {
            return Err(Retry::Detached);
        }
        match &snapshot.kind {
            SnapshotKind::Board(drawn) => drawn.look(range).check(),
            SnapshotKind::Subscription(sub, since) => sub.check(*since, snapshot.early),
            SnapshotKind::Unplaced => Err(Retry::Stale),
        }
    }
    /// Sleeps until no window overlaps `range`; for a driver of a range, until none overlaps any
    /// page of that.
    pub(crate) fn wait_idle(&self, range: VpnRange) {
        let Some(sub) = &self.sub else {
            return self.board.wait_idle(range);
        };
        if !self.phase.is_drained() {
            self.board.wait_idle(sub.range);
        }
        sub.wait_idle();
    }
    /// Returns the name of the driver; empty until it is registered.
    pub(crate) fn name(&self) -> &'static str {
        self.phase.name()
    }
    /// Returns true if windows over each page of `range` call the driver.
    pub(super) fn covers(&self, range: VpnRange) -> bool {
        self.sub.as_ref().is_none_or(|sub| sub.range.covers(range))
    }
}

impl Seat {
    /// Checks that the demand was made of this registration, at run time: drivers are long-lived
    /// objects behind `dyn`, so no brand can tell their gates apart.
    ///
    /// # Panics
    ///
    /// If the demand was made of another registration.
    #[inline]
    pub(super) fn check_owner(&self, inv: &Invalidation<'_>) {
        let range = inv.range();
        assert_eq!(
            self.reg,
            inv.reg(),
            "gate of another registration: it does not answer for {range}"
        );
    }
}

/// Reports to the observer, if there is one.
impl Seat {
    pub(super) fn tried(&self, at: Vpn) {
        trace::asked(|| self.name(), at);
        self.board.observe(|w| w.tried(self.reg, self.name(), at));
    }
    pub(super) fn got(&self, at: Vpn) {
        self.board.observe(|w| w.got(self.reg, at));
    }
    pub(super) fn handed_out(&self, translation: &Translation) {
        trace::admitted(|| self.name(), translation.range);
        self.board.observe(|w| w.handed_out(translation));
    }
    pub(super) fn established(&self, translation: &Translation) {
        self.board.observe(|w| w.established(translation));
    }
    /// Returns the number of windows that the observer has seen open; 0 without an observer.
    #[inline(always)]
    pub(crate) fn windows_opened(&self) -> u64 {
        let observer = self.board.observer.get();
        observer.map_or(0, |watch| watch.windows_opened())
    }
    /// Reports the use of a translation that was copied when `since` windows had opened.
    #[cold]
    #[inline(never)]
    pub(super) fn report_use(
        &self,
        watch: &dyn WindowObserver,
        (at, access): (Vpn, Access),
        since: u64,
        copy: &Translation,
    ) {
        #[cfg(feature = "testkit")]
        self.reached(Moment::Following(at, access));
        watch.follows(self.phase.name(), (at, access), since, copy);
    }
}

#[cfg(feature = "testkit")]
impl Seat {
    /// Calls the hook of tests.
    #[inline]
    pub(super) fn reached(&self, moment: Moment) {
        test_hook::call(HookedSpace(Arc::as_ptr(&self.board).addr()), moment);
    }
}

impl std::fmt::Debug for Seat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Seat({:?})", self.reg)
    }
}
