//! Faults that bring in 64 KiB of private memory at once (`alloc_anon_folio`).
//!
//! The 16 pages are mapped by small entries, so an operation on one of them needs no split of a
//! mapping. Their frames share a fate where Linux decides about the folio: which writes copy, what
//! an advice reaches, what migrates together (`large`, `reverse/migrate_huge.rs`).

use super::scope::{FaultScope, map_large};
use crate::mm::{page_table::LockedLeaf, vma::Vma};
use crate::{
    addr::{Vpn, VpnRange},
    error::NoMemory,
    frame::FOLIO,
};

impl Vma {
    /// Returns the aligned 16 pages around `at`, if all of them lie in the VMA and may come in
    /// together. Each page of memory that is registered with userfaultfd must fault alone.
    fn folio_around(&self, at: Vpn) -> Option<VpnRange> {
        let first = at.align_down(FOLIO.into());
        let pages = VpnRange::new(first, first.plus(FOLIO.into()))?;
        (self.range().covers(pages) && self.userfault().is_none()).then_some(pages)
    }
}

impl FaultScope<'_> {
    /// Maps a folio of 64 KiB around `at` for writing, if the VMA may have one and none of its
    /// pages is there yet. Returns false if a single page must be mapped instead.
    pub(super) fn fault_folio(&mut self, vma: &Vma, at: Vpn) -> Result<bool, NoMemory> {
        if !self.layout.allows_folios(vma.flags) {
            return Ok(false);
        }
        let Some(pages) = vma.folio_around(at) else {
            return Ok(false);
        };
        if !self.with_leaf(at, |leaf| are_free(leaf, pages))? {
            return Ok(false);
        }
        let mem = self.lease.mm.machine().mem();
        // A page alone may still find memory.
        let Ok(folio) = mem.alloc_folio() else {
            return Ok(false);
        };
        self.own_large(vma, pages.start(), folio.page())?;
        let rights = vma.rights();
        self.with_leaf(at, |leaf| {
            if !are_free(leaf, pages) {
                return; // Another thread was first: the access looks again.
            }
            map_large(mem, leaf, pages, folio, rights);
        })?;
        Ok(true)
    }
}

/// Returns true if no entry of these pages has anything (`pte_range_none`).
fn are_free(leaf: &LockedLeaf<'_>, pages: VpnRange) -> bool {
    pages.iter().all(|page| leaf.get(page).is_none())
}
