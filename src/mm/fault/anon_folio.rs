//! Faults that bring in a folio of private memory at once (`alloc_anon_folio`).
//!
//! Its pages are mapped by small entries, so an operation on one of them needs no split of a
//! mapping. Their frames share a fate where Linux decides about the folio: which writes copy, what
//! an advice reaches, what migrates together (`large`, `reverse/migrate_huge.rs`).

use super::scope::{FaultScope, map_large};
use crate::mm::{
    machine::{FolioSize, FolioSizes},
    page_table::LockedLeaf,
    vma::Vma,
};
use crate::{
    addr::{Vpn, VpnRange},
    error::NoMemory,
};

impl Vma {
    /// Returns the aligned pages of a folio of this size around `at`, if all of them lie in the VMA
    /// (`thp_vma_suitable_order`).
    fn folio_around(&self, at: Vpn, size: FolioSize) -> Option<VpnRange> {
        let first = at.align_down(size.pages().into());
        let pages = VpnRange::new(first, first.plus(size.pages().into()))?;
        self.range().covers(pages).then_some(pages)
    }
}

impl FaultScope<'_> {
    /// Maps a folio around `at` for writing: the largest one that the VMA may have and of whose
    /// pages none is there yet. Returns false if a single page must be mapped instead.
    pub(super) fn fault_folio(&mut self, vma: &Vma, at: Vpn) -> Result<bool, NoMemory> {
        let sizes = self.layout.folio_sizes(vma.flags);
        // Each page of memory that is registered with userfaultfd must fault alone.
        if sizes.is_empty() || vma.userfault().is_some() {
            return Ok(false);
        }
        self.fault_folio_of(vma, at, sizes)
    }
    fn fault_folio_of(&mut self, vma: &Vma, at: Vpn, sizes: FolioSizes) -> Result<bool, NoMemory> {
        let fits = |size: FolioSize| Some((size, vma.folio_around(at, size)?));
        let fitting = || sizes.iter().filter_map(fits);
        let largest = self.with_leaf(at, |leaf| {
            let free = |&(_, pages): &(FolioSize, VpnRange)| are_free(leaf, pages);
            fitting().find(free).map(|(size, _)| size)
        })?;
        let Some(largest) = largest else {
            return Ok(false);
        };
        let mem = self.lease.mm.machine().mem();
        // Of a smaller one all pages are free as well. A page alone may still find memory.
        let smaller = fitting().filter(|&(size, _)| size <= largest);
        let mut made = smaller.filter_map(|(size, pages)| {
            let folio = mem.alloc_folio(size.pages()).ok()?;
            Some((folio, pages))
        });
        let Some((folio, pages)) = made.next() else {
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
