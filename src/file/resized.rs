//! A change of an object's size that may yet fail.

use crate::sync::{AtomicU64, Ordering};

/// The size is another; the old one again unless what goes with it is [`done`](Self::done). So whatever fails, or panics, no
/// page beyond the size is mapped: a mapping that went is made again by a fault.
#[must_use]
pub(super) struct Resized<'s> {
    size: &'s AtomicU64,
    old: u64,
}

impl<'s> Resized<'s> {
    /// The caller keeps others from changing it.
    pub(super) fn set(size: &'s AtomicU64, new: u64) -> Self {
        let old = size.swap(new, Ordering::AcqRel);
        Self { size, old }
    }
    /// What it was.
    pub(super) fn old(&self) -> u64 {
        self.old
    }
    pub(super) fn done(self) {
        std::mem::forget(self);
    }
}

impl Drop for Resized<'_> {
    fn drop(&mut self) {
        self.size.store(self.old, Ordering::Release);
    }
}
