//! Writing dirty pages of a disk file to its store.
//!
//! A page becomes clean before its bytes are read for the store, and its mappings lose the right to
//! write before that: a store that comes later faults and makes the page dirty again, so none is
//! lost.

use super::{DiskFile, MemoryObject, cache::WriteBack, io::ByteSpan, store::BLOCK};
use crate::{
    addr::{PAGE_SIZE, Pfn},
    ctx::{Below, Cx, FolioCx, Sleepable, rank},
    error::ObjectError,
    frame::{Frame, FrameFlags, FrameLock, PhysMem},
};

impl DiskFile {
    /// Writes one page back if it is still in the cache and dirty.
    pub(super) fn write_page<R: Below<rank::Folio>>(
        &self,
        cx: &mut Cx<'_, R, Sleepable>,
        index: u64,
        frame: Frame<'_>,
    ) -> Result<(), ObjectError> {
        let locked = self.cache.host().mem().lock(cx, frame);
        if !self.cache.holds(&locked, index) || !self.is_dirty(locked.frame()) {
            return Ok(());
        }
        self.write_back(&mut cx.descend(), &locked, index)
    }
}

/// Marks a page dirty again on drop: its write failed, or panicked.
struct RedirtyOnFailure<'m>(&'m PhysMem, Pfn);

impl Drop for RedirtyOnFailure<'_> {
    fn drop(&mut self) {
        self.0.set_flags(self.1, FrameFlags::DIRTY);
    }
}

impl WriteBack for DiskFile {
    /// Removes the right to write from all mappings (`folio_clear_dirty_for_io`), then writes the
    /// page.
    ///
    /// Bytes beyond the end are not the file's: they are zeroed in the page itself, so that every
    /// mapping shows it at once (`ext4_bio_write_folio`).
    fn write_back(
        &self,
        cx: &mut FolioCx<'_>,
        locked: &FrameLock<'_>,
        index: u64,
    ) -> Result<(), ObjectError> {
        let mem = self.cache.host().mem();
        let pfn = locked.pfn();
        if mem.mapcount(pfn) > 0 {
            self.mapping().write_protect(mem, cx, index, pfn);
        }
        mem.watch_clean(pfn);
        mem.clear_flags(pfn, FrameFlags::DIRTY | FrameFlags::RECLAIM);
        let failed = RedirtyOnFailure(mem, pfn);
        let begin = index * PAGE_SIZE;
        let end = self.size().max(begin);
        if end < begin + PAGE_SIZE {
            ByteSpan::of(end..begin + PAGE_SIZE).zero(locked.frame());
        }
        let mut block = [0; BLOCK];
        mem.read(pfn, 0, &mut block);
        self.store.write(index, &block)?;
        std::mem::forget(failed);
        Ok(())
    }
}
