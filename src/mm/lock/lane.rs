//! A lane: the readers of a group of threads, and the ranges that they pinned.

use super::claim::overlap;
use crate::{
    addr::VpnRange,
    sync::{AtomicUsize, Mutex, Ordering::SeqCst},
};

/// The part of the lock that the readers of some threads write to: cache lines of its own.
#[derive(Default)]
pub(super) struct Lane {
    /// How many readers are counted in.
    pub(super) readers: AtomicUsize,
    /// Length of `pins`, read without their lock.
    pinned: AtomicUsize,
    pins: Mutex<Vec<VpnRange>>,
}

impl Lane {
    /// Pins a range for a reader that is counted in.
    pub(super) fn pin(&self, range: VpnRange) {
        let mut pins = self.pins.lock();
        pins.push(range);
        self.pinned.fetch_add(1, SeqCst);
        drop(pins);
    }
    /// Removes a pin of `range`.
    pub(super) fn unpin(&self, range: VpnRange) {
        let mut pins = self.pins.lock();
        let at = pins.iter().position(|pinned| *pinned == range);
        pins.swap_remove(at.expect("pinned until now"));
        self.pinned.fetch_sub(1, SeqCst);
        drop(pins);
    }
    /// Returns true if any range is pinned.
    pub(super) fn is_pinned(&self) -> bool {
        self.pinned.load(SeqCst) != 0
    }
    /// Returns true if a pinned range overlaps one of `pages`.
    pub(super) fn has_pin_in(&self, pages: &[VpnRange]) -> bool {
        self.is_pinned() && overlap(self.pins.lock().as_slice(), pages)
    }
}
