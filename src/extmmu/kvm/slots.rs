//! Changes of memory slots, and the dirty log.

use super::{
    memslot::{Gfn, MemSlot, MemSlots, SlotError, SlotFlags},
    shadow::ShadowPages,
    vm::{State, Vm},
};
use crate::{
    addr::VpnRange,
    ctx::CallCx,
    notifier::{Rearrange, RemovedEntries},
    sync::Ordering,
};
use std::sync::Arc;

/// A new set of memory slots, and the guest frames whose entries go for it: the first, and their
/// number.
///
/// Only [`Vm::set_memory`] and [`Vm::delete_memory`] create one.
#[derive(Clone, Debug)]
pub struct NewSlots {
    slots: Arc<MemSlots>,
    gone: Option<(Gfn, u64)>,
}

impl Rearrange for ShadowPages {
    type How = NewSlots;
    fn rearrange(&mut self, new: NewSlots, gone: &mut RemovedEntries) {
        if let Some((first, pages)) = new.gone {
            self.take_gfns(first, Gfn(first.0 + pages), gone);
        }
        self.slots = new.slots;
    }
}

impl Vm {
    /// Adds a slot, moves it to other guest frames, or changes its flags
    /// (`KVM_SET_USER_MEMORY_REGION`).
    ///
    /// Waits until no window is open: the end of a window must find the slots that its beginning
    /// found.
    ///
    /// # Errors
    ///
    /// [`SlotError`]; nothing has changed then.
    pub fn set_memory(&self, cx: &mut CallCx<'_>, slot: MemSlot) -> Result<(), SlotError> {
        self.replace_slots(cx, slot.id, |slots| slots.with(slot))
    }
    /// Deletes a slot, as soon as no window is open.
    ///
    /// # Errors
    ///
    /// [`SlotError::Missing`].
    pub fn delete_memory(&self, cx: &mut CallCx<'_>, id: u16) -> Result<(), SlotError> {
        self.replace_slots(cx, id, |slots| slots.without(id))
    }
    /// Returns the slots now.
    pub fn slots(&self) -> Arc<MemSlots> {
        self.current()
    }
    fn replace_slots(
        &self,
        cx: &mut CallCx<'_>,
        id: u16,
        change: impl FnOnce(&MemSlots) -> Result<Arc<MemSlots>, SlotError>,
    ) -> Result<(), SlotError> {
        self.active.while_none(|| {
            let old = self.current();
            let new = change(&old)?;
            // A fault that looks now finds the new slots, and tries again at gates that do not have
            // them yet.
            *self.slots.lock() = Arc::clone(&new);
            self.generation.store(new.generation(), Ordering::Release);
            if let Some(slot) = old.by_id(id) {
                self.invalidate_caches(slot.hvas());
            }
            let changed = NewSlots {
                slots: new,
                gone: old.by_id(id).map(|slot| (slot.gfn, slot.pages)),
            };
            self.gates.each(cx, VpnRange::ALL, |_, gate| {
                gate.rearrange(changed.clone(), |state| {
                    state.flush();
                    state.log.retain(|(slot, _)| *slot != id);
                });
            });
            Ok(())
        })
    }
    /// Returns the pages of a slot that the guest has written since the last call, ascending,
    /// counted from the first of the slot (`KVM_GET_DIRTY_LOG`).
    ///
    /// The pages are write-protected, so the next store to one faults, and logs it again.
    ///
    /// # Errors
    ///
    /// [`SlotError::Missing`]: the slot does not exist, or does not log.
    pub fn dirty_log(&self, cx: &mut CallCx<'_>, id: u16) -> Result<Vec<u64>, SlotError> {
        let slots = self.current();
        let logs = |s: &&MemSlot| s.flags.contains(SlotFlags::LOG_DIRTY_PAGES);
        let slot = slots.by_id(id).filter(logs);
        let slot = slot.ok_or(SlotError::Missing(id))?;
        let mut written = Vec::new();
        self.gates.each(cx, slot.hvas(), |_, gate| {
            let (store, state) = gate.parts();
            let pages = take_log(state, id);
            for page in &pages {
                let gfn = slot.gfn.0 + page;
                store.in_gfns(Gfn(gfn), Gfn(gfn + 1), &mut |e| e.write_protect());
            }
            state.flush();
            written.extend(pages);
        });
        written.sort_unstable();
        Ok(written)
    }
}

fn take_log(state: &mut State, id: u16) -> Vec<u64> {
    let pages = state.log.range((id, 0)..=(id, u64::MAX));
    let pages: Vec<u64> = pages.map(|(_, page)| *page).collect();
    state.log.retain(|(slot, _)| *slot != id);
    pages
}
