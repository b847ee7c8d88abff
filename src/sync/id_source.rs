//! Numbers that are given out once.

use std::sync::atomic::{AtomicU64, Ordering};

/// Gives out ascending numbers, each once in the life of the process. Model checkers do not look at it: whoever draws
/// first, the numbers differ, and nothing else may depend on them.
#[derive(Debug)]
pub(crate) struct IdSource(AtomicU64);

impl IdSource {
    pub(crate) const fn starting_at(first: u64) -> Self {
        Self(AtomicU64::new(first))
    }
    pub(crate) fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}
