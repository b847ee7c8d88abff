//! Fault injection: allocations fail on purpose, so that tests can show that a failure loses
//! nothing.

use crate::sync::{AtomicBool, AtomicU64, Ordering};
use thiserror::Error;

/// The kind of an allocation that can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AllocKind {
    /// A frame of physical memory.
    Frame,
    /// A page-table page.
    Table,
    /// A VMA.
    Vma,
    /// A node of the anonymous reverse map.
    AnonVma,
    /// A memory object.
    Object,
}

/// The error of an allocation that was made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the allocation of a {0:?} was made to fail")]
pub struct Injected(pub AllocKind);

/// Makes a chosen allocation of a machine fail. Switched off, it costs each allocation one load.
#[derive(Debug, Default)]
pub struct Inject {
    on: AtomicBool,
    /// The number of allocations since [`arm`](Self::arm) or [`watch`](Self::watch).
    asked: AtomicU64,
    /// The number of the allocation to fail; 0: none.
    nth: AtomicU64,
}

impl Inject {
    /// Makes the `nth` allocation from now (1 is the next) fail, once.
    pub fn arm(&self, nth: u64) {
        self.asked.store(0, Ordering::Relaxed);
        self.nth.store(nth, Ordering::Relaxed);
        self.on.store(true, Ordering::Release);
    }
    /// Counts allocations without failing any.
    pub fn watch(&self) {
        self.arm(0);
    }
    /// Ends counting and failing.
    pub fn disarm(&self) {
        self.on.store(false, Ordering::Release);
    }
    /// Returns the number of allocations since [`arm`](Self::arm) or [`watch`](Self::watch).
    pub fn count(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }
    /// Returns true while allocations are counted or made to fail.
    pub(crate) fn is_on(&self) -> bool {
        self.on.load(Ordering::Acquire)
    }
    /// Counts an allocation that is about to be made.
    ///
    /// # Errors
    ///
    /// [`Injected`] if it was chosen to fail.
    pub(crate) fn check(&self, kind: AllocKind) -> Result<(), Injected> {
        if !self.is_on() {
            return Ok(());
        }
        let this = self.asked.fetch_add(1, Ordering::Relaxed) + 1;
        if this == self.nth.load(Ordering::Relaxed) {
            Err(Injected(kind))
        } else {
            Ok(())
        }
    }
}
