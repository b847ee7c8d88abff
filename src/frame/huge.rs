//! Huge pages: 512 frames in a row, the first at a multiple of 512.
//!
//! Each frame keeps its own counts, so a huge page that is mapped in parts needs no accounts of its
//! own; a question about the whole page asks all of its frames
//! (docs/adr/0006-a-huge-page-is-a-marked-leaf.md).

use super::{
    alloc::OutOfFrames,
    flags::FrameFlags,
    inject::AllocKind,
    mem::{Frame, PhysMem},
    pfn::{HUGE, HUGE_ZERO},
};
use crate::{addr::Pfn, sync::Ordering};

/// A new huge page: one reference on each of its frames, given back on drop.
#[derive(Debug)]
pub(crate) struct HugeFrame<'m> {
    mem: &'m PhysMem,
    head: Pfn,
}

impl PhysMem {
    /// Returns the first frame number of the huge zero page.
    pub fn huge_zero_pfn(&self) -> Pfn {
        HUGE_ZERO
    }
    /// Allocates 512 frames in a row that read as zero.
    ///
    /// # Errors
    ///
    /// [`OutOfFrames`] if there is no free block, or by fault injection.
    pub(crate) fn alloc_huge(&self) -> Result<HugeFrame<'_>, OutOfFrames> {
        self.inject().check(AllocKind::Frame)?;
        let charging = self.charge(HUGE.into())?;
        let head = self.free.take_block(HUGE);
        drop(charging);
        let head = head.ok_or(OutOfFrames::UsedUp(self.capacity()))?;
        self.has_huge.store(true, Ordering::Relaxed);
        for i in 0..HUGE {
            self.init_allocated(head.nth(i), FrameFlags::LARGE, None);
        }
        Ok(HugeFrame { mem: self, head })
    }
    /// Returns true if the frame is part of a huge page.
    #[inline]
    pub(crate) fn is_large(&self, pfn: Pfn) -> bool {
        self.flags(pfn).contains(FrameFlags::LARGE)
    }
    /// Returns true if there has ever been a huge page, one of a pool apart.
    pub(crate) fn has_huge(&self) -> bool {
        self.has_huge.load(Ordering::Relaxed)
    }
    /// Takes over the references that [`HugeFrame::into_raw`] left.
    pub(crate) fn adopt_huge(&self, head: Pfn) -> HugeFrame<'_> {
        HugeFrame { mem: self, head }
    }
    /// Returns the frames that are still part of the huge page; a frame that was given back, and
    /// may be in other use, is left out.
    pub(crate) fn huge_parts(&self, head: Pfn) -> impl Iterator<Item = Pfn> {
        (0..HUGE)
            .map(move |i| head.nth(i))
            .filter(|&pfn| self.is_large(pfn))
    }
    /// Returns the generation in which `pfn` may be viewed as part of the huge page that began at
    /// `head` in generation `since`: the frame's own if it still is a part. For a frame that has
    /// left the page, whatever its use now, the result is a generation that it is not in, so that a
    /// view of it is stale.
    ///
    /// A frame leaves the page when it is given back, or with all others when the page is split or
    /// given back whole. Until a block is free as a whole, no frame of it becomes part of a huge
    /// page again. So a frame that still has a reference and the flag has been a part all the time,
    /// if the head has not been retired.
    pub(crate) fn generation_within(&self, pfn: Pfn, head: Pfn, since: u32) -> u32 {
        // First: a frame that is retired from here on makes it stale.
        let now = self.generation(pfn);
        let is_part =
            || self.refcount(pfn) > 0 && self.is_large(pfn) && self.generation(head) == since;
        if pfn.is_zero() || is_part() {
            now
        } else {
            now.wrapping_sub(1)
        }
    }
    /// Returns a frame of each huge page of private memory of which a part was given back, in
    /// ascending order (`folio_test_partially_mapped`). Pages of a pool are left out: the rest of
    /// one that is pinned waits for the end of the pins.
    ///
    /// Looks at all frames, unless no part was given back since the last call. A caller that leaves
    /// some of the pages as they are says so ([`note_partly_given_back`]).
    ///
    /// [`note_partly_given_back`]: Self::note_partly_given_back
    pub(crate) fn partly_given_back(&self) -> Vec<Pfn> {
        // Acquire, with the release of the note: the frame is free for this thread as well.
        if !self.has_partial.swap(false, Ordering::Acquire) {
            return Vec::new();
        }
        let large = FrameFlags::LARGE | FrameFlags::ANON;
        let is_part = |&pfn: &Pfn| self.refcount(pfn) > 0 && self.flags(pfn).contains(large);
        // The zero page is frame 0, so the frames of a machine are one more than its capacity.
        let blocks = 1..(self.capacity() + 1) / HUGE;
        let heads = blocks.map(|block| Pfn(block * HUGE));
        let made = heads.filter(|&head| self.is_made(head));
        made.filter_map(|head| {
            let parts: Vec<Pfn> = (0..HUGE).map(|i| head.nth(i)).filter(is_part).collect();
            let first = parts.first().copied();
            first.filter(|&part| parts.len() < HUGE as usize && !self.is_of_pool(part))
        })
        .collect()
    }
    /// Notes that a part of a huge page was given back, for
    /// [`partly_given_back`](Self::partly_given_back).
    pub(crate) fn note_partly_given_back(&self) {
        self.has_partial.store(true, Ordering::Release);
    }
    /// Notes that a frame of a huge page is retired. Returns true if the page is of a pool, which
    /// the frame goes back to.
    #[cold]
    #[inline(never)]
    pub(super) fn part_retired(&self, pfn: Pfn) -> bool {
        self.note_partly_given_back();
        self.return_to_pool(pfn)
    }
    /// Returns the number of entries, of all processes, that map any part of the huge page.
    pub(crate) fn huge_mappings(&self, head: Pfn) -> u64 {
        self.huge_parts(head)
            .map(|pfn| u64::from(self.mapcount(pfn)))
            .sum()
    }
    /// Returns true if anything but entries and the reference `part` holds a part of the huge page
    /// of `part`: it cannot be split then (`can_split_folio`).
    pub(crate) fn is_huge_held(&self, part: &Frame<'_>) -> bool {
        let own = |pfn| u32::from(pfn == part.pfn());
        self.huge_parts(part.pfn().head())
            .any(|pfn| self.refcount(pfn) > self.mapcount(pfn) + own(pfn))
    }
    /// Ends the huge page: its frames are independent from now on.
    pub(crate) fn forget_huge(&self, head: Pfn) {
        for i in 0..HUGE {
            self.clear_flags(head.nth(i), FrameFlags::LARGE);
        }
    }
}

impl HugeFrame<'_> {
    /// Returns the first frame of the page.
    pub(crate) fn head(&self) -> Pfn {
        self.head
    }
    /// Leaves the references to the entries that map the frames; [`PhysMem::adopt_huge`] takes them
    /// back.
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
