//! A change of an object's size that is undone unless it is completed.

use crate::sync::{AtomicU64, Ordering};

/// A size that was changed, and is changed back on drop unless [`done`](Self::done) is called.
///
/// So if the rest of the operation fails or panics, no page beyond the size is mapped: mappings
/// that were removed come back by faults.
#[must_use]
pub(super) struct SizeChange<'s> {
    size: &'s AtomicU64,
    old: u64,
}

impl<'s> SizeChange<'s> {
    /// Changes the size. The caller keeps other threads from changing it.
    pub(super) fn set(size: &'s AtomicU64, new: u64) -> Self {
        let old = size.swap(new, Ordering::AcqRel);
        Self { size, old }
    }
    /// Returns the size before the change.
    pub(super) fn old(&self) -> u64 {
        self.old
    }
    /// Keeps the change.
    pub(super) fn done(self) {
        std::mem::forget(self);
    }
}

impl Drop for SizeChange<'_> {
    fn drop(&mut self) {
        self.size.store(self.old, Ordering::Release);
    }
}
