//! Whom a window asks: those who subscribed to a range that it overlaps, then those of the whole address space.
//!
//! Each subscription counts the window, since windows elsewhere must not hold up its end. Of the others the window keeps
//! those it met on the chain, and writes to none of them: windows on different processors share no line there.

use super::{
    board::Board,
    driver_entry::{DriverEntry, Visit, Visits},
    epoch_list::{Collected, EpochList},
};
use std::{cell::Cell, sync::Arc};

/// The drivers of a whole address space.
pub(super) type DriverList = EpochList<Arc<DriverEntry>, CallState, Arc<Board>>;

type CollectedDrivers<'w> = Collected<'w, Arc<DriverEntry>, CallState, Arc<Board>>;

/// How far a window has come.
#[derive(Default)]
pub(super) struct CallState {
    /// What an oracle knows it by.
    id: u64,
    subs: Visits,
    /// So many, the first ones, were asked and did not refuse: they are told the end.
    agreed: Cell<usize>,
    /// Nobody refused.
    open: bool,
}

/// Until this is dropped, nobody of those in it is gone.
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
    /// `subscribed` adds those who subscribed.
    #[inline]
    pub(super) fn new(
        mut call: CollectedDrivers<'w>,
        id: u64,
        subscribed: impl FnOnce(&mut Visits),
    ) -> Self {
        let progress = call.local_mut();
        debug_assert!(progress.subs.is_empty(), "a window left them");
        progress.id = id;
        progress.agreed.set(0);
        progress.open = false;
        subscribed(&mut progress.subs);
        Self(call)
    }
    /// Where the window is written.
    #[inline]
    pub(super) fn board(&self) -> &Board {
        self.0.shared()
    }
    /// Nobody refused.
    #[inline]
    pub(super) fn opened(&mut self) {
        self.0.local_mut().open = true;
    }
    /// What an oracle knows the window by, and whether nobody refused.
    #[inline]
    pub(super) fn state(&self) -> (u64, bool) {
        let progress = self.0.local();
        (progress.id, progress.open)
    }
    /// Whom the window asks, in that order.
    #[inline]
    pub(super) fn entries(&self) -> impl Iterator<Item = &DriverEntry> {
        let subs = self.0.local().subs.iter().map(Visit::entry);
        subs.chain(self.0.values().map(|entry| &**entry))
    }
    /// One more has agreed.
    #[inline]
    pub(super) fn agrees(&self) {
        let agreed = &self.0.local().agreed;
        agreed.set(agreed.get() + 1);
    }
    /// Lets go who is not to be told the end, and has the sequences of the others go on.
    #[inline]
    pub(super) fn close(&mut self) {
        let progress = self.0.local_mut();
        let agreed = progress.agreed.get();
        if !progress.subs.is_empty() {
            progress.subs.truncate(agreed);
            // All sequences first: who is told of an end finds no window open.
            progress.subs.iter_mut().for_each(Visit::close_window);
        }
    }
    /// Who is told the end, once the window is [closed](Self::close): the last one asked first.
    #[inline]
    pub(super) fn told(&self) -> impl Iterator<Item = &DriverEntry> {
        let progress = self.0.local();
        let subs = progress.subs.len();
        let of_all = self.0.values().take(progress.agreed.get() - subs).rev();
        let of_all = of_all.map(|entry| &**entry);
        of_all.chain(progress.subs.iter().rev().map(Visit::entry))
    }
}
