//! The dirty log: the pages that the guest has written, of slots that log.
//!
//! A store to a write-protected page faults, and the fault enters the page in the log before the
//! store is made. A page that leaves the log is write-protected under the same gate.

use super::{
    gfn::Gfn,
    memslot::{MemSlot, SlotError},
    shadow::ShadowPages,
    vm::{State, Vm},
};
use crate::ctx::CallCx;

impl Vm {
    /// Returns the pages of a slot that the guest, or a [`PfnCache`](super::PfnCache), has written
    /// since the last call, ascending, counted from the first of the slot (`KVM_GET_DIRTY_LOG`).
    ///
    /// The pages are write-protected, so the next store to one faults, and logs it again.
    ///
    /// # Errors
    ///
    /// [`SlotError::NoLog`].
    pub fn dirty_log(&self, cx: &mut CallCx<'_>, id: u16) -> Result<Vec<u64>, SlotError> {
        self.read_log(cx, id, |slot, store, state, pages| {
            clear(slot, store, state, pages);
        })
    }
    /// Returns the pages that [`dirty_log`](Self::dirty_log) would, and leaves them in the log, and
    /// the guest's right to write them (`KVM_GET_DIRTY_LOG` with
    /// `KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2`). [`clear_dirty_log`](Self::clear_dirty_log) takes them
    /// out, before they are copied.
    ///
    /// # Errors
    ///
    /// [`SlotError::NoLog`].
    pub fn peek_dirty_log(&self, cx: &mut CallCx<'_>, id: u16) -> Result<Vec<u64>, SlotError> {
        self.read_log(cx, id, |_, _, _, _| ())
    }
    /// Takes pages of a slot out of the log, and write-protects them (`KVM_CLEAR_DIRTY_LOG`). Pages
    /// that are not in the log stay as they are.
    ///
    /// # Errors
    ///
    /// [`SlotError::NoLog`]; [`SlotError::Range`]: the slot has not all of these pages. Nothing has
    /// changed then.
    pub fn clear_dirty_log(
        &self,
        cx: &mut CallCx<'_>,
        id: u16,
        pages: &[u64],
    ) -> Result<(), SlotError> {
        let slot = self.logging(id)?;
        if pages.iter().any(|page| *page >= slot.pages) {
            return Err(SlotError::Range(id));
        }
        self.gates.each(cx, slot.hvas(), |_, gate| {
            let (store, state) = gate.parts();
            let logged = pages.iter().copied();
            let logged = logged.filter(|page| state.log.contains(&(id, *page)));
            let logged: Vec<u64> = logged.collect();
            clear(&slot, store, state, &logged);
        });
        Ok(())
    }
    /// Returns the slot, which logs (`kvm_get_dirty_log`).
    fn logging(&self, id: u16) -> Result<MemSlot, SlotError> {
        let slots = self.current();
        let slot = slots.by_id(id).filter(|slot| slot.logs());
        slot.copied().ok_or(SlotError::NoLog(id))
    }
    /// Returns the pages in the log of a slot, ascending. `seen` runs with those of each gate.
    fn read_log(
        &self,
        cx: &mut CallCx<'_>,
        id: u16,
        seen: impl Fn(&MemSlot, &ShadowPages, &mut State, &[u64]),
    ) -> Result<Vec<u64>, SlotError> {
        let slot = self.logging(id)?;
        let mut written = Vec::new();
        self.gates.each(cx, slot.hvas(), |_, gate| {
            let (store, state) = gate.parts();
            let pages = state.log.range((id, 0)..=(id, u64::MAX));
            let pages: Vec<u64> = pages.map(|(_, page)| *page).collect();
            seen(&slot, store, state, &pages);
            written.extend(pages);
        });
        written.sort_unstable();
        Ok(written)
    }
}

/// Takes pages out of the log of a gate, and write-protects them.
fn clear(slot: &MemSlot, store: &ShadowPages, state: &mut State, pages: &[u64]) {
    for page in pages {
        state.log.remove(&(slot.id, *page));
        let gfn = slot.gfn.0 + page;
        store.in_gfns(Gfn(gfn), Gfn(gfn + 1), &mut |e| e.write_protect());
    }
    if !pages.is_empty() {
        state.tlbs.flush();
    }
}
