//! The state of an address space on each GRU that it works on.
//!
//! A chip unloads contexts of other address spaces, and so must count in their trackers. It keeps
//! no more of an address space than these.

use crate::sync::{Mutex, MutexGuard};

/// The state of the address space on one GRU.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tracker {
    /// The identifier; 0 if there is none, or it was given up.
    pub(super) asid: u32,
    pub(super) generation: u32,
    /// The number of contexts that are loaded there.
    pub(super) loaded: u32,
}

/// The trackers of one address space, by GRU. Acquired before the lock of a chip; with a chip
/// locked, they may only be tried.
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
