//! Allocation of frames, one or many at a time.
//!
//! Populating a leaf table takes a batch, with one lock of the free list. Guarantee: the outcome is
//! that of as many single calls, one after the other: the order of frames, the counts, the view of
//! an oracle, and the allocation that fault injection picks.

use super::{
    flags::FrameFlags,
    free::BATCH,
    inject::{AllocKind, Injected},
    mem::{Frame, PhysMem},
    owner::Owner,
};
use crate::{addr::Pfn, sync::Ordering};
use thiserror::Error;

/// No frame could be allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum OutOfFrames {
    /// All frames are in use; their number.
    #[error("all {0} frames are in use")]
    UsedUp(u32),
    /// The limit of memory is reached; the limit in pages.
    #[error("the limit of {0} pages is reached")]
    Limit(u64),
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
        let pfn = match self.has_limit() {
            false => self.free.take(),
            true => self.take_below_limit()?,
        };
        let Some(pfn) = pfn else {
            self.note_no_frame();
            return Err(OutOfFrames::UsedUp(self.config.frames));
        };
        self.init_allocated(pfn, flags, owner);
        Ok(self.adopt(pfn))
    }
    /// Takes a free frame, if there is one, under the limit of memory.
    #[cold]
    fn take_below_limit(&self) -> Result<Option<Pfn>, OutOfFrames> {
        let _charging = self.charge(1)?;
        Ok(self.free.take())
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
            // Likewise under a limit of memory: each is checked.
            let (want, charging) = if self.inject().is_on() || self.has_limit() {
                self.inject().check(AllocKind::Frame)?;
                (1, self.charge(1)?)
            } else {
                (left.min(BATCH), None)
            };
            let got = self.free.take_many(&mut pfns[..want]);
            drop(charging);
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
    fn init_mapped(&self, pfn: Pfn, flags: FrameFlags, owner: Owner) {
        let meta = self.meta(pfn);
        meta.flags.store(flags.bits(), Ordering::Relaxed);
        meta.owner.store(owner.word(), Ordering::Relaxed);
        meta.counts.init_mapped(pfn);
    }
}
