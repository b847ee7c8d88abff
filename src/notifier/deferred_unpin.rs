//! References on frames that a driver gives up by itself, when it forgets an entry or replaces it.
//!
//! The references are given up after the gate is unlocked. An observer can then ask the driver for
//! its translations, and so find a driver that gave up a reference and kept the translation.

use super::{
    observer::WindowObserver, removed::RemovedEntries, seat::Seat, translation::Translation,
};
use smallvec::SmallVec;

fn unpin(seat: &Seat, translation: &Translation) {
    for pfn in translation.frames() {
        drop(seat.mem.adopt(pfn));
    }
}

/// The references to give up when the gate is unlocked.
pub(super) struct DeferredUnpins<'p> {
    seat: &'p Seat,
    all: SmallVec<[DeferredUnpin; 1]>,
    /// The observer's count of translations handed out, read just before the gate is unlocked.
    handed: u64,
}

struct DeferredUnpin {
    translation: Translation,
    /// Set when no other entry with a reference leads to the frame: no translation to it may be
    /// left.
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
    /// Takes over the references of removed entries.
    ///
    /// `held` returns true if another entry with a reference leads to the frames of a translation.
    /// It is called only if an observer is installed.
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
    /// Notes the observer's count. The gate is unlocked next.
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

/// Gives the references up. The gate has been unlocked: the guard's fields are dropped in order.
impl Drop for DeferredUnpins<'_> {
    #[inline]
    fn drop(&mut self) {
        if !self.all.is_empty() {
            self.unpin_all();
        }
    }
}
