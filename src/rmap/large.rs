//! Huge pages and folios of objects: dropped from all page tables at once.

use super::{
    mapping::Mapping,
    owner::{Folio, FrameOwner},
    registry::Registry,
    target::EvenCows,
};
use crate::{
    addr::{PMD_PAGES, Pfn},
    ctx::{Below, Cx, FolioCx, Sleepable, rank},
    frame::{FrameFlags, FrameLock, HUGE, Large, PhysMem},
};

impl Mapping {
    /// Drops, in every address space, the table that mapped the small pages of a block whose place
    /// the huge page that begins with the locked frame `head` has taken (`retract_page_tables`).
    pub(crate) fn retract<R: Below<rank::Rmap>>(
        &self,
        cx: &mut Cx<'_, R, Sleepable>,
        first: u64,
        head: Pfn,
    ) {
        let pages = (first, first + u64::from(HUGE));
        self.walk_range(cx.descend(), pages, |cx, spot, part| {
            let fits = part.pages() == u64::from(HUGE) && part.start().is_aligned(PMD_PAGES);
            if fits && !spot.nonlinear {
                spot.space.retract(cx, spot, head);
            }
            true
        });
    }
    /// Takes a huge page of a pool that begins with `head` away from private mappings of `pages`
    /// that have no reservation, for the process that has one (`unmap_ref_private`).
    pub(crate) fn steal<R: Below<rank::Rmap>>(
        &self,
        cx: &mut Cx<'_, R, Sleepable>,
        pages: (u64, u64),
        head: Pfn,
    ) {
        self.walk_range(cx.descend(), pages, |cx, spot, part| {
            spot.space.steal(cx, spot, part, head);
            true
        });
    }
    /// Drops mappings of a half-open range of pages, VMA by VMA, each in a window over its part, as
    /// long as `mapped` returns true. The first VMA gets its window in any case.
    pub(crate) fn unmap_while<R: Below<rank::Rmap>>(
        &self,
        cx: &mut Cx<'_, R, Sleepable>,
        pages: (u64, u64),
        cows: EvenCows,
        mapped: impl Fn() -> bool,
    ) {
        self.walk_range(cx.descend(), pages, |cx, spot, part| {
            match spot.nonlinear {
                true => (spot.space).unmap_nonlinear(cx, spot.vma, pages.0, pages.1),
                false => spot.space.unmap_range(cx, spot, part, cows),
            }
            mapped()
        });
    }
}

/// Splits the huge page or folio of an object that a locked frame is part of into single pages,
/// which nothing maps then (`split_folio`). If one of them is dirty, all are from here on. Returns
/// false, and the page stays as it is, if its first frame is locked elsewhere, or a part of it is
/// locked in memory.
pub(crate) fn split_object_folio(
    registry: &Registry,
    mem: &PhysMem,
    cx: &mut FolioCx<'_>,
    locked: &FrameLock<'_>,
) -> bool {
    unmap_whole(registry, mem, cx, locked, Becomes::Small)
}

/// Drops every mapping of the huge page or folio of an object that a locked frame is part of, and
/// splits it if no part is dirty. Returns false if it is not as [`split_object_folio`] requires.
pub(crate) fn unmap_object_folio(
    registry: &Registry,
    mem: &PhysMem,
    cx: &mut FolioCx<'_>,
    locked: &FrameLock<'_>,
) -> bool {
    unmap_whole(registry, mem, cx, locked, Becomes::SmallIfClean)
}

/// The fate of a huge page or folio that is unmapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Becomes {
    /// The page is split into single pages.
    Small,
    /// The page is split if no part of it is dirty, and stays whole otherwise.
    SmallIfClean,
}

fn unmap_whole(
    registry: &Registry,
    mem: &PhysMem,
    cx: &mut FolioCx<'_>,
    locked: &FrameLock<'_>,
    becomes: Becomes,
) -> bool {
    let (pfn, head) = (locked.pfn(), locked.pfn().head());
    let Some(owner) = locked.owner() else {
        return false;
    };
    let Some(mapping) = registry.find(owner.id) else {
        return false;
    };
    if !mem.is_large(pfn) {
        let Some(folio) = mapping.folio(owner.index) else {
            return true; // Another thread was first.
        };
        return unmap_parts(&*mapping, mem, &folio, becomes, |is_mapped| {
            mapping.unmap_folio(cx, folio.pages(), is_mapped);
        });
    }
    // The lock of the first frame guards the huge page.
    let _whole = match pfn == head {
        true => None,
        false => match mem.try_get(head).map(|head| mem.try_lock(head)) {
            Some(Ok(whole)) => Some(whole),
            Some(Err(_)) | None => return false,
        },
    };
    if !mem.is_large(pfn) {
        return true; // Another thread was first.
    }
    let first = owner.index - u64::from(pfn.0 - head.0);
    let frames = mem.large_parts(Large::huge(head)).collect();
    let parts = Folio { first, frames };
    unmap_parts(&*mapping, mem, &parts, becomes, |_| {
        let pages = (first, first + u64::from(HUGE));
        mapping.unmap_huge(mem, cx.descend(), head, pages);
    })
}

/// Does so with a folio, or the parts of a huge page, by `unmap`, which gets a function that tells
/// whether any part is mapped still.
fn unmap_parts(
    mapping: &dyn FrameOwner,
    mem: &PhysMem,
    folio: &Folio,
    becomes: Becomes,
    unmap: impl FnOnce(&dyn Fn() -> bool),
) -> bool {
    let is_kept = |&pfn: &Pfn| mem.flags(pfn).contains(FrameFlags::UNEVICTABLE);
    if folio.frames.iter().any(is_kept) {
        return false;
    }
    let is_mapped = || folio.mappings(mem) > 0;
    if becomes == Becomes::Small || is_mapped() {
        unmap(&is_mapped);
    }
    let is_dirty = |&pfn: &Pfn| mem.flags(pfn).contains(FrameFlags::DIRTY);
    let splits = becomes == Becomes::Small || !folio.frames.iter().any(is_dirty);
    // While the first frame is locked: a fault that gets its lock maps the page as one again.
    if splits && !is_mapped() {
        dissolve(mapping, mem, folio.first, &folio.frames);
    }
    !is_mapped()
}

/// Makes the frames of a huge page or folio of an object, that of page `index`, which nothing maps,
/// single pages. If one of them is dirty, all are from here on.
fn dissolve(owner: &dyn FrameOwner, mem: &PhysMem, index: u64, frames: &[Pfn]) {
    let is_dirty = |&pfn: &Pfn| mem.flags(pfn).contains(FrameFlags::DIRTY);
    let dirty = frames.iter().any(is_dirty);
    for &pfn in frames {
        mem.clear_flags(pfn, FrameFlags::LARGE);
        if dirty {
            mem.set_flags(pfn, FrameFlags::DIRTY);
        }
    }
    owner.forget_folio(index);
}
