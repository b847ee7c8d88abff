//! Swapping out and in through the swap cache: frames that have a slot on the swap device.
//!
//! A frame is in the cache from when reclaim chooses a slot for it, or a fault reads it from a
//! slot, until the slot is no longer needed. See `swap_slots` for the guarantee. The lock of the
//! slots is a leaf of the lock order: references are dropped after it is released, as a retirement
//! takes other locks.

use super::{
    config::Contents,
    flags::FrameFlags,
    lock::FrameLock,
    mem::{Frame, PhysMem},
    pfn::PAGE_BYTES,
    swap_slots::{SlotState, Swap, SwapSlot, SwapSlots},
};
use crate::{
    addr::Pfn,
    ctx::{Cx, Rank, Sleepable},
    sync::Ordering,
};
use std::ops::Range;

impl PhysMem {
    /// Returns the swap device.
    pub fn swap(&self) -> &Swap {
        &self.swap
    }
    /// Takes a free slot; `None` if the device is full.
    fn take_slot(&self, slots: &mut SwapSlots) -> Option<SwapSlot> {
        let swap = &self.swap;
        if !swap.is_on() {
            return None;
        }
        let len = u32::try_from(slots.slots.len()).expect("below the capacity");
        // On an empty device, writing starts at the beginning again.
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
    /// Gives a locked frame a slot and adds it to the swap cache; `None` if the device is full
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
    /// Removes every frame from the cache whose slot no entry refers to.
    pub(crate) fn swap_cache_drop_unused<R: Rank>(&self, cx: &mut Cx<'_, R, Sleepable>) {
        let cached: Vec<Pfn> = self.swap.slots.lock().of_frame.keys().copied().collect();
        for frame in cached.into_iter().filter_map(|pfn| self.try_get(pfn)) {
            let locked = self.lock(cx, frame);
            let _in_use = self.swap_cache_drop(&locked);
        }
    }
    /// Returns the slot that a frame is cached for.
    pub(crate) fn swap_slot(&self, pfn: Pfn) -> Option<SwapSlot> {
        if !self.flags(pfn).contains(FrameFlags::SWAP_CACHE) {
            return None;
        }
        self.swap.slots.lock().of_frame.get(&pfn).copied()
    }
    /// Adds a reference of an entry to the slot (`swap_duplicate`).
    pub(crate) fn swap_dup(&self, slot: SwapSlot) {
        self.swap.slots.lock().slot(slot).count += 1;
    }
    /// Removes a reference of an entry to the slot (`free_swap_and_cache`).
    ///
    /// With the last one, a cached frame that no entry maps leaves the cache too, unless it is
    /// locked: the thread that has it locked may be about to map it.
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
    /// Frees the slot if it is no longer needed.
    fn release(&self, slots: &mut SwapSlots, id: SwapSlot) {
        if slots.release(id) {
            self.swap.used.fetch_sub(1, Ordering::Relaxed);
        }
    }
    /// Removes the frame of a slot from the cache and returns the cache's reference; the caller
    /// drops it after the lock of the slots.
    fn uncache(&self, slots: &mut SwapSlots, id: SwapSlot) -> Option<Frame<'_>> {
        let pfn = slots.slot(id).cached.take()?;
        slots.of_frame.remove(&pfn);
        self.clear_flags(pfn, FrameFlags::SWAP_CACHE);
        // The bytes are in memory alone now.
        self.set_flags(pfn, FrameFlags::DIRTY);
        Some(self.adopt(pfn))
    }
    /// Removes a frame from the swap cache if no entry refers to its slot any more
    /// (`folio_free_swap`). Returns true if it did.
    ///
    /// The frame is locked, and so the slot is not reused under the caller: reclaim holds the lock
    /// from when it chooses the slot until all entries refer to it, and a fault from when it checks
    /// that the frame still has the slot until the page is mapped.
    pub(crate) fn swap_cache_drop(&self, locked: &FrameLock<'_>) -> bool {
        self.uncache_if(locked.pfn(), |slot| slot.count == 0)
    }
    /// Removes a frame from the swap cache if no entry maps it, no entry refers to its slot, and no
    /// thread has it locked. For the thread that removed the last mapping, or released the lock.
    pub(crate) fn swap_cache_drop_idle(&self, pfn: Pfn) -> bool {
        self.uncache_if(pfn, |slot| slot.count == 0 && self.is_idle(pfn))
    }
    /// Returns true if no entry maps the frame and no thread has it locked. To be called with the
    /// lock of the slots held.
    ///
    /// A thread that locks the frame takes that lock after, to see whether the frame is still
    /// cached, and again after it has unlocked the frame. So of this thread and that one, at least
    /// one sees the other.
    fn is_idle(&self, pfn: Pfn) -> bool {
        self.mapcount(pfn) == 0 && !self.flags(pfn).contains(FrameFlags::LOCKED)
    }
    /// Removes a frame from the swap cache if `may` allows it, which is called under the lock of
    /// the slots. Returns true if it did.
    fn uncache_if(&self, pfn: Pfn, may: impl FnOnce(&SlotState) -> bool) -> bool {
        let mut slots = self.swap.slots.lock();
        let Some(&id) = slots.of_frame.get(&pfn) else {
            return false;
        };
        if !may(slots.slot(id)) {
            return false;
        }
        let frame = self.uncache(&mut slots, id);
        self.release(&mut slots, id);
        drop(slots);
        drop(frame);
        true
    }
    /// Returns true if a cache and the caller have the only references to a frame, and no entry
    /// maps it: with more, the page is in use.
    pub(crate) fn is_only_cached(&self, pfn: Pfn) -> bool {
        self.refcount(pfn) == 2 && self.mapcount(pfn) == 0
    }
    /// Replaces a locked frame in the cache by another one, if only the cache and the caller refer
    /// to it (`folio_migrate_mapping`). Returns true if it did.
    pub(crate) fn swap_cache_move(&self, from: &FrameLock<'_>, to: &FrameLock<'_>) -> bool {
        let pfn = from.pfn();
        let mut slots = self.swap.slots.lock();
        let Some(&id) = slots.of_frame.get(&pfn) else {
            return false;
        };
        if !self.is_only_cached(pfn) {
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
    /// Returns a copy of the frame's bytes; `None` if they are all zero, or not modelled.
    fn image(&self, pfn: Pfn) -> Option<Box<[u8; PAGE_BYTES]>> {
        if self.contents() == Contents::None {
            return None;
        }
        let mut page = Box::new([0; PAGE_BYTES]);
        self.read(pfn, 0, &mut page[..]);
        page.iter().any(|&b| b != 0).then_some(page)
    }
    /// Returns true if all bytes of the frame are zero, or not modelled.
    pub(crate) fn reads_zero(&self, pfn: Pfn) -> bool {
        self.image(pfn).is_none()
    }
    /// Removes a clean frame from the cache if only the cache and the caller refer to it; the slot
    /// keeps the bytes (`__remove_mapping`). Returns true if it did.
    pub(crate) fn swap_evict(&self, pfn: Pfn) -> bool {
        self.uncache_if(pfn, |_| self.is_only_cached(pfn))
    }
    /// Returns the frame of a slot: the cached one, or `fresh`, filled from the device and cached,
    /// together with neighbours (`swap_cluster_readahead`). `None` if the slot is free: the caller
    /// saw an entry that has changed, and looks again.
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
    /// Reads pages of private memory that are not cached yet, as far as there are frames for them.
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
    /// Reads a page into the cache, unless it is there or the slot is no longer in use
    /// (`__read_swap_cache_async`).
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
    /// Returns true if the slot has a frame in the cache.
    pub(crate) fn swap_is_cached(&self, id: SwapSlot) -> bool {
        self.swap.slots.lock().slot(id).cached.is_some()
    }
    /// Returns the frame that is cached for the slot.
    pub(crate) fn swap_cached(&self, id: SwapSlot) -> Option<Frame<'_>> {
        let cached = self.swap.slots.lock().slot(id).cached;
        cached.map(|pfn| self.get(pfn))
    }
    /// Writes the page of an object to a slot, without the cache; `None` if the device is full. The
    /// object has the only reference to the slot.
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
    /// Reads the page of an object back and frees its slot.
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
