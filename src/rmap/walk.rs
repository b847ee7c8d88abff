//! Walks from a locked frame to everything that may map it (`rmap_walk`).

use super::{
    exported::ExportOrder,
    registry::Registry,
    target::{Blocking, MappedAt, RmapCx, Unmap, UnmapRefused, Young},
};
use crate::{
    addr::{Pfn, VpnRange},
    ctx::{Below, Cx, FolioCx, Sleepable, rank},
    frame::{FrameLock, Large, PhysMem},
};

/// Visits every page of an address space that may map the frame, with the lock held that keeps it
/// there.
///
/// The visitor returns true to continue. It must check that the frame is really mapped at the page.
pub(crate) fn walk_frame<R: Below<rank::Rmap>>(
    registry: &Registry,
    cx: &mut Cx<'_, R, Sleepable>,
    locked: &FrameLock<'_>,
    visit: impl FnMut(RmapCx<'_>, &MappedAt<'_>) -> bool,
) {
    walk_as(registry, cx, locked, locked.pfn(), visit);
}

/// Visits the pages that may map a frame, in nonlinear VMAs those whose entries name `pfn` instead
/// of it.
fn walk_as<R: Below<rank::Rmap>>(
    registry: &Registry,
    cx: &mut Cx<'_, R, Sleepable>,
    locked: &FrameLock<'_>,
    pfn: Pfn,
    mut visit: impl FnMut(RmapCx<'_>, &MappedAt<'_>) -> bool,
) {
    let Some(owner) = locked.owner() else {
        return;
    };
    if let Some(found) = registry.find(owner.id) {
        found.walk(cx.descend(), owner.index, pfn, &mut visit);
    }
}

/// Maps by small entries, wherever it is mapped, the large page of private memory that a locked
/// frame is part of, and makes its frames single pages (`split_folio`).
pub(crate) fn split_large_of(
    registry: &Registry,
    mem: &PhysMem,
    cx: &mut FolioCx<'_>,
    locked: &FrameLock<'_>,
) {
    let (Some(owner), Some(page)) = (locked.owner(), mem.large(locked.pfn())) else {
        return;
    };
    if let Some(found) = registry.find(owner.id)
        && let Some(pages) = page.pages(locked.pfn(), owner.index)
    {
        found.split_large(mem, cx.descend(), page, pages);
    }
}

/// Takes out every mapping of a locked frame (`try_to_unmap`).
///
/// # Errors
///
/// [`UnmapRefused`]: a mapping had to stay; the mappings before it are gone.
pub(crate) fn unmap_frame(
    registry: &Registry,
    mem: &PhysMem,
    cx: &mut FolioCx<'_>,
    locked: &FrameLock<'_>,
    how: Unmap,
    blocking: Blocking,
) -> Result<(), UnmapRefused> {
    let pfn = locked.pfn();
    let exports = &registry.exports;
    exports.notify_in_turn(mem, cx, pfn, ExportOrder::BeforeRmaps);
    let mut out = Ok(());
    walk_frame(registry, cx, locked, |cx, spot| {
        out = spot.space.try_to_unmap(cx, spot, pfn, how, blocking);
        out.is_ok() && mem.mapcount(pfn) > 0
    });
    exports.notify_in_turn(mem, cx, pfn, ExportOrder::AfterRmaps);
    match mem.mapcount(pfn) {
        0 => Ok(()),
        _ => out.and(Err(UnmapRefused::Needed)),
    }
}

/// Puts frame `new`, which may be the old one, in the place of every migration mark of `locked`
/// (`remove_migration_ptes`). The marks are looked for where the owner of `new` may be mapped.
pub(crate) fn restore(
    registry: &Registry,
    cx: &mut FolioCx<'_>,
    locked: &FrameLock<'_>,
    new: &FrameLock<'_>,
) {
    // The owner of the new frame is set by now; that of the old one may have been cleared.
    walk_as(registry, cx, new, locked.pfn(), |cx, spot| {
        spot.space.restore(cx, spot, locked.pfn(), new.pfn());
        true
    });
}

/// Replaces every mapping of a large page, whose frames are all locked, by migration marks: VMA by
/// VMA, each in a window over its part, until no mapping is left (`try_to_migrate`). `head` is its
/// first frame. Returns true if no mapping is left.
pub(crate) fn unmap_large_page(
    registry: &Registry,
    mem: &PhysMem,
    cx: &mut FolioCx<'_>,
    (head, page): (&FrameLock<'_>, Large),
) -> bool {
    let notify = |cx: &mut FolioCx<'_>, turn| {
        for pfn in page.all() {
            registry.exports.notify_in_turn(mem, cx, pfn, turn);
        }
    };
    notify(cx, ExportOrder::BeforeRmaps);
    walk_large_of(registry, cx, (head, page), |cx, spot, part| {
        // The marks in a nonlinear VMA would not be found again.
        if !spot.nonlinear {
            spot.space.leave_large(cx, spot, part, page);
        }
        mem.mappings_of_whole(page) > 0
    });
    notify(cx, ExportOrder::AfterRmaps);
    mem.mappings_of_whole(page) == 0
}

/// Puts the large page that begins with `new`, which may be the old one, in the place of every
/// migration mark of `old` (`remove_migration_ptes`). The marks are looked for where the owner of
/// `new` may be mapped.
pub(crate) fn restore_large_page(
    registry: &Registry,
    cx: &mut FolioCx<'_>,
    old: Large,
    new: &FrameLock<'_>,
) {
    let page = old.moved_to(new.pfn());
    walk_large_of(registry, cx, (new, page), |cx, spot, part| {
        spot.space.restore_large(cx, spot, part, (old, new.pfn()));
        true
    });
}

/// Reads and clears the use of the large page of private memory that a locked frame is part of: VMA
/// by VMA, each of which counts once.
fn referenced_large<R: Below<rank::Rmap>>(
    registry: &Registry,
    mem: &PhysMem,
    cx: &mut Cx<'_, R, Sleepable>,
    (locked, page): (&FrameLock<'_>, Large),
) -> Usage {
    let mut out = Usage::By(0);
    let mut asked = 0;
    walk_large_of(registry, cx, (locked, page), |cx, spot, part| {
        let (mappings, young) = spot.space.referenced_large(cx, spot, part, page);
        match (young, &mut out) {
            (Young::Locked, out) => *out = Usage::Locked,
            (Young::Yes, Usage::By(n)) => *n += 1,
            _ => {}
        }
        asked += mappings;
        asked < mem.large_mappings(page) && out != Usage::Locked
    });
    out
}

/// Drops every mapping of the large page of private memory that a locked frame is part of: VMA by
/// VMA, each in a window over its part (`try_to_unmap` of a page that `MADV_FREE` has marked).
///
/// # Errors
///
/// [`UnmapRefused`]: a part was written since, or is in use; the mappings before it are gone.
pub(crate) fn discard_large(
    registry: &Registry,
    mem: &PhysMem,
    cx: &mut FolioCx<'_>,
    (locked, page): (&FrameLock<'_>, Large),
) -> Result<(), UnmapRefused> {
    let mut out = Ok(());
    walk_large_of(registry, cx, (locked, page), |cx, spot, part| {
        out = spot
            .space
            .discard_large(cx, spot, part, (page, locked.pfn()));
        out.is_ok() && mem.large_mappings(page) > 0
    });
    match mem.large_mappings(page) {
        0 => Ok(()),
        _ => out.and(Err(UnmapRefused::Needed)),
    }
}

/// Visits the part of each VMA that may map the large page of a locked frame.
fn walk_large_of<R: Below<rank::Rmap>>(
    registry: &Registry,
    cx: &mut Cx<'_, R, Sleepable>,
    (locked, page): (&FrameLock<'_>, Large),
    mut visit: impl FnMut(RmapCx<'_>, &MappedAt<'_>, VpnRange) -> bool,
) {
    let Some(owner) = locked.owner() else {
        return;
    };
    if let Some(found) = registry.find(owner.id)
        && let Some(pages) = page.pages(locked.pfn(), owner.index)
    {
        found.walk_huge(cx.descend(), pages, &mut visit);
    }
}

/// The use of a page since it was last asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Usage {
    /// The page was used by this many mappings.
    By(u32),
    /// The page is locked in memory.
    Locked,
}

/// Reads and clears the use of a locked frame by every mapping, and by every external MMU behind it
/// (`folio_referenced`). All mappings are asked, except those after one that is locked in memory.
pub(crate) fn referenced<R: Below<rank::Rmap>>(
    registry: &Registry,
    mem: &PhysMem,
    cx: &mut Cx<'_, R, Sleepable>,
    locked: &FrameLock<'_>,
) -> Usage {
    let pfn = locked.pfn();
    if let Some(page) = mem.private_large(pfn) {
        return referenced_large(registry, mem, cx, (locked, page));
    }
    let mut out = Usage::By(0);
    if mem.mapcount(pfn) == 0 {
        return out;
    }
    let mut asked = 0;
    walk_frame(registry, cx, locked, |cx, spot| {
        match (spot.space.referenced(cx, spot, pfn), &mut out) {
            (None, _) => return true,
            (Some(Young::Locked), out) => *out = Usage::Locked,
            (Some(Young::Yes), Usage::By(n)) => *n += 1,
            (Some(_), _) => {}
        }
        asked += 1;
        // Counted only now: a mapping that a fork added, and that was not asked, is a mapping
        // since.
        asked < mem.mapcount(pfn) && out != Usage::Locked
    });
    out
}
