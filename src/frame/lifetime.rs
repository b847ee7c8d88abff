//! The life of a frame: allocation, references and mappings, retirement.
//!
//! Guarantee: a frame is retired by the thread that gives up the last reference, exactly once.
//! Retirement first makes every [view](super::FrameView) of the frame stale, then clears the
//! contents, then puts the frame on the free list.

use super::{
    access_bits::AccessBits,
    config::Contents,
    exported::Lost,
    flags::FrameFlags,
    inject::{AllocKind, Injected},
    mem::{Frame, PhysMem},
    meta::Meta,
    observer::FrameWatch,
    owner::Owner,
};
use crate::{addr::Pfn, sync::Ordering};
use std::sync::Arc;
use thiserror::Error;

/// No frame could be allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum OutOfFrames {
    /// All frames are in use; their number.
    #[error("all {0} frames are in use")]
    UsedUp(u32),
    /// Fault injection made the allocation fail.
    #[error(transparent)]
    Injected(#[from] Injected),
}

impl PhysMem {
    /// Allocates a frame that reads as zero, with one reference.
    ///
    /// For a single thread the order is fixed: the frame retired last comes first, then the frames
    /// never used, in ascending order.
    ///
    /// # Errors
    ///
    /// [`OutOfFrames`] if all frames are in use, or by fault injection.
    pub fn alloc(&self) -> Result<Frame<'_>, OutOfFrames> {
        self.alloc_as(FrameFlags::empty(), None)
    }
    /// Allocates a frame with flags and an owner.
    pub(crate) fn alloc_as(
        &self,
        flags: FrameFlags,
        owner: Option<Owner>,
    ) -> Result<Frame<'_>, OutOfFrames> {
        self.inject.check(AllocKind::Frame)?;
        let pfn = self.free.take();
        let Some(pfn) = pfn else {
            self.note_no_frame();
            return Err(OutOfFrames::UsedUp(self.config.frames));
        };
        self.init_allocated(pfn, flags, owner);
        Ok(self.adopt(pfn))
    }
    /// Initializes a frame off the free list with one reference. Flags and owner are stored before
    /// the count: a thread that gets another reference by the number finds them.
    pub(super) fn init_allocated(&self, pfn: Pfn, flags: FrameFlags, owner: Option<Owner>) {
        let meta = self.meta(pfn);
        meta.flags.store(flags.bits(), Ordering::Relaxed);
        meta.owner
            .store(owner.map_or(0, Owner::word), Ordering::Relaxed);
        meta.counts.init_allocated(pfn);
    }
    /// Initializes a frame off the free list with one mapping, which owns the reference.
    #[inline]
    pub(super) fn init_mapped(&self, pfn: Pfn, flags: FrameFlags, owner: Owner) {
        let meta = self.meta(pfn);
        meta.flags.store(flags.bits(), Ordering::Relaxed);
        meta.owner.store(owner.word(), Ordering::Relaxed);
        meta.counts.init_mapped(pfn);
    }
    /// Retires a frame whose last reference is gone.
    fn retire(&self, pfn: Pfn) {
        if self.leave(pfn, self.meta(pfn)) {
            self.free.put(pfn);
        }
    }
    /// Does all of a retirement but the free list, to which a batch adds many frames at once.
    /// Returns false for a part of a huge page of a pool, which goes back there instead.
    #[inline]
    fn leave(&self, pfn: Pfn, meta: Meta<'_>) -> bool {
        self.watch_retirement(pfn);
        let flags = meta.flags();
        if flags.intersects(FrameFlags::LRU | FrameFlags::EXPORTED) {
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
        !(flags.contains(FrameFlags::LARGE) && self.return_to_pool(pfn))
    }
    /// Releases the contents; apart, so that `leave` stays small.
    #[inline(never)]
    fn clear_page(&self, pfn: Pfn) {
        if let Some(page) = self.page(pfn) {
            page.clear();
        }
    }

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
    /// Removes a mapping and merges the bits of its entry. Returns true if that was the last
    /// reference, and the frame is retired now but for the free list.
    ///
    /// An exported frame gets a reference and a deferred notice first, and so stays.
    #[inline]
    pub(super) fn drop_mapping(&self, pfn: Pfn, used: AccessBits) -> bool {
        let flags = self.meta(pfn).flags();
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
        self.drop_merged_mapping(pfn)
    }
    /// Removes a mapping whose bits were merged before. The caller has the frame locked, or has
    /// deferred its notice.
    #[inline]
    pub(super) fn drop_merged_mapping(&self, pfn: Pfn) -> bool {
        let meta = self.meta(pfn);
        meta.counts.unshare(pfn) && self.leave(pfn, meta)
    }
    /// Sets the observer of the machine's frames; the first one stays.
    pub(crate) fn set_watch(&self, watch: Arc<dyn FrameWatch>) {
        let _first = self.watch.get_or_init(|| watch);
    }
    /// Tells the observer of a retirement, if there is an observer.
    #[inline]
    pub(super) fn watch_retirement(&self, pfn: Pfn) {
        if let Some(watch) = self.watch.get() {
            self.tell_retirement(&**watch, pfn);
        }
    }
    /// Apart, so that a machine without an observer pays one load and a branch.
    #[cold]
    #[inline(never)]
    fn tell_retirement(&self, watch: &dyn FrameWatch, pfn: Pfn) {
        watch.retiring(pfn);
        self.watch_clean(pfn);
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
