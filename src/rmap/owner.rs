//! The trait of an owner of frames, as walks and reclaim use it.

use super::target::{MappedAt, RmapCx};
use crate::{
    addr::{Pfn, VpnRange},
    ctx::{CallCx, FolioCx},
    error::NoMemory,
    frame::{FrameLock, Large, PhysMem},
};

/// The visitor of a walk over pages; it returns true to continue.
pub(crate) type VisitPage<'v> = dyn FnMut(RmapCx<'_>, &MappedAt<'_>) -> bool + 'v;
/// The visitor of a walk over parts of VMAs; it returns true to continue.
pub(crate) type VisitPart<'v> = dyn FnMut(RmapCx<'_>, &MappedAt<'_>, VpnRange) -> bool + 'v;

/// Two or more pages of an object that came in together.
pub(crate) struct Folio {
    /// The page offset of the first page.
    pub(crate) first: u64,
    /// The frames, in the order of the pages.
    pub(crate) frames: Vec<Pfn>,
}

impl Folio {
    /// Returns the half-open range of its page offsets.
    pub(crate) fn pages(&self) -> (u64, u64) {
        (self.first, self.first + self.frames.len() as u64)
    }
    /// Returns how many entries map its pages.
    pub(crate) fn mappings(&self, mem: &PhysMem) -> u64 {
        let counts = self.frames.iter().map(|&pfn| mem.mapcount(pfn));
        counts.map(u64::from).sum()
    }
}

/// An owner of frames, a memory object or a node of anonymous memory: the reverse map of its pages.
///
/// The defaults are those of an owner without huge pages and without a store. Page offsets count
/// pages from the beginning of the owner; ranges of them are half-open.
pub(crate) trait FrameOwner: Send + Sync {
    /// Visits each page of an address space that may map page `index`, with the lock of the reverse
    /// map held. In nonlinear VMAs the pages are those whose entries name frame `pfn`.
    fn walk(&self, cx: RmapCx<'_>, index: u64, pfn: Pfn, visit: &mut VisitPage<'_>);

    /// Visits the part of each VMA that may map one of `pages`, the page offsets of a huge page; of
    /// a nonlinear VMA all of it.
    fn walk_huge(&self, cx: RmapCx<'_>, pages: (u64, u64), visit: &mut VisitPart<'_>) {
        let _unused = (cx, pages, visit);
    }

    /// Maps by small entries, at every place where it is mapped, a large page of private memory
    /// that has the page offsets `pages`. Afterwards its frames are single pages (`split_folio`).
    fn split_large(&self, mem: &PhysMem, cx: RmapCx<'_>, page: Large, pages: (u64, u64)) {
        let _unused = (mem, cx, page, pages);
    }

    /// Drops the mappings of the huge page of an object that begins with the locked frame `head`
    /// and has the page offsets `pages`: VMA by VMA, each in a window over its part, until no
    /// mapping is left. The first VMA gets its window in any case (`try_to_unmap`).
    fn unmap_huge(&self, mem: &PhysMem, cx: RmapCx<'_>, head: Pfn, pages: (u64, u64)) {
        let _unused = (mem, cx, head, pages);
    }

    /// Returns the folio of page `index`; `None` if the page is alone, or part of a huge page.
    fn folio(&self, index: u64) -> Option<Folio> {
        let _unused = index;
        None
    }

    /// Drops the mappings of `pages`, those of a folio of an object: VMA by VMA, each in a window
    /// over its part, as long as `mapped` returns true. The first VMA gets its window in any case
    /// (`try_to_unmap`).
    fn unmap_folio(&self, cx: &mut FolioCx<'_>, pages: (u64, u64), mapped: &dyn Fn() -> bool) {
        let _unused = (cx, pages, mapped);
    }

    /// Notes that the huge page, or the folio, of an object that page `index` is part of was split
    /// into single pages.
    fn forget_folio(&self, index: u64) {
        let _unused = index;
    }

    /// Returns true if reclaim must leave the pages alone.
    fn is_unevictable(&self) -> bool {
        false
    }

    /// Gives up page `index`, whose locked frame nothing maps any more. Returns false if the page
    /// stays.
    fn evict(&self, locked: &FrameLock<'_>, index: u64) -> bool {
        let _unused = (locked, index);
        false
    }

    /// Writes page `index`, whose locked frame is dirty and nothing maps, to its store. Returns
    /// true if that succeeded.
    fn write_back(&self, cx: &mut FolioCx<'_>, locked: &FrameLock<'_>, index: u64) -> bool {
        let _unused = (cx, locked, index);
        false
    }

    /// Reads every page back that is in swap, and frees its slot (`shmem_unuse`).
    fn bring_back(&self, cx: &mut CallCx<'_>) -> Result<(), NoMemory> {
        let _unused = cx;
        Ok(())
    }

    /// Takes as many frames from `new` on for the pages from `first` on, in place of the locked
    /// frames: one frame, or those of a huge page. Returns false, and changes nothing, if a locked
    /// frame has other references.
    fn replace(&self, locked: &[FrameLock<'_>], first: u64, new: Pfn) -> bool {
        let _unused = (locked, first, new);
        false
    }
}
