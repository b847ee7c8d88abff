//! Splitting a VMA in two.

use crate::mm::{
    guard::{AfterYield, MmapWriteGuard},
    vma::hugetlb::SHARES_TABLES,
};
use crate::{
    addr::{PMD_PAGES, PUD_PAGES, Vpn, VpnRange},
    error::VmaError,
};
use smallvec::SmallVec;

impl MmapWriteGuard<'_> {
    /// Splits the VMA that starts at `start` below page `at`, which lies inside (`__split_vma`).
    /// Does not check the map limit. A huge page across `at` is split in a window.
    pub(in crate::mm) fn split_unlimited(&mut self, start: Vpn, at: Vpn) -> Result<(), VmaError> {
        if !at.is_aligned(self.vma(start).grain()) {
            return Err(VmaError::InsideHugePage(start.addr()));
        }
        self.layout.alloc_vma()?;
        let whole = self.vma(start).range();
        self.split_huge(whole, at, whole);
        self.unshare_tables(start, at);
        self.cut(start, at);
        Ok(())
    }
    /// Opens the window of a split of shared huge pages inside of 1 GiB that the VMA holds: tables
    /// that it may share there are given up (`hugetlb_split`).
    fn unshare_tables(&mut self, start: Vpn, at: Vpn) {
        let vma = self.vma(start);
        let whole = vma.range();
        let shares = vma.flags.contains(SHARES_TABLES);
        let around = VpnRange::new(at.align_down(PUD_PAGES), at.align_up(PUD_PAGES));
        if let Some(table) = around.filter(|&table| shares && whole.covers(table)) {
            self.yield_while(0, AfterYield::KeepsEditing, &[whole], |lease| {
                lease.close_tables(table);
            });
        }
    }
    /// Splits a VMA where no huge page lies across `at`, without a window and without an error: for
    /// undoing a change of the layout.
    pub(in crate::mm) fn cut(&mut self, start: Vpn, at: Vpn) {
        let whole = self.vma(start).range();
        let cut = |a, b| VpnRange::new(a, b).expect("at lies strictly inside");
        let vma = self.vma(start);
        let mut upper = vma.dup(cut(at, whole.end()), vma.pgoff_at(at));
        // The reverse maps know the upper half before the lower gives it up (ADR 0005).
        upper.follow(&self.layout.space);
        self.layout.change(start, |vma| {
            vma.split_reserve(at, &mut upper);
            vma.set_range(cut(start, at), vma.pgoff);
        });
        self.layout.insert(upper);
    }
    /// Makes `range`, part of one VMA, a VMA of its own; as [`cut`](Self::cut), without windows.
    pub(in crate::mm) fn cut_out(&mut self, range: VpnRange) {
        let vma = self.layout.vmas.get(range.start());
        let whole = vma.expect("the caller mapped it").range();
        if whole.start() < range.start() {
            self.cut(whole.start(), range.start());
        }
        if range.end() < whole.end() {
            self.cut(range.start(), range.end());
        }
    }
    /// Removes a range from the layout that maps nothing and is in no account.
    pub(in crate::mm) fn drop_empty(&mut self, range: VpnRange) {
        self.cut_out(range);
        let _hole = self.layout.vmas.drain_range(range, &mut SmallVec::new());
    }
    /// Splits a VMA within the map limit (`split_vma`).
    pub(in crate::mm) fn split(&mut self, start: Vpn, at: Vpn) -> Result<(), VmaError> {
        self.layout.check_map_count()?;
        self.split_unlimited(start, at)
    }
    /// Splits the mapping of a huge page that lies across `at`, where a boundary of VMAs will be
    /// (`vma_adjust_trans_huge`). Opens a window, as Linux does, if a table is present that could
    /// hold a huge page. The VMAs `around` do not change meanwhile, though the lock may be left for
    /// the window.
    pub(in crate::mm) fn split_huge(&mut self, vma: VpnRange, at: Vpn, around: VpnRange) {
        let Some(block) = VpnRange::new(at.align_down(PMD_PAGES), at.align_up(PMD_PAGES)) else {
            return; // Aligned: no huge page can lie across.
        };
        if !vma.covers(block) {
            return;
        }
        let mm = self.mm;
        let has_pmd = mm.table.view(&mut self.cx).has_pmd(at);
        if has_pmd {
            self.yield_while(0, AfterYield::KeepsEditing, &[around], |mut lease| {
                lease.split_pmd_always(at);
            });
        }
    }
}
