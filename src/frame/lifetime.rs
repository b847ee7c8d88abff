//! The life of a frame: allocation, references and mappings, retirement.

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

/// Every frame is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum OutOfFrames {
    /// Really.
    #[error("all {0} frames are in use")]
    UsedUp(u32),
    /// On purpose.
    #[error(transparent)]
    Injected(#[from] Injected),
}

impl PhysMem {
    /// A frame that reads as zero, with one reference.
    ///
    /// For one thread the order is fixed: the frame retired last comes first, then those never used, ascending.
    ///
    /// # Errors
    ///
    /// [`OutOfFrames`] when all are in use.
    pub fn alloc(&self) -> Result<Frame<'_>, OutOfFrames> {
        self.alloc_as(FrameFlags::empty(), None)
    }
    /// The same, born with flags and an owner.
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
    /// A frame off the free list gets one reference. The rest comes first: whoever gets another one by the number finds it.
    pub(super) fn init_allocated(&self, pfn: Pfn, flags: FrameFlags, owner: Option<Owner>) {
        let meta = self.meta(pfn);
        meta.flags.store(flags.bits(), Ordering::Relaxed);
        meta.owner
            .store(owner.map_or(0, Owner::word), Ordering::Relaxed);
        meta.counts.init_allocated(pfn);
    }
    /// The same with one mapping, which has the reference.
    #[inline]
    pub(super) fn init_mapped(&self, pfn: Pfn, flags: FrameFlags, owner: Owner) {
        let meta = self.meta(pfn);
        meta.flags.store(flags.bits(), Ordering::Relaxed);
        meta.owner.store(owner.word(), Ordering::Relaxed);
        meta.counts.init_mapped(pfn);
    }
    fn retire(&self, pfn: Pfn) {
        self.leave(pfn, self.meta(pfn));
        self.free.put(pfn);
    }
    /// The last reference is gone: all that retiring a frame is but the free list.
    #[inline]
    fn leave(&self, pfn: Pfn, meta: Meta<'_>) {
        self.watch_retirement(pfn);
        if (meta.flags()).intersects(FrameFlags::LRU | FrameFlags::EXPORTED) {
            self.lru_remove(pfn);
            self.unexport(pfn);
        }
        // The generation first: from here on every view of the frame is stale. Who gave up the last reference is alone.
        let next = meta.generation.load(Ordering::Relaxed).wrapping_add(1);
        meta.generation.store(next, Ordering::Release);
        if self.config.contents != Contents::None {
            self.clear_page(pfn);
        }
    }
    #[inline(never)]
    fn clear_page(&self, pfn: Pfn) {
        if let Some(page) = self.page(pfn) {
            page.clear();
        }
    }

    /// One more reference on a frame that somebody holds.
    pub(crate) fn get(&self, pfn: Pfn) -> Frame<'_> {
        self.meta(pfn).counts.get_ref(pfn);
        self.adopt(pfn)
    }
    /// One more reference unless the frame is free.
    pub(crate) fn try_get(&self, pfn: Pfn) -> Option<Frame<'_>> {
        self.meta(pfn).counts.try_get_ref().then(|| self.adopt(pfn))
    }
    pub(super) fn put(&self, pfn: Pfn) {
        if self.meta(pfn).counts.put_ref(pfn) {
            self.retire(pfn);
        }
    }
    /// An entry maps the frame with the reference that its maker gave up.
    pub(crate) fn map_inc(&self, pfn: Pfn) {
        self.meta(pfn).counts.map(pfn);
    }
    /// One more entry maps the frame.
    pub(crate) fn share(&self, pfn: Pfn) {
        self.meta(pfn).counts.share(pfn, 1);
    }
    /// As many more of a private frame, which one entry alone may have had until now.
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
    /// An entry stops mapping the frame, and says how it was used; whether that was the last reference. Then it is retired
    /// but for the free list. One that is exported stays until that was told.
    #[inline]
    pub(super) fn drop_mapping(&self, pfn: Pfn, used: AccessBits) -> bool {
        let flags = self.meta(pfn).flags();
        // Of private memory nobody will ever ask.
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
    /// The same where its use was noted, and whoever has the frame locked tells of it.
    #[inline]
    pub(super) fn drop_merged_mapping(&self, pfn: Pfn) -> bool {
        let meta = self.meta(pfn);
        let last = meta.counts.unshare(pfn);
        if last {
            self.leave(pfn, meta);
        }
        last
    }
    /// Has `watch` look on from now on; the first one stays.
    pub(crate) fn set_watch(&self, watch: Arc<dyn FrameWatch>) {
        let _first = self.watch.get_or_init(|| watch);
    }
    #[inline]
    pub(super) fn watch_retirement(&self, pfn: Pfn) {
        if let Some(watch) = self.watch.get() {
            self.tell_retirement(&**watch, pfn);
        }
    }
    #[cold]
    #[inline(never)]
    fn tell_retirement(&self, watch: &dyn FrameWatch, pfn: Pfn) {
        watch.retiring(pfn);
        self.watch_clean(pfn);
    }
    /// The frame is clean as far as anybody knows, and no external MMU has it: is that true?
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
    /// An entry stops mapping the frame; the last reference retires it.
    pub(super) fn unshare(&self, pfn: Pfn) {
        self.retired().unmap(pfn, AccessBits::default());
    }
}
