//! Owners by number, so that a frame can name its owner in a few bits.
//!
//! A number outlives its owner only in frames that nothing maps any more. A look-up by it then
//! finds no owner, or a later one whose VMAs do not map the frame. A walk checks each entry for the
//! frame, so neither does harm.

use super::{
    exported::{ExportOrder, Exports},
    owner::FrameOwner,
};
use crate::{
    frame::{MAX_ID, OwnerId},
    sync::Mutex,
};
use std::sync::{Arc, Weak};

/// The owners of a machine, and the drivers that are notified by frame.
#[derive(Default)]
pub(crate) struct Registry {
    slots: Mutex<OwnerSlots>,
    pub(crate) exports: Exports,
}

#[derive(Default)]
struct OwnerSlots {
    owners: Vec<Option<Weak<dyn FrameOwner>>>,
    free: Vec<u32>,
}

impl Registry {
    pub(crate) fn new(order: ExportOrder) -> Self {
        Self {
            slots: Mutex::default(),
            exports: Exports::new(order),
        }
    }
    /// Returns a number for an owner, which names it until [`remove`](Self::remove).
    ///
    /// # Panics
    ///
    /// With more than 2^28 owners at once.
    pub(super) fn add(&self, owner: Weak<dyn FrameOwner>) -> OwnerId {
        let mut slots = self.slots.lock();
        if let Some(i) = slots.free.pop() {
            slots.owners[i as usize] = Some(owner);
            return OwnerId(i + 1);
        }
        slots.owners.push(Some(owner));
        let id = u32::try_from(slots.owners.len()).unwrap_or(u32::MAX);
        assert!(id <= MAX_ID, "more than {MAX_ID} owners of frames");
        OwnerId(id)
    }
    pub(super) fn remove(&self, id: OwnerId) {
        let mut slots = self.slots.lock();
        // Dropped after the lock. The handle is weak, but nothing needs to happen under the lock.
        let _old = slots.owners[id.0 as usize - 1].take();
        slots.free.push(id.0 - 1);
    }
    /// Returns all owners.
    pub(crate) fn all(&self) -> Vec<Arc<dyn FrameOwner>> {
        let owners = self.slots.lock().owners.clone();
        owners.iter().flatten().filter_map(Weak::upgrade).collect()
    }
    /// Returns the owner with a number; `None` if it is gone.
    pub(crate) fn find(&self, id: OwnerId) -> Option<Arc<dyn FrameOwner>> {
        let owner = self.slots.lock().owners.get(id.0 as usize - 1).cloned()?;
        // The lock is free here, so the caller may drop the last reference.
        owner?.upgrade()
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").finish_non_exhaustive()
    }
}
