//! Collecting pages in batches, and draining those; see [`batches`](super::batches).

use super::{batches::Batch, mem::PhysMem};
use crate::addr::Pfn;

/// With fewer references than these on a new page, a store to it drains the batches.
const FEW: u32 = 3;

impl PhysMem {
    /// Collects a page that `MADV_FREE` has marked.
    pub(crate) fn collect_lazily(&self, pfn: Pfn) {
        if self.is_large(pfn) {
            return; // It goes to its list at once.
        }
        let page = (pfn, self.generation(pfn));
        self.batches.collect(page, Batch::Lazily);
    }
    /// Collects a new page.
    #[inline]
    pub(super) fn collect_new(&self, pfn: Pfn) {
        if self.batches.are_used() {
            let page = (pfn, self.generation(pfn));
            self.batches.collect(page, Batch::New);
        }
    }
    /// Moves all collected pages to their lists (`lru_add_drain`).
    #[inline]
    pub(crate) fn drain_batches(&self) {
        if self.batches.are_used() {
            self.batches.drain();
        }
    }
    /// Returns true if a batch has a reference on the page. If the page is new, and few others have
    /// one, the batches are drained (`wp_can_reuse_anon_folio`).
    #[inline]
    pub(crate) fn is_collected(&self, pfn: Pfn) -> bool {
        if !self.batches.are_used() {
            return false;
        }
        let found = self.batches.find((pfn, self.generation(pfn)));
        let drains = found == Some(Batch::New) && self.refcount(pfn) < FEW;
        if drains {
            self.batches.drain();
        }
        found.is_some() && !drains
    }
}
