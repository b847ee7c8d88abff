//! Splitting the huge pages of which a part was given back (`deferred_split_scan`).

use super::shrink::Reclaim;
use crate::{
    addr::Pfn,
    ctx::{Below, Cx, Sleepable, rank},
    frame::FrameFlags,
    rmap::{split_huge_of, split_object_huge},
};

impl Reclaim<'_> {
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
    /// Returns false, and the page stays huge, if it cannot be split.
    pub(crate) fn split<R: Below<rank::Folio>>(
        &self,
        cx: &mut Cx<'_, R, Sleepable>,
        pfn: Pfn,
    ) -> bool {
        let (mem, registry) = (self.mem(), &self.host().registry);
        let Some(part) = mem.try_get(pfn) else {
            return false;
        };
        let locked = mem.lock(cx, part);
        let split = {
            let cx = &mut cx.descend();
            let flags = mem.flags(pfn);
            if !flags.contains(FrameFlags::LARGE) {
                true // Another thread was first.
            } else if flags.contains(FrameFlags::ANON) {
                split_huge_of(registry, mem, cx, &locked);
                true
            } else {
                split_object_huge(registry, mem, cx, &locked)
            }
        };
        drop(locked);
        // Drivers that have frames of it by number are called after its lock is released.
        self.host().settle_exports(cx);
        split
    }
}
