//! Changing memory slots, and the dirty log.

use super::{Gfn, MemSlot, SlotError, SlotFlags, State, Vm};
use crate::{
    ctx::{Cx, Sleepable, rank},
    notifier::Gone,
};
use std::sync::Arc;

type Idle<'t> = Cx<'t, rank::Idle, Sleepable>;

impl Vm {
    /// Adds a slot, moves it to other guest frames, or changes its flags (`KVM_SET_USER_MEMORY_REGION`). Waits until no
    /// window is open: the end of a window must find the slots that its beginning found.
    ///
    /// # Errors
    ///
    /// [`SlotError`]; nothing has changed then.
    pub fn set_memory(&self, cx: &mut Idle<'_>, slot: MemSlot) -> Result<(), SlotError> {
        self.replace_slots(cx, slot.id, |slots| slots.with(slot))
    }
    /// Deletes a slot.
    ///
    /// # Errors
    ///
    /// [`SlotError::Missing`].
    pub fn delete_memory(&self, cx: &mut Idle<'_>, id: u16) -> Result<(), SlotError> {
        self.replace_slots(cx, id, |slots| slots.without(id))
    }
    /// The slots now.
    pub fn slots(&self, cx: &mut Idle<'_>) -> Arc<super::Slots> {
        Arc::clone(self.gate.lock(cx).store().slots())
    }
    fn replace_slots(
        &self,
        cx: &mut Idle<'_>,
        id: u16,
        change: impl FnOnce(&super::Slots) -> Result<Arc<super::Slots>, SlotError>,
    ) -> Result<(), SlotError> {
        // Held over the change: no window begins meanwhile (`mn_invalidate_lock`).
        let mut active = self.active.lock();
        while *active > 0 {
            self.idle.wait(&mut active);
        }
        let mut guard = self.gate.lock(cx);
        let old = Arc::clone(guard.store().slots());
        let new = change(&old)?;
        let mut gone = Gone::new();
        if let Some(slot) = old.by_id(id) {
            let end = Gfn(slot.gfn.0 + slot.pages);
            guard.store_mut().take_gfns(slot.gfn, end, &mut gone);
            self.invalidate_caches(slot.hvas());
        }
        guard.store_mut().slots = new;
        guard.state().flush();
        guard.state().log.retain(|(slot, _)| *slot != id);
        guard.discard(&gone);
        Ok(())
    }
    /// Pages of a slot that the guest has written since the last call, ascending, counted from its first. They can be
    /// written again only after another fault, which notes them (`KVM_GET_DIRTY_LOG`).
    ///
    /// # Errors
    ///
    /// [`SlotError::Missing`]: no such slot, or it does not log.
    pub fn dirty_log(&self, cx: &mut Idle<'_>, id: u16) -> Result<Vec<u64>, SlotError> {
        let mut guard = self.gate.lock(cx);
        let slots = Arc::clone(guard.store().slots());
        let logs = |s: &&MemSlot| s.flags.contains(SlotFlags::LOG_DIRTY_PAGES);
        let slot = slots.by_id(id).filter(logs);
        let slot = slot.ok_or(SlotError::Missing(id))?;
        let (store, state) = guard.parts();
        let pages = take_log(state, id);
        for page in &pages {
            let gfn = slot.gfn.0 + page;
            store.in_gfns(Gfn(gfn), Gfn(gfn + 1), &mut |e| e.write_protect());
        }
        state.flush();
        Ok(pages)
    }
}

fn take_log(state: &mut State, id: u16) -> Vec<u64> {
    let pages = state.log.range((id, 0)..=(id, u64::MAX));
    let pages: Vec<u64> = pages.map(|(_, page)| *page).collect();
    state.log.retain(|(slot, _)| *slot != id);
    pages
}
