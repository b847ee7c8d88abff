//! References of entries that a driver gives up of its own accord, as it forgets one or puts another in its place.
//!
//! They go when its gate is not held any more: then whoever looks on can ask the driver what it still translates, and finds
//! out one that gave up a reference and kept the translation.

use super::{
    observer::WindowObserver, removed::RemovedEntries, seat::Seat, translation::Translation,
};
use smallvec::SmallVec;

fn unpin(seat: &Seat, translation: &Translation) {
    for pfn in translation.frames() {
        drop(seat.mem.adopt(pfn));
    }
}

/// What a driver gives up of its own accord while it holds its gate.
pub(super) struct DeferredUnpins<'p> {
    seat: &'p Seat,
    all: SmallVec<[DeferredUnpin; 1]>,
    /// What had been handed out when the gate was let go.
    handed: u64,
}

struct DeferredUnpin {
    translation: Translation,
    /// No other entry with a reference leads to the frame: nothing may translate to it any more.
    last: bool,
}

impl<'p> DeferredUnpins<'p> {
    pub(super) fn new(seat: &'p Seat) -> Self {
        Self {
            seat,
            all: SmallVec::new(),
            handed: 0,
        }
    }
    /// Entries that went. `held` says whether another entry with a reference leads where that one does; asked if somebody
    /// looks on.
    #[inline]
    pub(super) fn take(
        &mut self,
        gone: &mut RemovedEntries,
        mut held: impl FnMut(&Translation) -> bool,
    ) {
        for entry in gone.entries_mut().iter_mut().filter(|e| e.is_pinned()) {
            entry.take_reference();
            let translation = entry.translation();
            let watched = self.seat.board.observer.get().is_some();
            let last = watched && !held(&translation);
            self.all.push(DeferredUnpin { translation, last });
        }
    }
    /// The gate is about to be let go.
    #[inline]
    pub(super) fn close(&mut self) {
        if !self.all.is_empty() {
            let handed = |w: &dyn WindowObserver| self.handed = w.handed();
            self.seat.board.observe(handed);
        }
    }
    #[cold]
    fn unpin_all(&self) {
        let last = self.all.iter().filter(|one| one.last);
        let last: SmallVec<[Translation; 1]> = last.map(|one| one.translation).collect();
        let seat = self.seat;
        seat.board
            .observe(|w| w.given_up(seat.reg, &last, self.handed));
        self.all
            .iter()
            .for_each(|one| unpin(seat, &one.translation));
    }
}

/// The gate was let go.
impl Drop for DeferredUnpins<'_> {
    #[inline]
    fn drop(&mut self) {
        if !self.all.is_empty() {
            self.unpin_all();
        }
    }
}
