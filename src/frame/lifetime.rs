//! References and mappings of a frame, and its retirement.
//!
//! Guarantee: a frame is retired by the thread that gives up the last reference, exactly once.
//! Retirement first makes every [view](super::FrameView) of the frame stale, then clears the
//! contents, then puts the frame on the free list.
//!
//! A large unmapping collects its frames in [`Retired`], which puts a batch of them on the free
//! list under one lock. The outcome is that of as many single calls, one after the other: the order
//! of frames, the counts, the view of an oracle.

use super::{
    access_bits::AccessBits,
    config::Contents,
    exported::Lost,
    flags::FrameFlags,
    free::BATCH,
    mem::{Frame, PhysMem},
    meta::Meta,
    observer::FrameWatch,
};
use crate::{addr::Pfn, sync::Ordering};
use std::sync::Arc;

/// Frames whose last reference is gone, collected on their way to the free list.
///
/// They get there when the batch is full or dropped, or by [`put_back`](Self::put_back).
pub(crate) struct Retired<'m> {
    mem: &'m PhysMem,
    pfns: [u32; BATCH],
    len: usize,
}

impl<'m> Retired<'m> {
    /// Returns the memory that the frames belong to.
    #[inline]
    pub(crate) fn mem(&self) -> &'m PhysMem {
        self.mem
    }
    /// Removes a mapping of the frame and merges the bits of its entry; the last reference retires
    /// the frame.
    #[inline(always)]
    pub(crate) fn unmap(&mut self, pfn: Pfn, used: AccessBits) {
        if !self.mem.drop_mapping(pfn, used) {
            return self.still_referenced(pfn);
        }
        if self.len == BATCH {
            self.put_back();
        }
        self.pfns[self.len] = pfn.0;
        self.len += 1;
    }
    /// Removes a mapping of a frame that the caller has locked. The caller notifies the driver of
    /// an exported frame itself, so nothing is deferred.
    pub(crate) fn unmap_locked(&mut self, pfn: Pfn, used: AccessBits) {
        if !self.mem.flags(pfn).contains(FrameFlags::ANON) {
            self.mem.merge_access_bits(pfn, used);
        }
        let last = self.mem.drop_merged_mapping(pfn);
        debug_assert!(!last, "its lock has a reference");
        self.still_referenced(pfn);
    }
    /// Drops the cached copy of a frame that keeps a reference, if only the swap cache needs it.
    #[inline(never)]
    fn still_referenced(&mut self, pfn: Pfn) {
        if self.mem.in_swap_cache(pfn) && self.mem.mapcount(pfn) == 0 {
            // The last mapping is gone and no entry refers to the slot: the cached copy is of no
            // use (`free_swap_cache`). The batch goes first, to keep the order of single calls.
            self.put_back();
            let _in_use = self.mem.swap_cache_drop_idle(pfn);
        }
    }
    /// Puts the collected frames on the free list. Needed before a frame is given back by another
    /// way.
    #[inline(never)]
    pub(crate) fn put_back(&mut self) {
        if self.len > 0 {
            self.mem.free.put_many(&self.pfns[..self.len]);
            self.len = 0;
        }
    }
}

impl Drop for Retired<'_> {
    fn drop(&mut self) {
        self.put_back();
    }
}

impl PhysMem {
    /// Takes one more reference on a frame that has one.
    pub(crate) fn get(&self, pfn: Pfn) -> Frame<'_> {
        self.meta(pfn).counts.get_ref(pfn);
        self.adopt(pfn)
    }
    /// Takes one more reference unless the frame is free.
    pub(crate) fn try_get(&self, pfn: Pfn) -> Option<Frame<'_>> {
        self.meta(pfn).counts.try_get_ref().then(|| self.adopt(pfn))
    }
    /// Gives up a reference; the last retires the frame.
    pub(super) fn put(&self, pfn: Pfn) {
        if self.meta(pfn).counts.put_ref(pfn) {
            self.retire(pfn);
        }
    }
    /// Adds a mapping that takes over a reference of the caller ([`Frame::into_raw`]).
    pub(crate) fn map_inc(&self, pfn: Pfn) {
        self.meta(pfn).counts.map(pfn);
    }
    /// Adds a mapping with a reference of its own.
    pub(crate) fn share(&self, pfn: Pfn) {
        self.meta(pfn).counts.share(pfn, 1);
    }
    /// Adds `more` mappings to a private frame, which ceases to be exclusive to one entry.
    #[inline]
    pub(crate) fn share_private(&self, pfn: Pfn, more: u32) {
        let meta = self.meta(pfn);
        if more > 0 {
            meta.counts.share(pfn, more);
        }
        let exclusive = FrameFlags::ANON_EXCLUSIVE.bits();
        if meta.flags.load(Ordering::Relaxed) & exclusive != 0 {
            meta.flags.fetch_and(!exclusive, Ordering::Relaxed);
        }
    }
    /// Returns an empty collection for frames that are about to be unmapped.
    #[inline]
    pub(crate) fn retired(&self) -> Retired<'_> {
        Retired {
            mem: self,
            pfns: [0; BATCH],
            len: 0,
        }
    }
    /// Removes a mapping and merges the bits of its entry. Returns true if that was the last
    /// reference, and the frame is retired now but for the free list.
    ///
    /// An exported frame gets a reference and a deferred notice first, and so stays.
    #[inline]
    fn drop_mapping(&self, pfn: Pfn, used: AccessBits) -> bool {
        let meta = self.meta(pfn);
        let flags = meta.flags();
        // No later reader asks for the bits of private memory that is not exported.
        let asked = FrameFlags::ANON | FrameFlags::EXPORTED;
        if flags & asked != FrameFlags::ANON {
            if !flags.contains(FrameFlags::ANON) {
                self.merge_access_bits(pfn, used);
            }
            if flags.contains(FrameFlags::EXPORTED) {
                self.defer(pfn, Lost::Mapping);
            }
        }
        meta.counts.unshare(pfn) && self.leave(pfn, meta)
    }
    /// Removes a mapping whose bits were merged before. The caller has the frame locked, or has
    /// deferred its notice.
    #[inline]
    fn drop_merged_mapping(&self, pfn: Pfn) -> bool {
        let meta = self.meta(pfn);
        meta.counts.unshare(pfn) && self.leave(pfn, meta)
    }
    /// Retires a frame whose last reference is gone.
    fn retire(&self, pfn: Pfn) {
        if self.leave(pfn, self.meta(pfn)) {
            self.free.put(pfn);
        }
    }
    /// Does all of a retirement but the free list, to which a batch adds many frames at once.
    /// Returns false for a part of a huge page of a pool, and for a frame of a device: they go back
    /// there instead.
    #[inline]
    fn leave(&self, pfn: Pfn, meta: Meta<'_>) -> bool {
        self.watch_retirement(pfn);
        let flags = meta.flags();
        if flags.intersects(FrameFlags::LRU | FrameFlags::EXPORTED) {
            if flags.contains(FrameFlags::LRU | FrameFlags::LARGE) {
                self.lru_pass_on(pfn);
            }
            self.lru_remove(pfn);
            self.unexport(pfn);
        }
        // The generation first: from here on every view of the frame is stale. No other thread
        // writes it, as this one gave up the last reference. Release: a view that has read bytes of
        // the frame's next life finds the new generation in its second check.
        let next = meta.generation.load(Ordering::Relaxed).wrapping_add(1);
        meta.generation.store(next, Ordering::Release);
        if self.config.contents != Contents::None {
            self.clear_page(pfn);
        }
        let to_pool = flags.contains(FrameFlags::LARGE) && self.leave_large(pfn);
        !(to_pool || self.return_to_device(pfn))
    }
    /// Counts a retired frame of a large page. Returns true if the page is one of a pool, which
    /// gets it back.
    #[cold]
    #[inline(never)]
    fn leave_large(&self, pfn: Pfn) -> bool {
        let to_pool = self.return_to_pool(pfn);
        if !to_pool && let Some(page) = self.private_large(pfn) {
            self.partly.note(page, |page| self.is_left(page));
        }
        to_pool
    }
    /// Releases the contents; apart, so that `leave` stays small.
    #[inline(never)]
    fn clear_page(&self, pfn: Pfn) {
        if let Some(page) = self.page(pfn) {
            page.clear();
        }
    }
}

impl PhysMem {
    /// Returns the observer of the machine's frames, for good the first one that was made.
    pub(crate) fn watch(&self, make: impl FnOnce() -> Arc<dyn FrameWatch>) -> &dyn FrameWatch {
        &**self.watch.get_or_init(make)
    }
    /// Reports to the observer a retirement, if there is an observer.
    #[inline]
    fn watch_retirement(&self, pfn: Pfn) {
        if let Some(watch) = self.watch.get() {
            self.report_retirement(&**watch, pfn);
        }
    }
    /// Apart, so that a machine without an observer pays one load and a branch.
    #[cold]
    #[inline(never)]
    fn report_retirement(&self, watch: &dyn FrameWatch, pfn: Pfn) {
        let owes_dirty = self.flags(pfn).contains(FrameFlags::DEVICE_DIRTY);
        watch.retiring(pfn, owes_dirty);
        if owes_dirty {
            self.clear_flags(pfn, FrameFlags::DEVICE_DIRTY);
        }
    }
    /// Checks the claim that the frame is clean and that no external MMU has it: a dirty bit that a
    /// device still owes is reported as a lost write.
    pub(crate) fn watch_clean(&self, pfn: Pfn) {
        if let Some(watch) = self.watch.get()
            && self.flags(pfn).contains(FrameFlags::DEVICE_DIRTY)
        {
            watch.write_lost(pfn);
            self.clear_flags(pfn, FrameFlags::DEVICE_DIRTY);
        }
    }
}

#[cfg(test)]
impl PhysMem {
    /// Removes a mapping; the last reference retires the frame.
    pub(super) fn unshare(&self, pfn: Pfn) {
        self.retired().unmap(pfn, AccessBits::default());
    }
}
