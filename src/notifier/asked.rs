//! Whom a window asks: those who subscribed to a range that it overlaps, then those of the whole address space.
//!
//! Each subscription counts the window, since windows elsewhere must not hold up its end. Of the others the window keeps
//! those it met on the chain, and writes to none of them: windows on different processors share no line there.

use super::{
    board::Board,
    entry::{Entry, Visit, Visits},
    epoch_list::{Calling, EpochList},
};
use std::{cell::Cell, sync::Arc};

/// The drivers of a whole address space.
pub(super) type List = EpochList<Arc<Entry>, Progress, Arc<Board>>;

type Met<'w> = Calling<'w, Arc<Entry>, Progress, Arc<Board>>;

/// How far a window has come.
#[derive(Default)]
pub(super) struct Progress {
    /// What an oracle knows it by.
    id: u64,
    subs: Visits,
    /// So many, the first ones, were asked and did not refuse: they are told the end.
    agreed: Cell<usize>,
    /// Nobody refused.
    open: bool,
}

/// Until this is dropped, nobody of those in it is gone.
pub(super) struct Asked<'w>(Met<'w>);

impl<'w> Asked<'w> {
    /// `subscribed` adds those who subscribed.
    #[inline]
    pub(super) fn new(mut call: Met<'w>, id: u64, subscribed: impl FnOnce(&mut Visits)) -> Self {
        let progress = call.own_mut();
        progress.id = id;
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
        self.0.own_mut().open = true;
    }
    /// What an oracle knows the window by, and whether nobody refused.
    #[inline]
    pub(super) fn state(&self) -> (u64, bool) {
        let progress = self.0.own();
        (progress.id, progress.open)
    }
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.0.own().subs.len() + self.0.len()
    }
    #[inline]
    pub(super) fn nth(&self, n: usize) -> &Entry {
        let subs = &self.0.own().subs;
        match subs.get(n) {
            Some(visit) => visit.entry(),
            None => self.0.nth(n - subs.len()),
        }
    }
    /// One more has agreed.
    #[inline]
    pub(super) fn agrees(&self) {
        let agreed = &self.0.own().agreed;
        agreed.set(agreed.get() + 1);
    }
    /// Lets go who is not to be told the end, and has the sequences of the others go on. The rest is told by `tell`, the
    /// last one asked first.
    #[inline]
    pub(super) fn end(&mut self, mut tell: impl FnMut(&Entry)) {
        let progress = self.0.own_mut();
        let agreed = progress.agreed.get();
        progress.subs.truncate(agreed);
        // All sequences first: who is told of an end finds no window open.
        progress.subs.iter_mut().for_each(Visit::close_window);
        (0..agreed).rev().for_each(|n| tell(self.nth(n)));
    }
}
