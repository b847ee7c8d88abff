//! Cutting a VMA in two.

use crate::mm::guard::{AfterYield, MmapWriteGuard};
use crate::{
    addr::{PMD_PAGES, Vpn, VpnRange},
    error::VmaError,
};

impl MmapWriteGuard<'_> {
    /// Cuts the VMA that starts at `start` below `at`, which lies inside; the map limit is the caller's business
    /// (`__split_vma`).
    pub(in crate::mm) fn split_unlimited(&mut self, start: Vpn, at: Vpn) -> Result<(), VmaError> {
        self.layout.alloc_vma()?;
        let whole = self.vma(start).range();
        self.split_huge(whole, at, whole);
        self.cut(start, at);
        Ok(())
    }
    /// The same where no huge page can lie across and nobody may be asked for anything: how a change of the layout is undone.
    pub(in crate::mm) fn cut(&mut self, start: Vpn, at: Vpn) {
        let whole = self.vma(start).range();
        let cut = |a, b| VpnRange::new(a, b).expect("at lies strictly inside");
        let vma = self.vma(start);
        let mut upper = vma.dup(cut(at, whole.end()), vma.pgoff_at(at));
        // The reverse maps know the upper half before they forget that it was of the lower.
        upper.follow(&self.layout.space);
        self.layout
            .change(start, |vma| vma.set_range(cut(start, at), vma.pgoff));
        self.layout.insert(upper);
    }
    /// Makes `range`, in one VMA, a VMA of its own. As [`cut`](Self::cut).
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
    /// Takes a range out of the layout that maps nothing and is in no account.
    pub(in crate::mm) fn drop_empty(&mut self, range: VpnRange) {
        self.cut_out(range);
        drop(self.layout.vmas.drain_range(range));
    }
    /// The same within the map limit (`split_vma`).
    pub(in crate::mm) fn split(&mut self, start: Vpn, at: Vpn) -> Result<(), VmaError> {
        self.layout.check_map_count()?;
        self.split_unlimited(start, at)
    }
    /// A VMA boundary is about to be put at `at` inside `vma`: a huge page across it must go
    /// (`vma_adjust_trans_huge`). Linux opens the window as soon as a table is there that could hold one. What is known
    /// of the VMAs `around` stays true meanwhile.
    pub(in crate::mm) fn split_huge(&mut self, vma: VpnRange, at: Vpn, around: VpnRange) {
        let Some(block) = VpnRange::new(at.align_down(PMD_PAGES), at.align_up(PMD_PAGES)) else {
            return; // Aligned: no huge page can lie across.
        };
        if !vma.covers(block) {
            return;
        }
        let mm = self.mm;
        let has_pmd = {
            let pinned = self.cx.pin();
            mm.table.has_pmd(at, mm.table.pin(pinned.guard()))
        };
        if has_pmd {
            self.yield_while(0, AfterYield::KeepsEditing, &[around], |mut lease| {
                lease.split_pmd_always(at);
            });
        }
    }
}
