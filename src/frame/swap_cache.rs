//! The swap cache: frames that have a slot of the swap device, or are read from one.

use super::{
    config::Contents,
    flags::FrameFlags,
    lock::FrameLock,
    mem::{Frame, PhysMem},
    pfn::PAGE_BYTES,
    swap_slots::{SlotState, Swap, SwapSlot, SwapSlots},
};
use crate::{addr::Pfn, sync::Ordering};
use std::ops::Range;

impl PhysMem {
    /// The swap device.
    pub fn swap(&self) -> &Swap {
        &self.swap
    }
    fn take_slot(&self, slots: &mut SwapSlots) -> Option<SwapSlot> {
        let swap = &self.swap;
        let len = u32::try_from(slots.slots.len()).expect("below the capacity");
        // On an empty device writing begins anew.
        let from = if slots.free.len() == slots.slots.len() {
            0
        } else {
            slots.next
        };
        let id = match slots.free.range(from..).next().copied() {
            Some(id) => id,
            None if len < swap.capacity => {
                slots.slots.push(SlotState::default());
                len
            }
            None => slots.free.first().copied()?,
        };
        slots.free.remove(&id);
        slots.next = id + 1;
        swap.used.fetch_add(1, Ordering::Relaxed);
        Some(SwapSlot(id))
    }
    /// Gives a locked frame a slot and puts it into the swap cache; `None` when the device is full
    /// (`folio_alloc_swap`).
    pub(crate) fn swap_cache_add(&self, frame: &Frame<'_>) -> Option<SwapSlot> {
        let pfn = frame.pfn();
        let mut slots = self.swap.slots.lock();
        let id = self.take_slot(&mut slots)?;
        slots.slot(id).cached = Some(frame.clone().into_raw());
        slots.of_frame.insert(pfn, id);
        self.set_flags(pfn, FrameFlags::SWAP_CACHE);
        Some(id)
    }
    /// The slot that a frame is cached for.
    pub(crate) fn swap_slot(&self, pfn: Pfn) -> Option<SwapSlot> {
        if !self.flags(pfn).contains(FrameFlags::SWAP_CACHE) {
            return None;
        }
        self.swap.slots.lock().of_frame.get(&pfn).copied()
    }
    /// One more entry refers to the slot (`swap_duplicate`).
    pub(crate) fn swap_dup(&self, slot: SwapSlot) {
        self.swap.slots.lock().slot(slot).count += 1;
    }
    /// One entry less; a cached frame that nothing maps goes with the last, unless somebody has it locked, who may be about
    /// to map it (`free_swap_and_cache`).
    pub(crate) fn swap_free(&self, id: SwapSlot) {
        let mut slots = self.swap.slots.lock();
        let slot = slots.slot(id);
        assert!(slot.count > 0, "{id:?} is freed once too often");
        slot.count -= 1;
        let idle = slot.count == 0 && slot.cached.is_some_and(|pfn| self.is_idle(pfn));
        let cached = idle.then(|| self.uncache(&mut slots, id)).flatten();
        self.release(&mut slots, id);
        drop(slots);
        drop(cached);
    }
    fn release(&self, slots: &mut SwapSlots, id: SwapSlot) {
        if slots.release(id) {
            self.swap.used.fetch_sub(1, Ordering::Relaxed);
        }
    }
    /// Takes the frame out of the cache; the reference is the caller's to drop, outside the lock.
    fn uncache(&self, slots: &mut SwapSlots, id: SwapSlot) -> Option<Frame<'_>> {
        let pfn = slots.slot(id).cached.take()?;
        slots.of_frame.remove(&pfn);
        self.clear_flags(pfn, FrameFlags::SWAP_CACHE);
        // What is in memory alone now is not in swap.
        self.set_flags(pfn, FrameFlags::DIRTY);
        Some(self.adopt(pfn))
    }
    /// Takes a frame out of the swap cache if no entry refers to its slot any more (`folio_free_swap`); says whether it
    /// did. The frame is locked: reclaim has it so from when it chooses the slot until all entries refer to that, and a fault
    /// from when it looks whether the frame still has the slot until it is mapped. Else the slot might be another page's by
    /// then.
    pub(crate) fn swap_cache_drop(&self, locked: &FrameLock<'_>) -> bool {
        self.swap_cache_drop_if(locked.pfn(), || true)
    }
    /// The same of one that nothing maps and nobody has locked: its last mapping went just now, or its lock.
    pub(crate) fn swap_cache_drop_idle(&self, pfn: Pfn) -> bool {
        self.swap_cache_drop_if(pfn, || self.is_idle(pfn))
    }
    /// Asked with the lock of the slots held, which whoever locks the frame takes after that, to see whether it is still
    /// cached; and which it takes again after it let go. So of the two one sees the other.
    fn is_idle(&self, pfn: Pfn) -> bool {
        self.mapcount(pfn) == 0 && !self.flags(pfn).contains(FrameFlags::LOCKED)
    }
    fn swap_cache_drop_if(&self, pfn: Pfn, may: impl Fn() -> bool) -> bool {
        let mut slots = self.swap.slots.lock();
        let Some(&id) = slots.of_frame.get(&pfn) else {
            return false;
        };
        if slots.slot(id).count > 0 || !may() {
            return false;
        }
        let frame = self.uncache(&mut slots, id);
        self.release(&mut slots, id);
        drop(slots);
        drop(frame);
        true
    }
    /// Has another frame cached in the place of a locked one that only the cache and the caller refer to
    /// (`folio_migrate_mapping`); says whether it did.
    pub(crate) fn swap_cache_move(&self, from: &FrameLock<'_>, to: &FrameLock<'_>) -> bool {
        let pfn = from.pfn();
        let mut slots = self.swap.slots.lock();
        let Some(&id) = slots.of_frame.get(&pfn) else {
            return false;
        };
        if self.refcount(pfn) != 2 || self.mapcount(pfn) != 0 {
            return false;
        }
        let new = to.frame().clone().into_raw();
        slots.slot(id).cached = Some(new);
        slots.of_frame.remove(&pfn);
        slots.of_frame.insert(new, id);
        self.set_flags(new, FrameFlags::SWAP_CACHE);
        self.clear_flags(pfn, FrameFlags::SWAP_CACHE);
        drop(slots);
        drop(self.adopt(pfn));
        true
    }
    /// Writes a cached frame to its slot (`swap_writeout`).
    pub(crate) fn swap_write(&self, pfn: Pfn) {
        let mut slots = self.swap.slots.lock();
        let Some(&id) = slots.of_frame.get(&pfn) else {
            return;
        };
        slots.slot(id).page = self.image(pfn);
        self.clear_flags(pfn, FrameFlags::DIRTY);
    }
    /// A copy of the frame's bytes; none if they are zero, or not modelled.
    fn image(&self, pfn: Pfn) -> Option<Box<[u8; PAGE_BYTES]>> {
        if self.contents() == Contents::None {
            return None;
        }
        let mut page = Box::new([0; PAGE_BYTES]);
        self.read(pfn, 0, &mut page[..]);
        page.iter().any(|&b| b != 0).then_some(page)
    }
    /// Whether all of the frame's bytes are zero, or not modelled.
    pub(crate) fn reads_zero(&self, pfn: Pfn) -> bool {
        self.image(pfn).is_none()
    }
    /// Reclaims a clean cached frame that only the cache and the caller refer to: the slot keeps the page
    /// (`__remove_mapping`). Says whether it did.
    pub(crate) fn swap_evict(&self, pfn: Pfn) -> bool {
        let mut slots = self.swap.slots.lock();
        let Some(&id) = slots.of_frame.get(&pfn) else {
            return false;
        };
        if self.refcount(pfn) != 2 || self.mapcount(pfn) != 0 {
            return false;
        }
        let frame = self.uncache(&mut slots, id);
        self.release(&mut slots, id);
        drop(slots);
        drop(frame);
        true
    }
    /// The frame of a slot: the cached one, or `fresh` filled from the device and cached, and neighbours with it
    /// (`swap_cluster_readahead`). `None` if the slot is free: whoever saw an entry that refers to it looks anew.
    pub(crate) fn swap_read<'m>(&'m self, id: SwapSlot, fresh: Frame<'m>) -> Option<Frame<'m>> {
        let mut slots = self.swap.slots.lock();
        let slot = slots.slot(id);
        if let Some(pfn) = slot.cached {
            if std::mem::take(&mut slot.ahead) {
                slots.ahead.hit();
            }
            return Some(self.get(pfn));
        }
        if slot.count == 0 {
            return None;
        }
        let window = slots.ahead.window(id.0);
        drop(slots);
        self.read_ahead(window.start..id.0);
        let read = self.fill(id, fresh, false);
        self.read_ahead(id.0 + 1..window.end);
        read
    }
    /// Reads pages that private memory has there and that are not cached yet, as far as there are frames for them.
    fn read_ahead(&self, ids: Range<u32>) {
        for id in ids {
            let wanted = self
                .swap
                .slots
                .lock()
                .slots
                .get(id as usize)
                .is_some_and(|s| s.count > 0 && s.cached.is_none() && !s.of_object);
            if wanted {
                let Ok(fresh) = self.alloc() else { return };
                let _read = self.fill(SwapSlot(id), fresh, true);
            }
        }
    }
    /// Reads a page into the cache, if it is not there and the slot is still in use (`__read_swap_cache_async`).
    fn fill<'m>(&'m self, id: SwapSlot, fresh: Frame<'m>, ahead: bool) -> Option<Frame<'m>> {
        let mut slots = self.swap.slots.lock();
        let slot = slots.slot(id);
        if let Some(pfn) = slot.cached {
            return Some(self.get(pfn));
        }
        if slot.count == 0 || slot.of_object {
            return None;
        }
        let pfn = fresh.pfn();
        if let Some(page) = &slot.page {
            self.write(pfn, 0, &page[..]);
        }
        slot.cached = Some(fresh.clone().into_raw());
        slot.ahead = ahead;
        slots.of_frame.insert(pfn, id);
        self.set_flags(pfn, FrameFlags::SWAP_CACHE | FrameFlags::SWAP_BACKED);
        drop(slots);
        self.lru_add(pfn);
        Some(fresh)
    }
    /// Whether the slot has a frame in the cache.
    pub(crate) fn swap_is_cached(&self, id: SwapSlot) -> bool {
        self.swap.slots.lock().slot(id).cached.is_some()
    }
    /// An object's page goes to the device without a cache: its bytes, and one count; `None` when it is full.
    pub(crate) fn swap_store(&self, pfn: Pfn) -> Option<SwapSlot> {
        let page = self.image(pfn);
        let mut slots = self.swap.slots.lock();
        let id = self.take_slot(&mut slots)?;
        let slot = slots.slot(id);
        slot.count = 1;
        slot.of_object = true;
        slot.page = page;
        Some(id)
    }
    /// And comes back: its bytes, and the slot goes.
    pub(crate) fn swap_load(&self, id: SwapSlot, to: &Frame<'_>) {
        let mut slots = self.swap.slots.lock();
        let slot = slots.slot(id);
        let page = slot.page.take();
        slot.count -= 1;
        let window = slots.ahead.window(id.0);
        self.release(&mut slots, id);
        drop(slots);
        if let Some(page) = page {
            to.write(0, &page[..]);
        }
        self.read_ahead(window);
    }
}
