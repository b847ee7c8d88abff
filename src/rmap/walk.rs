//! From a locked frame to everything that may map it: `rmap_walk`.

use super::{
    registry::{OwnerRef, Registry},
    space::{Kept, RmapCx, Spot, Unmap},
};
use crate::{
    ctx::{Below, Cx, Sleepable, rank},
    frame::{FrameLock, PhysMem},
};

/// Visits every page of an address space that may map the frame, with the lock held that keeps it there. The visitor
/// says whether to go on, and checks whether the frame is really mapped where it is led.
pub(crate) fn walk_frame<R: Below<rank::Rmap>>(
    registry: &Registry,
    cx: &mut Cx<'_, R, Sleepable>,
    locked: &FrameLock<'_>,
    visit: impl FnMut(RmapCx<'_>, &Spot<'_>) -> bool,
) {
    let Some(owner) = locked.owner() else {
        return;
    };
    match registry.find(owner.id) {
        Some(OwnerRef::Anon(node)) => {
            if let Some(node) = node.upgrade() {
                node.walk(cx.descend(), owner.index, visit);
            }
        }
        Some(OwnerRef::Mapping(mapping)) => {
            if let Some(mapping) = mapping.upgrade() {
                mapping.walk(cx.descend(), owner.index, visit);
            }
        }
        None => {}
    }
}

/// Takes out every mapping of a locked frame, until none is left (`try_to_unmap`).
///
/// # Errors
///
/// [`Kept`]: a mapping had to stay; those before it are gone.
pub(crate) fn unmap_frame<R: Below<rank::Rmap>>(
    registry: &Registry,
    mem: &PhysMem,
    cx: &mut Cx<'_, R, Sleepable>,
    locked: &FrameLock<'_>,
    how: Unmap,
) -> Result<(), Kept> {
    let pfn = locked.pfn();
    let mut out = Ok(());
    walk_frame(registry, cx, locked, |cx, spot| {
        out = spot.space.try_to_unmap(cx, spot, pfn, how);
        out.is_ok() && mem.mapcount(pfn) > 0
    });
    match mem.mapcount(pfn) {
        0 => Ok(()),
        _ => Err(Kept),
    }
}
