//! Owners of frames, as a walk and reclaim see them.

use super::target::{MappedAt, RmapCx};
use crate::{
    addr::{Pfn, VpnRange},
    ctx::FolioCx,
    frame::{Frame, FrameLock, PhysMem},
};

/// The visitor of a walk over pages; it returns true to go on.
pub(crate) type VisitPage<'v> = dyn FnMut(RmapCx<'_>, &MappedAt<'_>) -> bool + 'v;
/// The visitor of a walk over parts of VMAs; it returns true to go on.
pub(crate) type VisitPart<'v> = dyn FnMut(RmapCx<'_>, &MappedAt<'_>, VpnRange) -> bool + 'v;

/// A memory object or a node of anonymous memory: the reverse map of the pages that it owns.
///
/// The defaults are those of an owner that has no huge pages and no store. Page offsets count pages
/// from the beginning of the owner; ranges of them are half-open.
pub(crate) trait FrameOwner: Send + Sync {
    /// Visits each page of an address space that may map page `index`, with the lock of the reverse
    /// map held. Entries of nonlinear VMAs are found by the frame `pfn` that they name.
    fn walk(&self, cx: RmapCx<'_>, index: u64, pfn: Pfn, visit: &mut VisitPage<'_>);

    /// Visits the part of each VMA that may map one of `pages`, page offsets of a huge page.
    fn walk_huge(&self, cx: RmapCx<'_>, pages: (u64, u64), visit: &mut VisitPart<'_>) {
        let _unused = (cx, pages, visit);
    }

    /// Maps by small entries, wherever it is mapped, the huge page that begins with frame `head` and
    /// has the page offsets `pages`. Afterwards the page is no huge page any more (`split_folio`).
    fn split_huge(&self, mem: &PhysMem, cx: RmapCx<'_>, head: Pfn, pages: (u64, u64)) {
        let _unused = (mem, cx, head, pages);
    }

    /// Gives up page `index`, whose locked frame nothing maps any more. Returns false if the page
    /// stays.
    fn evict(&self, locked: &FrameLock<'_>, index: u64) -> bool {
        let _unused = (locked, index);
        false
    }

    /// Writes page `index`, whose locked frame is dirty and nothing maps, to its store. Returns true
    /// if that succeeded.
    fn write_back(&self, cx: &mut FolioCx<'_>, locked: &FrameLock<'_>, index: u64) -> bool {
        let _unused = (cx, locked, index);
        false
    }

    /// Takes frame `new` for page `index` in place of the locked frame. Returns false if that has
    /// other references, and stays.
    fn replace(&self, locked: &FrameLock<'_>, index: u64, new: &Frame<'_>) -> bool {
        let _unused = (locked, index, new);
        false
    }
}
