//! Huge pages: 512 frames in a row, the first at a multiple of 512.
//!
//! Each frame keeps its own counts, so that a huge page which is mapped in parts needs no accounts of its own; what
//! concerns the whole is asked of all of them.

use super::{
    flags::FrameFlags,
    inject::AllocKind,
    lifetime::OutOfFrames,
    mem::PhysMem,
    pfn::{HUGE, HUGE_ZERO},
};
use crate::addr::Pfn;

/// A new huge page: one reference on each frame, given back when dropped.
#[derive(Debug)]
pub(crate) struct HugeFrame<'m> {
    mem: &'m PhysMem,
    head: Pfn,
}

impl PhysMem {
    /// First frame of the huge page that reads as zero.
    pub fn huge_zero_pfn(&self) -> Pfn {
        HUGE_ZERO
    }
    /// 512 frames in a row that read as zero.
    ///
    /// # Errors
    ///
    /// [`OutOfFrames`] when there are none.
    pub(crate) fn alloc_huge(&self) -> Result<HugeFrame<'_>, OutOfFrames> {
        self.inject().check(AllocKind::Frame)?;
        let head = self.free.take_block();
        let head = head.ok_or(OutOfFrames::UsedUp(self.capacity()))?;
        for i in 0..HUGE {
            self.init_allocated(head.nth(i), FrameFlags::LARGE, None);
        }
        Ok(HugeFrame { mem: self, head })
    }
    /// Takes over the references that [`HugeFrame::into_raw`] left.
    pub(crate) fn adopt_huge(&self, head: Pfn) -> HugeFrame<'_> {
        HugeFrame { mem: self, head }
    }
    /// The frames of a huge page; not those that were given back and are something else by now.
    pub(crate) fn huge_parts(&self, head: Pfn) -> impl Iterator<Item = Pfn> {
        (0..HUGE)
            .map(move |i| head.nth(i))
            .filter(|&pfn| self.flags(pfn).contains(FrameFlags::LARGE))
    }
    /// The generation in which `pfn` may be looked at as part of the huge page that began at `head` in its generation
    /// `since`: its own if it still is that. Of a frame that has left the page, whatever it is by now, one that it is not in.
    ///
    /// A frame leaves it by being given back, or with all others when the page is split or given back whole; until a block
    /// is free as a whole, no frame of it becomes part of a huge page again. So what still has a reference and the mark has
    /// been there all the time, if the head has.
    pub(crate) fn generation_within(&self, pfn: Pfn, head: Pfn, since: u32) -> u32 {
        // First: a frame that goes from here on makes it stale.
        let now = self.generation(pfn);
        let is_part = || {
            self.refcount(pfn) > 0
                && self.flags(pfn).contains(FrameFlags::LARGE)
                && self.generation(head) == since
        };
        if pfn.is_zero() || is_part() {
            now
        } else {
            now.wrapping_sub(1)
        }
    }
    /// Entries that map any part of it, in whatever process.
    pub(crate) fn huge_mappings(&self, head: Pfn) -> u64 {
        self.huge_parts(head)
            .map(|pfn| u64::from(self.mapcount(pfn)))
            .sum()
    }
    /// The huge page is one no more: its frames go their own ways.
    pub(crate) fn forget_huge(&self, head: Pfn) {
        for i in 0..HUGE {
            self.clear_flags(head.nth(i), FrameFlags::LARGE);
        }
    }
}

impl HugeFrame<'_> {
    /// Its first frame.
    pub(crate) fn head(&self) -> Pfn {
        self.head
    }
    /// Leaves the references to the entries that map the frames.
    pub(crate) fn into_raw(self) -> Pfn {
        std::mem::ManuallyDrop::new(self).head
    }
}

impl Drop for HugeFrame<'_> {
    fn drop(&mut self) {
        for i in 0..HUGE {
            drop(self.mem.adopt(self.head.nth(i)));
        }
    }
}
