//! The page table as a scan walks it.

use crate::mm::{
    calls::change_protection::Protection,
    page_table::LockedLeaf,
    space::Mm,
    window::{InvalidationWindow, Lease},
};
use crate::{
    addr::{PGD_PAGES, PMD_PAGES, PUD_PAGES, Vpn, VpnRange},
    ctx::{Cx, Rank, Sleepable, rank},
    error::ScanError,
};

/// The page table as a scan walks it: under a window if it protects.
pub(super) trait Walk {
    /// Runs `f` on the leaf of `at`, locked; `None` if there is none.
    fn leaf<T>(&mut self, at: Vpn, f: impl FnOnce(&LockedLeaf<'_>) -> T) -> Option<T>;
    /// The first page behind the hole at `at`.
    fn behind_hole(&mut self, at: Vpn) -> Vpn;
    fn split(&mut self, at: Vpn);
    fn protect(&mut self, part: VpnRange, how: Protection) -> Result<(), ScanError>;
}

/// The first page behind the missing table at `at`, of the highest level that is missing.
fn behind_hole<R: Rank>(mm: &Mm, cx: &mut Cx<'_, R, Sleepable>, at: Vpn) -> Vpn {
    let view = mm.table.view(cx);
    let span = if !view.has_pud(at) {
        PGD_PAGES
    } else if !view.has_pmd(at) {
        PUD_PAGES
    } else {
        PMD_PAGES
    };
    at.align_down(span).plus(span)
}

impl Walk for Lease<'_, rank::Mmap, Sleepable> {
    fn leaf<T>(&mut self, at: Vpn, f: impl FnOnce(&LockedLeaf<'_>) -> T) -> Option<T> {
        self.mm.with_leaf_of(&mut self.cx, at, f)
    }
    fn behind_hole(&mut self, at: Vpn) -> Vpn {
        behind_hole(self.mm, &mut self.cx, at)
    }
    fn split(&mut self, _: Vpn) {
        unreachable!("nothing is protected without a window")
    }
    fn protect(&mut self, _: VpnRange, _: Protection) -> Result<(), ScanError> {
        unreachable!("nothing is protected without a window")
    }
}

impl Walk for InvalidationWindow<'_, Sleepable> {
    fn leaf<T>(&mut self, at: Vpn, f: impl FnOnce(&LockedLeaf<'_>) -> T) -> Option<T> {
        self.lock_ptes(at, |txn| f(txn.leaf()))
    }
    fn behind_hole(&mut self, at: Vpn) -> Vpn {
        let mm = self.mm();
        behind_hole(mm, &mut self.cx(), at)
    }
    fn split(&mut self, at: Vpn) {
        self.split_pmd(at);
    }
    fn protect(&mut self, part: VpnRange, how: Protection) -> Result<(), ScanError> {
        Ok(self.protect_inside(part, how)?)
    }
}
