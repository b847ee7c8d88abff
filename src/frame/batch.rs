//! Allocation and retirement of frames in batches, with one lock of the free list for each batch.
//!
//! Populating a leaf table takes a batch, unmapping one gives a batch back. Guarantee: the outcome
//! is that of as many single calls, one after the other: the order of frames, the counts, the view
//! of an oracle, and the allocation that fault injection picks.

use super::{
    access_bits::AccessBits, flags::FrameFlags, free::BATCH, inject::AllocKind,
    lifetime::OutOfFrames, mem::PhysMem, owner::Owner,
};
use crate::addr::Pfn;

/// Frames whose last reference is gone, collected on their way to the free list.
///
/// They get there when the batch is full or dropped, or by [`put_back`](Self::put_back).
pub(crate) struct Retired<'m> {
    mem: &'m PhysMem,
    pfns: [u32; BATCH],
    len: usize,
}

impl PhysMem {
    /// Returns an empty collection for frames that are about to be unmapped.
    #[inline]
    pub(crate) fn retired(&self) -> Retired<'_> {
        Retired {
            mem: self,
            pfns: [0; BATCH],
            len: 0,
        }
    }
    /// Allocates `count` frames for as many entries in a row, and passes each to `place`.
    ///
    /// Each frame starts with `flags`, one mapping that has its reference, and the next index of
    /// the owner.
    ///
    /// # Errors
    ///
    /// [`OutOfFrames`]; the frames before it have been placed.
    pub(crate) fn alloc_mapped(
        &self,
        flags: FrameFlags,
        mut owner: Owner,
        count: usize,
        mut place: impl FnMut(Pfn),
    ) -> Result<(), OutOfFrames> {
        let mut pfns = [Pfn(0); BATCH];
        let mut left = count;
        while left > 0 {
            // One at a time while fault injection counts allocations: each has a number of its own.
            let want = if self.inject().is_on() {
                self.inject().check(AllocKind::Frame)?;
                1
            } else {
                left.min(BATCH)
            };
            let got = self.free.take_many(&mut pfns[..want]);
            if got == 0 {
                self.note_no_frame();
                return Err(OutOfFrames::UsedUp(self.capacity()));
            }
            for &pfn in &pfns[..got] {
                self.init_mapped(pfn, flags, owner);
                owner.index += 1;
                place(pfn);
            }
            left -= got;
        }
        Ok(())
    }
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
