//! Splitting huge pages and folios: those that are to be given up (`split_folio_to_list`), and
//! those of which a part was given back (`deferred_split_scan`).

use super::shrink::{Fate, Reclaim};
use crate::{
    addr::Pfn,
    ctx::{Below, Cx, FolioCx, Sleepable, rank},
    frame::{Frame, FrameFlags, FrameLock, Large},
    rmap::{Blocking, discard_large, split_large_of, split_object_folio, unmap_object_folio},
};

impl<'r> Reclaim<'r> {
    /// Splits the large page of a locked frame that is to be given up: page by page, as if swap had
    /// no room for all in a row. A private one that `MADV_FREE` has marked goes as a whole. Returns
    /// the fate of the frame if it is not given up now; the other frames come `next`.
    pub(super) fn split_first(
        &self,
        cx: &mut FolioCx<'_>,
        locked: &FrameLock<'r>,
        (flags, blocking): (FrameFlags, Blocking),
        next: &mut Vec<Frame<'r>>,
    ) -> Option<Fate> {
        if blocking == Blocking::MustNot {
            return Some(Fate::Deferred);
        }
        let kinds = FrameFlags::ANON | FrameFlags::SWAP_BACKED;
        if flags & kinds == FrameFlags::SWAP_BACKED {
            return self.split_shared(cx, locked);
        }
        match self.mem().private_large(locked.pfn()) {
            Some(page) if !flags.contains(FrameFlags::SWAP_BACKED) => {
                Some(self.discard_whole(cx, (locked, page)))
            }
            Some(page) => self.split_private(cx, (locked, page), next),
            None => (!self.split_locked(cx, locked, flags)).then_some(Fate::Kept),
        }
    }
    /// Gives up all of a large page of private memory that `MADV_FREE` has marked.
    fn discard_whole(&self, cx: &mut FolioCx<'_>, of: (&FrameLock<'_>, Large)) -> Fate {
        let (registry, mem) = (&self.host().registry, self.mem());
        let frames = mem.parts_left(of.1).count() as u64;
        match discard_large(registry, mem, cx, of) {
            Ok(()) => Fate::Freed(frames),
            Err(_) => Fate::Active,
        }
    }
    /// Splits a large page of private memory, and takes its frames off their lists: the last one is
    /// next, and the first one goes now. If the first one is gone, the one that stood for the page
    /// comes last.
    fn split_private(
        &self,
        cx: &mut FolioCx<'_>,
        (locked, page): (&FrameLock<'r>, Large),
        next: &mut Vec<Frame<'r>>,
    ) -> Option<Fate> {
        let (registry, mem) = (&self.host().registry, self.mem());
        if mem.is_pinned(locked.pfn()) {
            return Some(Fate::Kept); // `can_split_folio`
        }
        let others = mem.large_parts(page).filter(|&part| part != locked.pfn());
        let others: Vec<_> = others.filter_map(|part| mem.try_get(part)).collect();
        split_large_of(registry, mem, cx, locked);
        let has_first = locked.pfn() == page.head();
        if !has_first {
            next.push(locked.frame().clone());
        }
        next.extend(others.into_iter().filter(|part| {
            // Those that held only zeros are mapped no longer.
            mem.lru_remove(part.pfn()) && mem.mapcount(part.pfn()) > 0
        }));
        (!has_first).then_some(Fate::Split)
    }
    /// Unmaps the huge page or folio of shared memory that a locked frame is part of, as a whole,
    /// and splits it to write it page by page. A clean one needs no write, and no split: all of its
    /// pages go. Returns the fate of the frame if it is not given up.
    fn split_shared(&self, cx: &mut FolioCx<'_>, locked: &FrameLock<'_>) -> Option<Fate> {
        let (registry, mem) = (&self.host().registry, self.mem());
        if !unmap_object_folio(registry, mem, cx, locked) {
            return Some(Fate::Kept);
        }
        if !self.is_whole(locked, mem.flags(locked.pfn())) {
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
    /// Splits every large page of private memory of which a part was given back, and returns how
    /// many. The page that came into the queue last is the first, as in the kernel's scan.
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
