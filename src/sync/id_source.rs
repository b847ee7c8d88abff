//! Numbers that are given out once.

use std::sync::atomic::{AtomicU64, Ordering};

/// A source of ascending numbers, each given out once in its life; on a line of its own.
///
/// Model checkers do not see it: in every order of threads the numbers differ, and nothing else may
/// depend on them.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct IdSource(AtomicU64);

impl IdSource {
    pub(crate) const fn starting_at(first: u64) -> Self {
        Self(AtomicU64::new(first))
    }
    pub(crate) fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}
