//! The pages that a reader keeps when it leaves.

use super::{MmapLock, ReadGuard, lane::Lane};
use crate::addr::VpnRange;

/// A range that a reader claims: writers that claim any of it wait until this is dropped.
#[must_use]
pub(in crate::mm) struct SharedClaim<'l, T> {
    lock: &'l MmapLock<T>,
    lane: &'l Lane,
    range: VpnRange,
}

impl<T> MmapLock<T> {
    /// Keeps writers off `range` until the claim is dropped, also after the guard is.
    ///
    /// # Panics
    ///
    /// If the guard is another lock's.
    pub(in crate::mm) fn claim_shared(
        &self,
        held: &ReadGuard<'_, T>,
        range: VpnRange,
    ) -> SharedClaim<'_, T> {
        // The lane in which the reader is counted, whichever thread this is: a writer that finds no
        // reader there looks for claims once.
        let mut lanes = self.lanes.iter();
        let lane = lanes.find(|lane| std::ptr::eq(*lane, held.lane));
        let lane = lane.expect("a guard of this lock");
        lane.claim(range);
        SharedClaim {
            lock: self,
            lane,
            range,
        }
    }
}

impl<T> Drop for SharedClaim<'_, T> {
    fn drop(&mut self) {
        self.lane.unclaim(self.range);
        self.lock.changes.note();
    }
}
