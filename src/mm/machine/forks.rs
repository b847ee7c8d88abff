//! How a fork treats page tables, and the registry of the address spaces whose frame counts are
//! behind.
//!
//! A fork that shares leaf tables counts nothing: the counts of the frames in a shared leaf include
//! the new sharers only after a sharer has unshared the leaf, or after
//! [`Machine::settle_counts`](super::Machine::settle_counts), which asks every registered space
//! (`docs/adr/0014-a-shared-table-is-marked-in-its-slots.md`).

use crate::{
    ctx::CallCx,
    sync::{AtomicBool, Mutex, Ordering},
};
use std::{fmt, sync::Weak};

/// How a fork treats page tables. Results, windows and entries are the same in both modes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum ForkMode {
    /// Copies the tables, as Linux does: the cost grows with the number of pages.
    #[default]
    Copy,
    /// Shares the tables of private anonymous memory, 2 MiB each, until parent or child accesses or
    /// changes that memory and copies that table ("On-demand-fork", EuroSys 2021).
    ///
    /// The cost grows with the number of tables. In exchange a later fault or move that needs a
    /// table of its own may fail for want of memory.
    Share,
}

/// An address space that may share leaf tables with others.
pub(in crate::mm) trait SharesLeaves: Send + Sync {
    /// Makes the counts of the frames in its shared leaves those of a fork that copied.
    fn settle_leaves(&self, cx: &mut CallCx<'_>);
}

/// Address spaces that may have leaves whose frames are counted for too few sharers; each is
/// registered once.
#[derive(Default)]
pub(in crate::mm) struct ForkRegistry(Mutex<Vec<Weak<dyn SharesLeaves>>>);

/// Membership of one address space in the registry of its machine.
pub(in crate::mm) struct ForkMember {
    space: Weak<dyn SharesLeaves>,
    is_registered: AtomicBool,
}

impl ForkMember {
    pub(in crate::mm) fn new(space: Weak<dyn SharesLeaves>) -> Self {
        Self {
            space,
            is_registered: AtomicBool::new(false),
        }
    }
    /// Notes that the registry no longer has the space: its leaves are about to be settled.
    pub(in crate::mm) fn unregister(&self) {
        self.is_registered.store(false, Ordering::Relaxed);
    }
}

impl ForkRegistry {
    /// Registers an address space, unless it is registered already.
    pub(in crate::mm) fn register(&self, member: &ForkMember) {
        if member.is_registered.swap(true, Ordering::Relaxed) {
            return;
        }
        let mut spaces = self.0.lock();
        if spaces.len() == spaces.capacity() {
            spaces.retain(|space| space.strong_count() > 0);
        }
        spaces.push(Weak::clone(&member.space));
    }
    /// Takes every address space out.
    pub(in crate::mm) fn take_all(&self) -> Vec<Weak<dyn SharesLeaves>> {
        std::mem::take(&mut *self.0.lock())
    }
}

impl fmt::Debug for ForkRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().finish_non_exhaustive()
    }
}
