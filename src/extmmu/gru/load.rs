//! Loading and unloading of contexts: a context is loaded when it is used, and unloaded when
//! another one needs its slot.

use super::{chip::Loaded, context::GruContext};
use smallvec::SmallVec;
use std::sync::Arc;

impl GruContext {
    /// Makes sure that the context is loaded (`gru_load_context`).
    #[cold]
    #[inline(never)]
    pub(super) fn load(&self) {
        // Trackers before the chip, the order in which a purge acquires them.
        let mut trackers = self.space.trackers.lock();
        let mut chip = self.gru.lock();
        if chip.slot_of(self.id).is_some() {
            return;
        }
        let (slot, stolen) = chip.free_slot();
        if let Some(stolen) = stolen {
            if stolen.trackers.as_ptr() == Arc::as_ptr(&self.space.trackers) {
                trackers[self.chip].loaded -= 1;
            } else if !steal(&stolen) {
                chip.slots[slot] = Some(stolen);
                return;
            }
        }
        let tracker = &mut trackers[self.chip];
        let current = tracker.loaded > 0 || tracker.generation == chip.asids.generation();
        if tracker.asid == 0 || !current {
            tracker.asid = chip.new_asid();
            tracker.generation = chip.asids.generation();
        }
        tracker.loaded += 1;
        chip.slots[slot] = Some(Loaded {
            context: self.id,
            trackers: Arc::downgrade(&self.space.trackers),
            nth: self.chip,
            asid: tracker.asid,
            armed: SmallVec::new(),
        });
    }
    /// Unloads the context; its next instruction loads it again (`gru_unload_context`).
    pub fn unload(&self) {
        let mut trackers = self.space.trackers.lock();
        let mut chip = self.gru.lock();
        let mine = |l: &Option<Loaded>| l.as_ref().is_some_and(|l| l.context == self.id);
        if let Some(slot) = chip.slots.iter().position(mine) {
            chip.slots[slot] = None;
            trackers[self.chip].loaded -= 1;
        }
    }
}

impl Drop for GruContext {
    fn drop(&mut self) {
        self.unload();
    }
}

/// Counts a context of another address space as unloaded.
///
/// Returns false if the trackers of that address space are locked: with a chip locked, the thread
/// must not wait for them, and takes another slot the next time.
fn steal(stolen: &Loaded) -> bool {
    let Some(trackers) = stolen.trackers.upgrade() else {
        return true;
    };
    let Some(mut trackers) = trackers.try_lock() else {
        return false;
    };
    trackers[stolen.nth].loaded -= 1;
    true
}
