//! Places where threads wait for the lock of a frame.

use crate::{
    addr::Pfn,
    sync::{Condvar, Mutex},
};

/// The number of places; frames share them by number.
const BUCKETS: usize = 64;

/// A mutex and a condition variable per bucket of frames.
#[derive(Debug)]
pub(super) struct Waiters([(Mutex<()>, Condvar); BUCKETS]);

impl Default for Waiters {
    fn default() -> Self {
        Self(std::array::from_fn(|_| (Mutex::default(), Condvar::new())))
    }
}

impl Waiters {
    /// Returns the place of a frame.
    pub(super) fn of(&self, pfn: Pfn) -> &(Mutex<()>, Condvar) {
        &self.0[pfn.0 as usize % BUCKETS]
    }
}
