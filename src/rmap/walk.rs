//! From a locked frame to everything that may map it: `rmap_walk`.

use super::{
    exported::ExportOrder,
    registry::Registry,
    target::{Blocking, MappedAt, RmapCx, Unmap, UnmapRefused, Young},
};
use crate::ctx::FolioCx;

use crate::{
    addr::Pfn,
    ctx::{Below, Cx, Sleepable, rank},
    frame::{FrameLock, HUGE, PhysMem},
};

/// Visits every page of an address space that may map the frame, with the lock held that keeps it there. The visitor
/// says whether to go on, and checks whether the frame is really mapped where it is led.
pub(crate) fn walk_frame<R: Below<rank::Rmap>>(
    registry: &Registry,
    cx: &mut Cx<'_, R, Sleepable>,
    locked: &FrameLock<'_>,
    visit: impl FnMut(RmapCx<'_>, &MappedAt<'_>) -> bool,
) {
    walk_as(registry, cx, locked, locked.pfn(), visit);
}

/// The same of a frame that entries name by another number, `pfn`.
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

/// The same for the huge page that a locked frame is part of.
pub(crate) fn split_huge_of(
    registry: &Registry,
    mem: &PhysMem,
    cx: &mut FolioCx<'_>,
    locked: &FrameLock<'_>,
) {
    let head = locked.pfn().head();
    let Some(owner) = locked.owner() else {
        return;
    };
    if let Some(found) = registry.find(owner.id) {
        let first = owner.index - u64::from(locked.pfn().0 - head.0);
        let pages = (first, first + u64::from(HUGE));
        found.split_huge(mem, cx.descend(), head, pages);
    }
}

/// Takes out every mapping of a locked frame, until none is left (`try_to_unmap`).
///
/// # Errors
///
/// [`UnmapRefused`]: a mapping had to stay; those before it are gone.
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
    exports.tell(mem, cx, pfn, ExportOrder::BeforeRmaps);
    let mut out = Ok(());
    walk_frame(registry, cx, locked, |cx, spot| {
        out = spot.space.try_to_unmap(cx, spot, pfn, how, blocking);
        out.is_ok() && mem.mapcount(pfn) > 0
    });
    exports.tell(mem, cx, pfn, ExportOrder::AfterRmaps);
    match mem.mapcount(pfn) {
        0 => Ok(()),
        _ => out.and(Err(UnmapRefused::Needed)),
    }
}

/// Puts a frame back, or another in its place, wherever [`Unmap::Migration`] left a mark of `locked`
/// (`remove_migration_ptes`). `at`: whose pages it is looked for among.
pub(crate) fn restore(
    registry: &Registry,
    cx: &mut FolioCx<'_>,
    locked: &FrameLock<'_>,
    new: &FrameLock<'_>,
) {
    // The new frame has the owner already; the old one may have lost it.
    walk_as(registry, cx, new, locked.pfn(), |cx, spot| {
        spot.space.restore(cx, spot, locked.pfn(), new.pfn());
        true
    });
}

/// How a page was used since somebody last looked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Usage {
    /// By this many mappings.
    By(u32),
    /// It is locked in memory.
    Locked,
}

/// Asks every mapping of a locked frame, and every external MMU behind it, whether it was used, and clears what says
/// so (`folio_referenced`). All are asked, whatever the first says, but for the rest after a locked one.
pub(crate) fn referenced<R: Below<rank::Rmap>>(
    registry: &Registry,
    mem: &PhysMem,
    cx: &mut Cx<'_, R, Sleepable>,
    locked: &FrameLock<'_>,
) -> Usage {
    let pfn = locked.pfn();
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
        // Counted only now: a mapping that was shared unasked is a mapping since it was asked.
        asked < mem.mapcount(pfn) && out != Usage::Locked
    });
    out
}
