//! Places to wait for the lock of a frame.

use crate::{
    addr::Pfn,
    sync::{Condvar, Mutex},
};

const BUCKETS: usize = 64;

/// Where threads wait, by frame.
#[derive(Debug)]
pub(super) struct Waiters([(Mutex<()>, Condvar); BUCKETS]);

impl Default for Waiters {
    fn default() -> Self {
        Self(std::array::from_fn(|_| (Mutex::default(), Condvar::new())))
    }
}

impl Waiters {
    pub(super) fn of(&self, pfn: Pfn) -> &(Mutex<()>, Condvar) {
        &self.0[pfn.0 as usize % BUCKETS]
    }
}
