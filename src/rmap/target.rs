//! The trait of an address space, as a reverse map uses it, and the place of a VMA in one.

use crate::{
    addr::{Pfn, Vpn, VpnRange},
    ctx::{Cx, Sleepable, rank},
    error::NoMemory,
    frame::{Large, SwapSlot},
    sync::{AtomicU64, Ordering},
};
use std::sync::{Arc, Weak};

/// The token of a walk: a reverse-map lock is held, and sleeping is allowed.
pub(crate) type RmapCx<'c> = Cx<'c, rank::Rmap, Sleepable>;

/// The treatment of private copies when pages of an object are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EvenCows {
    /// Private copies stay: a hole was punched.
    No,
    /// Private copies go with the object's own pages: the file was cut.
    Yes,
}

/// The replacement for a mapping that is taken out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unmap {
    /// Nothing, if the page can be had again: it belongs to an object, or was given up by
    /// `MADV_FREE` and not written since.
    Discard,
    /// An entry of the slot that the frame is cached for.
    Swap(SwapSlot),
    /// Nothing, and locked memory too: another frame becomes the page of the object.
    Replace,
    /// A mark of a page that is being migrated; a fault on it waits for the lock of the frame.
    Migration,
}

/// The use of a page by one mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Young {
    /// The page was used.
    Yes,
    /// The page was not used.
    No,
    /// The page is locked in memory.
    Locked,
}

/// The reason for which a mapping stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UnmapRefused {
    /// The page is locked in memory, or was written since it was given up.
    Needed,
    /// An external MMU would have to sleep, which the caller forbids.
    WouldBlock,
}

/// The permission of external MMUs to sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blocking {
    /// External MMUs may sleep.
    May,
    /// External MMUs must not sleep: one that has to refuses.
    MustNot,
}

/// An address space, as it looks from a frame.
///
/// Every method is called with the lock of the reverse map held that led there, so the VMA keeps
/// its place meanwhile.
pub(crate) trait RmapTarget: Send + Sync {
    /// Drops the mappings in `range`, a part of the VMA at `spot`, in one window over it
    /// (`zap_page_range_single`).
    fn unmap_range(&self, cx: RmapCx<'_>, spot: &MappedAt<'_>, range: VpnRange, cows: EvenCows);
    /// Drops the mapping of the huge page of a pool that begins with `head`, in a window over
    /// `part`, and notes that the VMA at `spot` lost it; does nothing if the VMA is shared or has
    /// a reservation (`unmap_ref_private`).
    fn steal(&self, cx: RmapCx<'_>, spot: &MappedAt<'_>, part: VpnRange, head: Pfn);
    /// Returns the pages of a nonlinear VMA that map the frame.
    fn mapped_at(&self, cx: RmapCx<'_>, vma: VpnRange, pfn: Pfn) -> Vec<Vpn>;
    /// Drops the mappings of pages `[from, to)` of the object in a nonlinear VMA, in one window
    /// over all of the VMA. The entries keep their page offsets.
    fn unmap_nonlinear(&self, cx: RmapCx<'_>, vma: VpnRange, from: u64, to: u64);
    /// Drops the mapping of the locked frame at `spot`, if it is there (`unmap_mapping_folio`).
    fn unmap_frame(&self, cx: RmapCx<'_>, spot: &MappedAt<'_>, pfn: Pfn);
    /// Counts the entries in `part` that map a frame for which `is_part` returns true.
    fn mappings(&self, cx: RmapCx<'_>, part: VpnRange, is_part: &dyn Fn(Pfn) -> bool) -> u64;
    /// Returns the first pages in `part` of the pages of `grain` base pages that are mapped.
    fn mapped_in(&self, cx: RmapCx<'_>, part: VpnRange, grain: u64) -> Vec<Vpn>;
    /// Enters the huge page of a pool with this first entry at `page`, if nothing is there.
    ///
    /// # Errors
    ///
    /// No memory for a table.
    fn enter_huge(&self, cx: RmapCx<'_>, page: VpnRange, first: u64) -> Result<(), NoMemory>;
    /// Opens a window over `part`, the part of a VMA at `spot`, and maps by small entries the pages
    /// there of a large page; drops them instead if the page belongs to an object. Returns the
    /// number of entries that map it in `part` afterwards (`try_to_migrate_one`, `try_to_unmap_one`
    /// for a split).
    fn split_large(&self, cx: RmapCx<'_>, spot: &MappedAt<'_>, part: VpnRange, page: Large) -> u64;
    /// Drops the table of the 2 MiB at `spot`, in a window over them, since the huge page that
    /// begins with `head` now holds these pages of the object. The table stays if the pages cannot
    /// be mapped as one (`retract_page_tables`).
    fn retract(&self, cx: RmapCx<'_>, spot: &MappedAt<'_>, head: Pfn);
    /// Takes out the mapping of the locked frame at `spot`, for good or for a while
    /// (`try_to_unmap_one`).
    ///
    /// # Errors
    ///
    /// [`UnmapRefused`]: this mapping must stay, so the frame stays too.
    fn try_to_unmap(
        &self,
        cx: RmapCx<'_>,
        spot: &MappedAt<'_>,
        pfn: Pfn,
        how: Unmap,
        blocking: Blocking,
    ) -> Result<(), UnmapRefused>;
    /// Puts frame `new` in the place of the migration mark of `old` at `spot`
    /// (`remove_migration_pte`).
    fn restore(&self, cx: RmapCx<'_>, spot: &MappedAt<'_>, old: Pfn, new: Pfn);
    /// Replaces the mappings in `part`, the part of a VMA at `spot`, of a large page, whose frames
    /// are locked, by migration marks, in one window over `part` (`try_to_migrate_one`).
    fn leave_large(&self, cx: RmapCx<'_>, spot: &MappedAt<'_>, part: VpnRange, page: Large);
    /// Puts the frames of the large page that begins with the second of `pages` in the place of the
    /// migration marks in `part` of the first. A page that was mapped as one is so again, if all of
    /// it is still there (`remove_migration_pmd`, `remove_migration_pte`).
    fn restore_large(
        &self,
        cx: RmapCx<'_>,
        spot: &MappedAt<'_>,
        part: VpnRange,
        pages: (Large, Pfn),
    );
    /// Reads and clears the use of the mapping of the locked frame at `spot`, by the processor and
    /// by every external MMU (`folio_referenced_one`). `None`: the frame is not mapped there.
    fn referenced(&self, cx: RmapCx<'_>, spot: &MappedAt<'_>, pfn: Pfn) -> Option<Young>;
    /// Reads and clears the use of the mappings in `part`, the part of a VMA at `spot`, of a large
    /// page of private memory, and returns their number. They are locked if the VMA is and maps all
    /// of the page; the use of a part of the page in locked memory counts for nothing.
    fn referenced_large(
        &self,
        cx: RmapCx<'_>,
        spot: &MappedAt<'_>,
        part: VpnRange,
        page: Large,
    ) -> (u64, Young);
    /// Drops the mappings in `part`, the part of a VMA at `spot`, of a large page of private
    /// memory, of which the caller has this frame locked, in one window over `part`. None is
    /// dropped if one of them is dirty: the page is not to be given up (`try_to_unmap_one`).
    ///
    /// # Errors
    ///
    /// [`UnmapRefused`]: the mappings must stay.
    fn discard_large(
        &self,
        cx: RmapCx<'_>,
        spot: &MappedAt<'_>,
        part: VpnRange,
        of: (Large, Pfn),
    ) -> Result<(), UnmapRefused>;
    /// Takes the right to write from the mapping of `pfn` at `spot`, so that the next store faults.
    /// Returns true if the mapping was dirty or writable (`page_vma_mkclean_one`).
    fn write_protect(&self, cx: RmapCx<'_>, spot: &MappedAt<'_>, pfn: Pfn) -> bool;
}

/// A VMA, as a reverse map stores it.
#[derive(Clone)]
pub(crate) struct VmaPlacement {
    pub(crate) space: Weak<dyn RmapTarget>,
    /// The pages of the VMA.
    pub(crate) range: VpnRange,
    /// The page offset of the first page.
    pub(crate) pgoff: u64,
    /// The flags of the VMA, which only the address space interprets.
    pub(crate) flags: u64,
    /// Set if entries of the VMA name pages of the object in any order, so that it may map every
    /// page.
    pub(crate) nonlinear: bool,
}

impl VmaPlacement {
    /// Returns the page offsets that the VMA may map, half-open.
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

/// A page of an address space, as a VMA would map it.
pub(crate) struct MappedAt<'w> {
    pub(crate) space: &'w Arc<dyn RmapTarget>,
    /// The page; the first page of a nonlinear VMA.
    pub(crate) at: Vpn,
    /// All pages of the VMA.
    pub(crate) vma: VpnRange,
    /// Set if the entries of the VMA tell which of its pages map the page.
    pub(super) nonlinear: bool,
    /// The flags of the VMA.
    pub(crate) flags: u64,
    /// The flags that the VMA of an object got since it was entered.
    pub(super) marks: Option<&'w AtomicU64>,
}

impl MappedAt<'_> {
    /// Adds flags to those of the VMA of an object.
    pub(crate) fn mark(&self, flags: u64) {
        if let Some(marks) = self.marks {
            marks.fetch_or(flags, Ordering::Release);
        }
    }
}

/// An address space without mappings.
#[cfg(all(test, not(any(loom, shuttle))))]
pub(super) struct Nowhere;

#[cfg(all(test, not(any(loom, shuttle))))]
impl RmapTarget for Nowhere {
    fn unmap_range(&self, _: RmapCx<'_>, _: &MappedAt<'_>, _: VpnRange, _: EvenCows) {}
    fn steal(&self, _: RmapCx<'_>, _: &MappedAt<'_>, _: VpnRange, _: Pfn) {}
    fn mapped_at(&self, _: RmapCx<'_>, _: VpnRange, _: Pfn) -> Vec<Vpn> {
        Vec::new()
    }
    fn unmap_nonlinear(&self, _: RmapCx<'_>, _: VpnRange, _: u64, _: u64) {}
    fn unmap_frame(&self, _: RmapCx<'_>, _: &MappedAt<'_>, _: Pfn) {}
    fn mappings(&self, _: RmapCx<'_>, _: VpnRange, _: &dyn Fn(Pfn) -> bool) -> u64 {
        0
    }
    fn mapped_in(&self, _: RmapCx<'_>, _: VpnRange, _: u64) -> Vec<Vpn> {
        Vec::new()
    }
    fn enter_huge(&self, _: RmapCx<'_>, _: VpnRange, _: u64) -> Result<(), NoMemory> {
        Ok(())
    }
    fn split_large(&self, _: RmapCx<'_>, _: &MappedAt<'_>, _: VpnRange, _: Large) -> u64 {
        0
    }
    fn retract(&self, _: RmapCx<'_>, _: &MappedAt<'_>, _: Pfn) {}
    fn try_to_unmap(
        &self,
        _: RmapCx<'_>,
        _: &MappedAt<'_>,
        _: Pfn,
        _: Unmap,
        _: Blocking,
    ) -> Result<(), UnmapRefused> {
        Ok(())
    }
    fn restore(&self, _: RmapCx<'_>, _: &MappedAt<'_>, _: Pfn, _: Pfn) {}
    fn leave_large(&self, _: RmapCx<'_>, _: &MappedAt<'_>, _: VpnRange, _: Large) {}
    fn restore_large(&self, _: RmapCx<'_>, _: &MappedAt<'_>, _: VpnRange, _: (Large, Pfn)) {}
    fn referenced(&self, _: RmapCx<'_>, _: &MappedAt<'_>, _: Pfn) -> Option<Young> {
        None
    }
    fn referenced_large(
        &self,
        _: RmapCx<'_>,
        _: &MappedAt<'_>,
        _: VpnRange,
        _: Large,
    ) -> (u64, Young) {
        (0, Young::No)
    }
    fn discard_large(
        &self,
        _: RmapCx<'_>,
        _: &MappedAt<'_>,
        _: VpnRange,
        _: (Large, Pfn),
    ) -> Result<(), UnmapRefused> {
        Ok(())
    }
    fn write_protect(&self, _: RmapCx<'_>, _: &MappedAt<'_>, _: Pfn) -> bool {
        false
    }
}
