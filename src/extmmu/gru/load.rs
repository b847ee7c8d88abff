//! Contexts come onto a GRU when they are used, and go when others want their place.

use super::{chip::Loaded, context::GruContext};
use smallvec::SmallVec;
use std::sync::Arc;

impl GruContext {
    /// Makes sure that the context is loaded (`gru_load_context`).
    #[cold]
    #[inline(never)]
    pub(super) fn load(&self) {
        // Trackers before the chip, as a purge takes them.
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
    /// Takes it off the GRU; it is loaded again when it is used (`gru_unload_context`).
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

/// Takes a context of another address space into account as unloaded. `false`: that one's tracker is being used, and
/// cannot be waited for with a chip locked; somebody else is chosen next time.
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
