//! Changes of memory slots.

use super::{
    config::GuestMemoryMistake,
    gfn::Gfn,
    guest_memfd::GuestMemfd,
    guest_pages::GuestMemfdFlags,
    memslot::{MemSlot, MemSlots, SlotError, SlotFlags},
    shadow::{Leaves, ShadowPages},
    vm::Vm,
};
use crate::{
    addr::VpnRange,
    ctx::CallCx,
    notifier::{Rearrange, RemovedEntries},
    sync::Ordering,
};
use std::sync::Arc;

/// The flags of slots with a guest file.
const OF_FILES: SlotFlags = SlotFlags::GUEST_MEMFD.union(SlotFlags::GMEM_ONLY);

/// A new set of memory slots, and the entries that go for it.
///
/// Only changes of slots create one, and conversions of guest frames, which keep the slots.
#[derive(Clone, Debug)]
pub struct NewSlots {
    slots: Arc<MemSlots>,
    gone: Option<Gone>,
}

/// Entries that go: those of this size with a guest frame of `[first, end)`.
#[derive(Clone, Copy, Debug)]
struct Gone {
    first: Gfn,
    end: Gfn,
    leaves: Leaves,
}

impl Gone {
    /// Returns the entries of a slot that go when it becomes another, or goes.
    ///
    /// Where logging begins, huge entries go, since one of them would stand for many pages of the
    /// log; the rest are write-protected. Where it ends, the entries go that can be parts of huge
    /// ones (`kvm_mmu_slot_apply_flags`). A slot that moves or goes takes all its entries with it.
    fn of(old: &MemSlot, new: Option<&MemSlot>) -> Option<Self> {
        let stays = new.filter(|new| new.gfn == old.gfn);
        let all = (old.gfn, Gfn(old.gfn.0 + old.pages));
        let ((first, end), leaves) = match stays.map(MemSlot::logs) {
            None => (all, Leaves::All),
            Some(true) => (all, Leaves::Huge),
            Some(false) => (old.huge_blocks()?, Leaves::All),
        };
        Some(Self { first, end, leaves })
    }
}

impl NewSlots {
    /// Returns the same slots, with guest frames `[first, end)` whose entries go.
    pub(super) fn unchanged(slots: Arc<MemSlots>, first: Gfn, end: Gfn) -> Self {
        Self {
            slots,
            gone: Some(Gone {
                first,
                end,
                leaves: Leaves::All,
            }),
        }
    }
}

impl Rearrange for ShadowPages {
    type How = NewSlots;
    fn rearrange(&mut self, new: NewSlots, gone: &mut RemovedEntries) {
        if let Some(Gone { first, end, leaves }) = new.gone {
            self.take_leaves(leaves, first, end, gone);
        }
        self.slots = new.slots;
    }
}

impl Vm {
    /// Adds a slot, moves it to other guest frames, or begins or ends its logging
    /// (`KVM_SET_USER_MEMORY_REGION`).
    ///
    /// Waits until no window is open: the end of a window must find the slots that its beginning
    /// found. A slot that is set as it is does not change. The dirty log of a slot that logs before
    /// and after stays.
    ///
    /// # Errors
    ///
    /// [`SlotError`]; nothing has changed then.
    pub fn set_memory(&self, cx: &mut CallCx<'_>, slot: MemSlot) -> Result<(), SlotError> {
        let _order = self.slots_lock.lock();
        let old = self.current();
        if slot.flags.intersects(OF_FILES) {
            return Err(SlotError::Flags(slot.id));
        }
        if self.flips(&old, &slot) {
            self.unbind(cx, &old, slot.id);
        } else {
            old.check_change(&slot)?;
        }
        if old.by_id(slot.id) == Some(&slot) {
            return Ok(());
        }
        self.replace_slots(cx, slot.id, Arc::new(old.with(slot)?));
        Ok(())
    }
    /// Adds a slot whose private pages are those of a guest file from byte `offset` on
    /// (`KVM_SET_USER_MEMORY_REGION2`). If the file has [`GuestMemfdFlags::MMAP`], the shared ones
    /// are as well. The slot's flags are [`SlotFlags::GUEST_MEMFD`].
    ///
    /// The slot never changes, it can only be deleted. Waits as [`set_memory`](Self::set_memory)
    /// does.
    ///
    /// # Errors
    ///
    /// [`SlotError`]; nothing has changed then.
    pub fn set_guest_memory(
        &self,
        cx: &mut CallCx<'_>,
        mut slot: MemSlot,
        memfd: &GuestMemfd,
        offset: u64,
    ) -> Result<(), SlotError> {
        if slot.flags != SlotFlags::GUEST_MEMFD {
            return Err(SlotError::Flags(slot.id));
        }
        if memfd.pages.has(GuestMemfdFlags::MMAP) {
            slot.flags |= SlotFlags::GMEM_ONLY;
        }
        let _order = self.slots_lock.lock();
        let old = self.current();
        old.check_change(&slot)?;
        // Refuses guest frames of other slots before the file is asked.
        let mut new = old.with(slot)?;
        let pages = (slot.id, slot.gfn, slot.pages);
        let mine = std::ptr::eq(Arc::as_ptr(&memfd.vm), self);
        let memory = mine.then(|| memfd.pages.bind(cx, offset, pages)).flatten();
        let memory = memory.ok_or(SlotError::GuestMemfd(slot.id))?;
        new.set_memory(slot.id, memory);
        self.replace_slots(cx, slot.id, Arc::new(new));
        Ok(())
    }
    /// Deletes a slot, as soon as no window is open.
    ///
    /// # Errors
    ///
    /// [`SlotError::Missing`].
    pub fn delete_memory(&self, cx: &mut CallCx<'_>, id: u16) -> Result<(), SlotError> {
        let _order = self.slots_lock.lock();
        let old = self.current();
        self.replace_slots(cx, id, old.without(id)?);
        // After the slot: a fault that finds the slot finds its binding.
        self.unbind(cx, &old, id);
        Ok(())
    }
    /// Ends the binding of a slot to its guest file, unless the file is closed.
    fn unbind(&self, cx: &mut CallCx<'_>, slots: &MemSlots, id: u16) {
        let memory = slots.by_id(id).and_then(|slot| slots.memory_of(slot));
        if let Some(pages) = memory.and_then(|memory| memory.pages()) {
            pages.unbind(cx, id);
        }
    }
    /// Returns true if the flags of a slot with a guest file change, and the machine makes the
    /// mistake to allow it.
    fn flips(&self, old: &MemSlots, slot: &MemSlot) -> bool {
        let had = old.by_id(slot.id).map(|old| old.flags);
        let had = had.is_some_and(|flags| flags.contains(SlotFlags::GUEST_MEMFD));
        had && self.guest_made(GuestMemoryMistake::FlagFlip)
    }
    /// Returns the slots now.
    pub fn slots(&self) -> Arc<MemSlots> {
        self.current()
    }
    /// Replaces the slots, of which slot `id` is new, another or gone, and removes the entries of
    /// the old one. The caller has the lock of the slots.
    fn replace_slots(&self, cx: &mut CallCx<'_>, id: u16, new: Arc<MemSlots>) {
        self.active.while_none(|| {
            let old = self.current();
            // A fault that looks now finds the new slots, and tries again at gates that do not have
            // them yet.
            *self.slots.lock() = Arc::clone(&new);
            self.generation.store(new.generation(), Ordering::Release);
            if let Some(slot) = old.by_id(id) {
                self.invalidate_caches(slot.hvas());
            }
            let (was, becomes) = (old.by_id(id), new.by_id(id).copied());
            let gone = was.and_then(|was| Gone::of(was, becomes.as_ref()));
            let flipped = becomes.is_some_and(|slot| self.flips(&old, &slot));
            let gone_guests = was.filter(|_| !flipped);
            let gone_guests = gone_guests.map(|was| (was.gfn, Gfn(was.gfn.0 + was.pages)));
            self.guest.replace_slots(new.generation(), gone_guests);
            let logs = becomes.filter(MemSlot::logs);
            let keeps_log = logs.is_some() && was.is_some_and(MemSlot::logs);
            let changed = NewSlots { slots: new, gone };
            self.gates.each(cx, VpnRange::ALL, |_, gate| {
                if let Some(MemSlot { gfn, pages, .. }) = logs {
                    let end = Gfn(gfn.0 + pages);
                    gate.store().in_gfns(gfn, end, &mut |e| e.write_protect());
                }
                gate.rearrange(changed.clone(), |state| {
                    state.tlbs.flush();
                    state.log.retain(|(slot, _)| keeps_log || *slot != id);
                });
            });
        });
    }
}
