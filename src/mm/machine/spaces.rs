//! The address spaces of a machine, for operations of the kernel on all of them.

use crate::{ctx::CallCx, error::NoMemory, sync::Mutex};
use std::{
    fmt,
    sync::{Arc, Weak},
};

/// An address space, as operations on all address spaces of a machine use it.
pub(in crate::mm) trait Space: Send + Sync {
    /// Makes every page in swap present again; see [`Machine::swapoff`](super::Machine::swapoff).
    fn bring_back(&self, cx: &mut CallCx<'_>) -> Result<(), NoMemory>;
    /// Makes huge pages of small ones, and returns how many; see
    /// [`Machine::khugepaged`](super::Machine::khugepaged).
    fn collapse_all(&self, cx: &mut CallCx<'_>) -> usize;
}

/// The address spaces of a machine that still exist, in the order in which they were made.
#[derive(Default)]
pub(in crate::mm) struct Spaces(Mutex<Vec<Weak<dyn Space>>>);

impl Spaces {
    /// Adds a new address space.
    pub(in crate::mm) fn add(&self, space: Weak<dyn Space>) {
        let mut spaces = self.0.lock();
        if spaces.len() == spaces.capacity() {
            spaces.retain(|space| space.strong_count() > 0);
        }
        spaces.push(space);
    }
    /// Returns the address spaces. The lock is free when the caller drops the last handle of one.
    pub(in crate::mm) fn all(&self) -> Vec<Arc<dyn Space>> {
        let spaces = self.0.lock();
        spaces.iter().filter_map(Weak::upgrade).collect()
    }
}

impl fmt::Debug for Spaces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().finish_non_exhaustive()
    }
}
