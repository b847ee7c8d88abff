//! Allocation of large pages, and views of their frames.

use super::{
    alloc::OutOfFrames,
    flags::FrameFlags,
    inject::AllocKind,
    large_page::Large,
    mem::PhysMem,
    pfn::{HUGE, HUGE_ZERO, LEAST_FOLIO},
};
use crate::{addr::Pfn, sync::Ordering};

/// A new large page: one reference on each of its frames, given back on drop.
#[derive(Debug)]
pub(crate) struct LargeFrame<'m> {
    mem: &'m PhysMem,
    page: Large,
}

impl PhysMem {
    /// Returns the first frame number of the huge zero page.
    pub fn huge_zero_pfn(&self) -> Pfn {
        HUGE_ZERO
    }
    /// Allocates a huge page that reads as zero.
    ///
    /// # Errors
    ///
    /// [`OutOfFrames`] if there is no free block, or by fault injection.
    pub(crate) fn alloc_huge(&self) -> Result<LargeFrame<'_>, OutOfFrames> {
        self.alloc_large(HUGE)
    }
    /// Allocates a folio of so many frames, a power of two, that reads as zero.
    ///
    /// # Errors
    ///
    /// As [`alloc_huge`](Self::alloc_huge).
    pub(crate) fn alloc_folio(&self, frames: u32) -> Result<LargeFrame<'_>, OutOfFrames> {
        debug_assert!((LEAST_FOLIO..HUGE).contains(&frames) && frames.is_power_of_two());
        self.alloc_large(frames)
    }
    /// Allocates a large page of the size of another.
    ///
    /// # Errors
    ///
    /// As [`alloc_huge`](Self::alloc_huge).
    pub(crate) fn alloc_like(&self, page: Large) -> Result<LargeFrame<'_>, OutOfFrames> {
        self.alloc_large(page.frames())
    }
    fn alloc_large(&self, frames: u32) -> Result<LargeFrame<'_>, OutOfFrames> {
        self.inject().check(AllocKind::Frame)?;
        let charging = self.charge(frames.into())?;
        let head = self.free.take_block(frames);
        drop(charging);
        let head = head.ok_or(OutOfFrames::UsedUp(self.capacity()))?;
        self.has_large.store(true, Ordering::Relaxed);
        let page = self.make_large(head, frames);
        if frames == HUGE {
            self.partly.note(page, |page| self.is_left(page));
        }
        Ok(LargeFrame { mem: self, page })
    }
    /// Makes one large page of free frames, with a reference on each.
    pub(super) fn make_large(&self, head: Pfn, frames: u32) -> Large {
        // Before the flag, which tells others to ask for the size.
        let page = self.note_large(head, frames);
        for pfn in page.all() {
            self.init_allocated(pfn, FrameFlags::LARGE, None);
        }
        page
    }
    /// Takes over the references that [`LargeFrame::into_raw`] left.
    pub(crate) fn adopt_huge(&self, head: Pfn) -> LargeFrame<'_> {
        LargeFrame {
            mem: self,
            page: Large::huge(head),
        }
    }
    /// Returns the generation in which `pfn` may be viewed as part of the huge page that began at
    /// `head` in generation `since`: the frame's own if it still is a part. For a frame that has
    /// left the page, whatever its use now, the result is a generation that it is not in, so that a
    /// view of it is stale.
    ///
    /// A frame leaves the page when it is given back, or with all others when the page is split or
    /// given back whole. Until a block is free as a whole, no frame of it becomes part of a huge
    /// page again. So a frame that still has a reference and is part of a huge page has been a part
    /// all the time, if the head has not been retired.
    pub(crate) fn generation_within(&self, pfn: Pfn, head: Pfn, since: u32) -> u32 {
        // First: a frame that is retired from here on makes it stale.
        let now = self.generation(pfn);
        let is_part =
            || self.refcount(pfn) > 0 && self.is_huge_part(pfn) && self.generation(head) == since;
        if pfn.is_zero() || is_part() {
            now
        } else {
            now.wrapping_sub(1)
        }
    }
}

impl LargeFrame<'_> {
    /// Returns the first frame of the page.
    pub(crate) fn head(&self) -> Pfn {
        self.page.head()
    }
    /// Returns the page.
    pub(crate) fn page(&self) -> Large {
        self.page
    }
    /// Leaves the references to the entries that map the frames; [`PhysMem::adopt_huge`] takes them
    /// back.
    pub(crate) fn into_raw(self) -> Pfn {
        std::mem::ManuallyDrop::new(self).page.head()
    }
}

impl Drop for LargeFrame<'_> {
    fn drop(&mut self) {
        for pfn in self.page.all() {
            drop(self.mem.adopt(pfn));
        }
    }
}
