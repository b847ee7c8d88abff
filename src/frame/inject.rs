//! Failing an allocation on purpose, to see that nothing is lost by it.

use crate::sync::{AtomicBool, AtomicU64, Ordering};
use thiserror::Error;

/// What is being allocated.
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

/// The allocation was made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the allocation of a {0:?} was made to fail")]
pub struct Injected(pub AllocKind);

/// Makes a chosen allocation of a machine fail. Switched off, it costs one load.
#[derive(Debug, Default)]
pub struct Inject {
    on: AtomicBool,
    /// Allocations asked for since [`arm`](Self::arm) or [`watch`](Self::watch).
    asked: AtomicU64,
    /// Number of the one to fail; 0: none.
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
    /// Lets everything succeed again.
    pub fn disarm(&self) {
        self.on.store(false, Ordering::Release);
    }
    /// Allocations asked for since [`arm`](Self::arm) or [`watch`](Self::watch).
    pub fn count(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }
    /// Whether allocations are counted or made to fail.
    pub(crate) fn is_on(&self) -> bool {
        self.on.load(Ordering::Acquire)
    }
    /// To be asked before each allocation.
    ///
    /// # Errors
    ///
    /// [`Injected`] for the one that was chosen.
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
