//! The drivers that one window calls: those with a subscription that the window overlaps, and then
//! those of the whole address space.
//!
//! Each subscription counts the window, because windows elsewhere must not delay the end of a wait
//! for it. Drivers of the whole address space are not written to: the window keeps the entries that
//! it found on the chain, so windows on different processors share no cache line there
//! (docs/adr/0020-windows-write-to-no-driver.md).

use super::{
    board::Board,
    driver_entry::{DriverEntry, Visit, Visits},
    epoch_list::{Collected, EpochList},
};
use crate::addr::VpnRange;
use std::{cell::Cell, sync::Arc};

/// The list of the drivers of a whole address space.
pub(super) type DriverList = EpochList<Arc<DriverEntry>, CallState, Arc<Board>>;

type CollectedDrivers<'w> = Collected<'w, Arc<DriverEntry>, CallState, Arc<Board>>;

/// The progress of one window through its callees.
#[derive(Default)]
pub(super) struct CallState {
    /// The number by which an observer knows the window.
    id: u64,
    subs: Visits,
    /// The number of callees, the first ones, that acknowledged the window. They are notified of
    /// its end.
    agreed: Cell<usize>,
    /// Set when every callee has acknowledged the window.
    open: bool,
    /// The buckets of the board that the window is in; `None` if it is wide.
    buckets: Option<u64>,
}

/// The drivers that a window calls. None of them is released before this is dropped.
pub(super) struct Callees<'w>(CollectedDrivers<'w>);

impl Drop for Callees<'_> {
    #[inline]
    fn drop(&mut self) {
        let subs = &mut self.0.local_mut().subs;
        if !subs.is_empty() {
            subs.clear();
        }
    }
}

impl<'w> Callees<'w> {
    /// Makes the list of a window with number `id` that is in these buckets of the board;
    /// `subscribed` adds the visits to subscriptions.
    #[inline]
    pub(super) fn new(
        mut call: CollectedDrivers<'w>,
        (id, buckets): (u64, Option<u64>),
        subscribed: impl FnOnce(&mut Visits),
    ) -> Self {
        let progress = call.local_mut();
        debug_assert!(progress.subs.is_empty(), "a window left them");
        progress.id = id;
        progress.agreed.set(0);
        progress.open = false;
        progress.buckets = buckets;
        subscribed(&mut progress.subs);
        Self(call)
    }
    /// Returns the board that the window is written on.
    #[inline]
    pub(super) fn board(&self) -> &Board {
        self.0.shared()
    }
    /// Records that every callee has acknowledged the window.
    #[inline]
    pub(super) fn opened(&mut self) {
        self.0.local_mut().open = true;
    }
    /// Returns the number of the window, and true if every callee acknowledged it.
    #[inline]
    pub(super) fn state(&self) -> (u64, bool) {
        let progress = self.0.local();
        (progress.id, progress.open)
    }
    /// Returns the callees in the order in which the window calls them.
    #[inline]
    pub(super) fn entries(&self) -> impl Iterator<Item = &DriverEntry> {
        let subs = self.0.local().subs.iter().map(Visit::entry);
        subs.chain(self.0.values().map(|entry| &**entry))
    }
    /// Records that one more callee has acknowledged the window.
    #[inline]
    pub(super) fn agrees(&self) {
        let agreed = &self.0.local().agreed;
        agreed.set(agreed.get() + 1);
    }
    /// Takes the window from the board.
    #[inline]
    pub(super) fn leave_board(&self, range: VpnRange) {
        self.board().end_in(range, self.0.local().buckets);
    }
    /// Ends the visits of callees that did not acknowledge, and advances the sequences of the
    /// subscriptions that did.
    #[inline(always)]
    pub(super) fn close(&mut self) {
        if !self.0.local().subs.is_empty() {
            self.close_subscriptions();
        }
    }
    #[inline(never)]
    fn close_subscriptions(&mut self) {
        let progress = self.0.local_mut();
        progress.subs.truncate(progress.agreed.get());
        // Every sequence advances before any callee is notified: a driver that hears of the end
        // finds no window open.
        progress.subs.iter_mut().for_each(Visit::close_window);
    }
    /// Returns the callees to notify of the end, the last one called first: those of all windows,
    /// then those of their ranges. The window is [closed](Self::close) before.
    #[inline]
    pub(super) fn to_notify(
        &self,
    ) -> (
        impl Iterator<Item = &DriverEntry>,
        impl Iterator<Item = &DriverEntry>,
    ) {
        let progress = self.0.local();
        let subs = progress.subs.len();
        let of_all = self.0.values().take(progress.agreed.get() - subs).rev();
        let of_ranges = progress.subs.iter().rev().map(Visit::entry);
        (of_all.map(|entry| &**entry), of_ranges)
    }
}
