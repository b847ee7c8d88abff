//! Splitting huge pages and folios: those that are to be given up (`split_folio_to_list`), and
//! those of which a part was given back (`deferred_split_scan`).

use super::shrink::{Fate, Reclaim};
use crate::{
    addr::Pfn,
    ctx::{Below, Cx, FolioCx, Sleepable, rank},
    frame::{FrameFlags, FrameLock, Large},
    rmap::{Blocking, dissolve, split_large_of, split_object_folio, unmap_object_folio},
};

impl Reclaim<'_> {
    /// Splits the huge page of a locked frame that is to be given up: page by page, as if swap had
    /// no room for all in a row. Returns the fate of the frame if it is not given up.
    pub(super) fn split_first(
        &self,
        cx: &mut FolioCx<'_>,
        locked: &FrameLock<'_>,
        flags: FrameFlags,
        blocking: Blocking,
    ) -> Option<Fate> {
        if blocking == Blocking::MustNot {
            return Some(Fate::Deferred);
        }
        let kinds = FrameFlags::ANON | FrameFlags::SWAP_BACKED;
        if flags & kinds == FrameFlags::SWAP_BACKED {
            return self.split_shared(cx, locked);
        }
        (!self.split_locked(cx, locked, flags)).then_some(Fate::Kept)
    }
    /// Unmaps the huge page or folio of shared memory that a locked frame is part of, as a whole,
    /// and splits it to write it page by page. A clean one needs no write, and no split: all of its
    /// pages go. Returns the fate of the frame if it is not given up.
    fn split_shared(&self, cx: &mut FolioCx<'_>, locked: &FrameLock<'_>) -> Option<Fate> {
        let (registry, mem) = (&self.host().registry, self.mem());
        if !unmap_object_folio(registry, mem, cx, locked) {
            return Some(Fate::Kept);
        }
        let (owner, index) = self.owner_of(locked)?;
        let frames = match owner.folio(index) {
            Some(folio) => folio.frames,
            None => mem.large_parts(Large::huge(locked.pfn().head())).collect(),
        };
        let is_dirty = |pfn: &Pfn| mem.flags(*pfn).contains(FrameFlags::DIRTY);
        if !frames.iter().any(is_dirty) {
            dissolve(&*owner, mem, index, &frames);
            return None;
        }
        if !mem.swap().is_on() {
            return Some(Fate::Active); // There is nowhere to write it (`shmem_writeout`).
        }
        (!split_object_folio(registry, mem, cx, locked)).then_some(Fate::Kept)
    }
    /// Returns true if the page is part of a huge page, or of a folio of shared memory.
    pub(super) fn is_whole(&self, locked: &FrameLock<'_>, flags: FrameFlags) -> bool {
        let is_shared = || {
            let kinds = FrameFlags::ANON | FrameFlags::SWAP_BACKED | FrameFlags::SWAP_CACHE;
            let owner = self
                .owner_of(locked)
                .filter(|_| flags & kinds == FrameFlags::SWAP_BACKED);
            owner.is_some_and(|(owner, index)| owner.folio(index).is_some())
        };
        flags.contains(FrameFlags::LARGE) || is_shared()
    }
    /// Splits the huge page that a locked frame is part of. Returns false if it cannot be split, as
    /// a private one that is pinned (`can_split_folio`).
    fn split_locked(
        &self,
        cx: &mut FolioCx<'_>,
        locked: &FrameLock<'_>,
        flags: FrameFlags,
    ) -> bool {
        let (registry, mem) = (&self.host().registry, self.mem());
        if flags.contains(FrameFlags::ANON) {
            let split = !mem.is_pinned(locked.pfn());
            if split {
                split_large_of(registry, mem, cx, locked);
            }
            return split;
        }
        split_object_folio(registry, mem, cx, locked)
    }
    /// Splits every huge page of private memory of which a part was given back, and returns how
    /// many. The page that was allocated last comes first, as the kernel's scan does with pages
    /// that it has not met before.
    pub(crate) fn split_deferred<R: Below<rank::Folio>>(
        &self,
        cx: &mut Cx<'_, R, Sleepable>,
    ) -> usize {
        let partly = self.mem().partly_given_back();
        let split = partly.into_iter().rev().filter(|&pfn| self.split(cx, pfn));
        split.count()
    }
    /// Splits the huge page that frame `pfn` is part of, wherever it is mapped (`split_folio`).
    /// Returns false, and the page stays huge, if it cannot be split, as one of a pool.
    pub(crate) fn split<R: Below<rank::Folio>>(
        &self,
        cx: &mut Cx<'_, R, Sleepable>,
        pfn: Pfn,
    ) -> bool {
        let mem = self.mem();
        let Some(part) = mem.try_get(pfn) else {
            return false;
        };
        if mem.is_of_pool(pfn) {
            return false;
        }
        let locked = mem.lock(cx, part);
        let flags = mem.flags(pfn);
        // Without the flag, another thread was first.
        let split = !flags.contains(FrameFlags::LARGE)
            || self.split_locked(&mut cx.descend(), &locked, flags);
        drop(locked);
        // Drivers that have frames of it by number are called after its lock is released.
        self.host().settle_exports(cx);
        split
    }
}
