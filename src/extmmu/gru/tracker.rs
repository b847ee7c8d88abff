//! What an address space knows of each GRU that it works on.

use crate::sync::{Mutex, MutexGuard};

/// What is known of the address space on one GRU.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tracker {
    /// 0: none, or given up.
    pub(super) asid: u32,
    pub(super) generation: u32,
    /// Contexts loaded there.
    pub(super) loaded: u32,
}

/// The trackers of one address space, by GRU. Taken before the lock of a chip, but for a try.
#[derive(Debug)]
pub(super) struct Trackers(Mutex<Vec<Tracker>>);

impl Trackers {
    pub(super) fn of(grus: usize) -> Self {
        Self(Mutex::new(vec![Tracker::default(); grus]))
    }
    pub(super) fn lock(&self) -> MutexGuard<'_, Vec<Tracker>> {
        self.0.lock()
    }
    pub(super) fn try_lock(&self) -> Option<MutexGuard<'_, Vec<Tracker>>> {
        self.0.try_lock()
    }
}
