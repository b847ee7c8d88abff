//! What a reverse map knows of an address space: where a mapping lies, and what can be asked of it there.

use crate::{
    addr::{Pfn, Vpn, VpnRange},
    ctx::{Cx, Sleepable, rank},
    frame::SwapSlot,
};
use std::sync::{Arc, Weak};

/// The token of a walk: a reverse-map lock is held, sleeping is allowed.
pub(crate) type RmapCx<'c> = Cx<'c, rank::Rmap, Sleepable>;

/// Whether private copies go together with the object's own pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EvenCows {
    /// They stay: a hole was punched.
    No,
    /// They go: the file was cut.
    Yes,
}

/// What takes the place of a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unmap {
    /// Nothing, if the page can be had again: it is an object's, or was given up by `MADV_FREE` and not written since.
    Discard,
    /// An entry of the slot that the frame is cached for.
    Swap(SwapSlot),
    /// Nothing, also of locked memory: another frame becomes the page.
    Replace,
    /// A mark that the page is on its way; who faults on it waits for the lock of the frame.
    Migration,
}

/// What a mapping says of the use of its page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Young {
    /// Used.
    Yes,
    /// Not used.
    No,
    /// Locked in memory.
    Locked,
}

/// Why a mapping stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UnmapRefused {
    /// It is locked in memory, or was written since it was given up.
    Needed,
    /// An external MMU would have to sleep, which was forbidden.
    WouldBlock,
}

/// Whether external MMUs may sleep on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blocking {
    /// They may.
    May,
    /// They may not: one that has to refuses.
    MustNot,
}

/// An address space, as it looks from a frame. Everything here is called with the lock of the reverse map held that
/// led there, which keeps the mapping where it is.
pub(crate) trait RmapTarget: Send + Sync {
    /// Drops what `range` maps, in one window over it (`zap_page_range_single`).
    fn unmap_range(&self, cx: RmapCx<'_>, range: VpnRange, cows: EvenCows);
    /// Where in a nonlinear VMA the frame is mapped.
    fn mapped_at(&self, cx: RmapCx<'_>, vma: VpnRange, pfn: Pfn) -> Vec<Vpn>;
    /// Drops what a nonlinear VMA maps of pages `[from, to)` of its object, in one window over all of it; their places are
    /// kept in the entries.
    fn unmap_nonlinear(&self, cx: RmapCx<'_>, vma: VpnRange, from: u64, to: u64);
    /// Drops the one mapping of the locked frame at `spot`, if it is there (`unmap_mapping_folio`).
    fn unmap_frame(&self, cx: RmapCx<'_>, spot: &MappedAt<'_>, pfn: Pfn);
    /// Opens a window over `part` and maps what is there of the huge page that begins with `head` by small entries, or not at
    /// all if it is an object's; returns how many there still are (`try_to_migrate_one`, `try_to_unmap_one` for a split).
    fn split_folio(&self, cx: RmapCx<'_>, part: VpnRange, head: Pfn) -> u64;
    /// Gives up the table of the 2 MiB at `spot`, of which the huge page that begins with `head` has become the object's, in a
    /// window over them; not if they could not be mapped as one (`retract_page_tables`).
    fn retract(&self, cx: RmapCx<'_>, spot: &MappedAt<'_>, head: Pfn);
    /// Takes out the mapping of the locked frame at `spot` for good or for a while (`try_to_unmap_one`).
    ///
    /// # Errors
    ///
    /// [`UnmapRefused`]: this mapping must stay, so the frame does.
    fn try_to_unmap(
        &self,
        cx: RmapCx<'_>,
        spot: &MappedAt<'_>,
        pfn: Pfn,
        how: Unmap,
        blocking: Blocking,
    ) -> Result<(), UnmapRefused>;
    /// Puts the frame `new` where the mark of `old` is (`remove_migration_pte`).
    fn restore(&self, cx: RmapCx<'_>, spot: &MappedAt<'_>, old: Pfn, new: Pfn);
    /// Whether the mapping of the locked frame at `spot` was used since it was last asked, by the processor or through
    /// any external MMU, all of which are asked (`folio_referenced_one`); `None`: the frame is not mapped there.
    fn referenced(&self, cx: RmapCx<'_>, spot: &MappedAt<'_>, pfn: Pfn) -> Option<Young>;
    /// Takes the right to write from the mapping of `pfn`, so that the next store is noticed; says whether it was
    /// dirty or writable (`page_vma_mkclean_one`).
    fn write_protect(&self, cx: RmapCx<'_>, spot: &MappedAt<'_>, pfn: Pfn) -> bool;
}

/// One VMA, as a reverse map has it.
#[derive(Clone)]
pub(crate) struct VmaPlacement {
    pub(crate) space: Weak<dyn RmapTarget>,
    /// Where the first page lies.
    pub(crate) range: VpnRange,
    /// Page offset of it.
    pub(crate) pgoff: u64,
    /// The flags of the VMA; their meaning is the address space's.
    pub(crate) flags: u64,
    /// Its entries name pages in any order, so it may map every one.
    pub(crate) nonlinear: bool,
}

impl VmaPlacement {
    /// The page offsets that it may map.
    pub(super) fn span(&self) -> (u64, u64) {
        if self.nonlinear {
            (0, u64::MAX)
        } else {
            (self.pgoff, self.pgoff_end())
        }
    }
    pub(crate) fn pgoff_end(&self) -> u64 {
        self.pgoff.saturating_add(self.range.pages())
    }
}

/// A page as a VMA would map it.
pub(crate) struct MappedAt<'w> {
    pub(crate) space: &'w Arc<dyn RmapTarget>,
    /// The page; of a nonlinear VMA the first.
    pub(crate) at: Vpn,
    /// All of a nonlinear VMA: where in it a page is, its entries say.
    pub(crate) nonlinear: Option<VpnRange>,
    /// The flags of the VMA.
    pub(crate) flags: u64,
}
