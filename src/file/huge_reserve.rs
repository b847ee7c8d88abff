//! The reservations of a file of huge pages, and that of a private mapping (`HPAGE_RESV_OWNER`).

use super::HugetlbFile;
use crate::frame::{Claim, HugeSize, PhysMem, ResvMap};
use std::{ops::Range, sync::Arc};

/// Pages that a private mapping has reserved; promised until this is dropped.
#[derive(Debug)]
pub(crate) struct VmaReserve {
    mem: Arc<PhysMem>,
    huge: HugeSize,
    /// The pages that have used their promise.
    used: Arc<ResvMap>,
    pages: Range<u64>,
}

impl VmaReserve {
    /// Takes over the promise of these pages.
    pub(super) fn new(mem: &Arc<PhysMem>, huge: HugeSize, pages: Range<u64>) -> Self {
        Self {
            mem: Arc::clone(mem),
            huge,
            used: Arc::default(),
            pages,
        }
    }
    /// Returns the claim on a page for the mapping.
    pub(crate) fn claim(&self, index: u64) -> Claim {
        Claim::Mapping(Arc::clone(&self.used), index)
    }
    /// Returns the claim on a copy of a page of the mapping.
    pub(crate) fn claim_copy(&self, index: u64) -> Claim {
        Claim::Copy(Arc::clone(&self.used), index)
    }
    /// Splits the pages from `index` on off.
    pub(crate) fn split_off(&mut self, index: u64) -> Self {
        let upper = index..self.pages.end;
        self.pages.end = index;
        Self {
            mem: Arc::clone(&self.mem),
            huge: self.huge,
            used: Arc::clone(&self.used),
            pages: upper,
        }
    }
    /// Limits this to some of its pages. The others stay promised, and no mapping has them: so
    /// does Linux when a part of a mapping moves (`clear_vma_resv_huge_pages`).
    pub(crate) fn narrow(&mut self, pages: Range<u64>) {
        self.pages = pages;
    }
}

impl Drop for VmaReserve {
    /// Ends the promises that were not used (`hugetlb_vm_op_close`).
    fn drop(&mut self) {
        let Range { start, end } = self.pages;
        let left = end - start - self.used.count(start..end);
        self.mem.unreserve_huge(self.huge, left);
    }
}

impl HugetlbFile {
    /// Reserves pages `[from, to)` for a shared mapping, those without a reservation
    /// (`hugetlb_reserve_pages`). Returns false, and reserves nothing, if the pool is too small.
    pub(crate) fn reserve_shared(&self, pages: Range<u64>) -> bool {
        let _serial = self.faulting.lock();
        let missing = pages.end - pages.start - self.reserved.count(pages.clone());
        let done = self.host.mem.reserve_huge(self.huge, missing);
        if done {
            self.reserved.add(pages);
        }
        done
    }
    /// Reserves pages `[from, to)` for a private mapping; `None` if the pool is too small.
    pub(crate) fn reserve_private(&self, pages: Range<u64>) -> Option<VmaReserve> {
        let mem = &self.host.mem;
        let count = pages.end - pages.start;
        mem.reserve_huge(self.huge, count)
            .then(|| VmaReserve::new(mem, self.huge, pages))
    }
    /// Ends the reservations from page `from` on that were not used up
    /// (`hugetlb_unreserve_pages`).
    pub(super) fn unreserve(&self, from: u64) {
        // A fault that has taken a page by now has given it back, or to the file.
        let _serial = self.serialize();
        let pages = self.pages.lock();
        let unused = self.reserved.remove(from..u64::MAX);
        let mut stay = 0;
        for (&index, _) in pages.range(from..) {
            self.reserved.add(index..index + 1);
            stay += 1;
        }
        self.host.mem.unreserve_huge(self.huge, unused - stay);
    }
}
