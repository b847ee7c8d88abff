//! Frames by the batch: what populating a leaf takes, and unmapping one gives back, with one lock of the free list.
//!
//! Guarantee: everything is as if the frames had been taken, or given back, one after the other: their order, the counts,
//! what an oracle sees, and where an allocation can be made to fail.

use super::{
    access_bits::AccessBits, flags::FrameFlags, free::BATCH, inject::AllocKind,
    lifetime::OutOfFrames, mem::PhysMem, owner::Owner,
};
use crate::addr::Pfn;

/// Frames whose last reference is gone, on their way to the free list; they get there when this goes, if not before.
pub(crate) struct Retired<'m> {
    mem: &'m PhysMem,
    pfns: [u32; BATCH],
    len: usize,
}

impl PhysMem {
    /// Collects frames that are unmapped.
    #[inline]
    pub(crate) fn retired(&self) -> Retired<'_> {
        Retired {
            mem: self,
            pfns: [0; BATCH],
            len: 0,
        }
    }
    /// Takes `count` frames for as many entries in a row: each born with these flags, one mapping with its reference, and
    /// an index of the owner above that of the frame before. `place` gets them one by one.
    ///
    /// # Errors
    ///
    /// [`OutOfFrames`]; those before it have been placed.
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
            // One at a time where one of them may be made to fail.
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
    /// The memory that they are of.
    #[inline]
    pub(crate) fn mem(&self) -> &'m PhysMem {
        self.mem
    }
    /// An entry stops mapping the frame, and says how it was used; the last reference retires it.
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
    /// The same of a frame that the caller has locked: whoever has it by number is told by the caller.
    pub(crate) fn unmap_locked(&mut self, pfn: Pfn, used: AccessBits) {
        if !self.mem.flags(pfn).contains(FrameFlags::ANON) {
            self.mem.merge_access_bits(pfn, used);
        }
        let last = self.mem.drop_merged_mapping(pfn);
        debug_assert!(!last, "its lock has a reference");
        self.still_referenced(pfn);
    }
    #[inline(never)]
    fn still_referenced(&mut self, pfn: Pfn) {
        if self.mem.in_swap_cache(pfn) && self.mem.mapcount(pfn) == 0 {
            // Nothing maps it and nothing refers to its slot: neither is needed (`free_swap_cache`).
            self.put_back();
            let _in_use = self.mem.swap_cache_drop_idle(pfn);
        }
    }
    /// Puts what there is on the free list: before anything else gives a frame back.
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
