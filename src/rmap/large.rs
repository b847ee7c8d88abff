//! Huge pages of objects: taken out of all page tables at once.

use super::{
    mapping::Mapping,
    registry::{OwnerRef, Registry},
    space::EvenCows,
};
use crate::ctx::FolioCx;

use crate::{
    addr::{PMD_PAGES, Pfn},
    ctx::{Below, Cx, Sleepable, rank},
    frame::{FrameFlags, FrameLock, HUGE, PhysMem},
};

impl Mapping {
    /// Has every address space give up the table that mapped the small pages of a block, of which the huge page that
    /// begins with `head` and is locked has become the object's (`retract_page_tables`).
    pub(crate) fn retract<R: Below<rank::Rmap>>(
        &self,
        cx: &mut Cx<'_, R, Sleepable>,
        first: u64,
        head: Pfn,
    ) {
        let pages = (first, first + u64::from(HUGE));
        self.walk_range(cx.descend(), pages, |cx, spot, part| {
            let fits = part.pages() == u64::from(HUGE) && part.start().is_aligned(PMD_PAGES);
            if fits && spot.nonlinear.is_none() {
                spot.space.retract(cx, spot, head);
            }
            true
        });
    }
    /// Drops every mapping of a huge page, whose first frame is locked and page `first`: VMA by VMA, each in a window over
    /// its part, until nothing maps it. The first one is visited in any case (`try_to_unmap`).
    pub(crate) fn unmap_huge<R: Below<rank::Rmap>>(
        &self,
        mem: &PhysMem,
        cx: &mut Cx<'_, R, Sleepable>,
        (head, first): (Pfn, u64),
    ) {
        let pages = (first, first + u64::from(HUGE));
        self.walk_range(cx.descend(), pages, |cx, spot, part| {
            match spot.nonlinear {
                Some(vma) => spot.space.unmap_nonlinear(cx, vma, pages.0, pages.1),
                None => {
                    let _none_left = spot.space.split_folio(cx, part, head);
                }
            }
            mem.huge_mappings(head) > 0
        });
    }
}

impl Mapping {
    /// Drops mappings of pages `[from, to)`, VMA by VMA, each in a window over its part, as long as some are `mapped`. The first
    /// one is visited in any case.
    pub(crate) fn unmap_while<R: Below<rank::Rmap>>(
        &self,
        cx: &mut Cx<'_, R, Sleepable>,
        pages: (u64, u64),
        mapped: impl Fn() -> bool,
    ) {
        self.walk_range(cx.descend(), pages, |cx, spot, part| {
            match spot.nonlinear {
                Some(vma) => spot.space.unmap_nonlinear(cx, vma, pages.0, pages.1),
                None => spot.space.unmap_range(cx, part, EvenCows::No),
            }
            mapped()
        });
    }
}

/// Makes small pages of the huge page of an object that a locked frame is part of; nothing maps them then. Says whether it
/// could: not if somebody is at work on it, or has a part of it locked in memory.
pub(crate) fn split_object_huge(
    registry: &Registry,
    mem: &PhysMem,
    cx: &mut FolioCx<'_>,
    locked: &FrameLock<'_>,
) -> bool {
    let (pfn, head) = (locked.pfn(), locked.pfn().head());
    let Some(owner) = locked.owner() else {
        return false;
    };
    let Some(OwnerRef::Mapping(mapping)) = registry.find(owner.id) else {
        return false;
    };
    let Some(mapping) = mapping.upgrade() else {
        return false;
    };
    // The lock of the first frame is that of the page.
    let _whole = match pfn == head {
        true => None,
        false => match mem.try_get(head).map(|head| mem.try_lock(head)) {
            Some(Ok(whole)) => Some(whole),
            Some(Err(_)) | None => return false,
        },
    };
    if !mem.flags(pfn).contains(FrameFlags::LARGE) {
        return true; // Somebody was first.
    }
    let kept = |part| mem.flags(part).contains(FrameFlags::UNEVICTABLE);
    if mem.huge_parts(head).any(kept) {
        return false;
    }
    let first = owner.index - u64::from(pfn.0 - head.0);
    mapping.unmap_huge(mem, cx, (head, first));
    let split = mem.huge_mappings(head) == 0;
    if split {
        mem.forget_huge(head);
    }
    split
}
