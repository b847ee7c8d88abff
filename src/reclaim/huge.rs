//! Splitting huge pages: those that are to be given up (`split_folio_to_list`), and those of which
//! a part was given back (`deferred_split_scan`).

use super::shrink::{Fate, Reclaim};
use crate::{
    addr::Pfn,
    ctx::{Below, Cx, FolioCx, Sleepable, rank},
    frame::{FrameFlags, FrameLock},
    rmap::{Blocking, split_huge_of, split_object_huge, unmap_object_huge},
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
        if flags & kinds == FrameFlags::SWAP_BACKED && !self.mem().swap().is_on() {
            // There is nowhere to write it (`shmem_writeout`).
            let unmapped = unmap_object_huge(&self.host().registry, self.mem(), cx, locked);
            return Some(if unmapped { Fate::Active } else { Fate::Kept });
        }
        (!self.split_locked(cx, locked, flags)).then_some(Fate::Kept)
    }
    /// Splits the huge page that a locked frame is part of. Returns false if it cannot be split.
    fn split_locked(
        &self,
        cx: &mut FolioCx<'_>,
        locked: &FrameLock<'_>,
        flags: FrameFlags,
    ) -> bool {
        let (registry, mem) = (&self.host().registry, self.mem());
        if flags.contains(FrameFlags::ANON) {
            split_huge_of(registry, mem, cx, locked);
            return true;
        }
        split_object_huge(registry, mem, cx, locked)
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
