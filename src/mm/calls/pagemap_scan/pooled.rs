//! Scans of huge pages of a pool: each is reported whole, and protected whole or not at all.

use super::{
    scanner::{Part, Scanner, Stop, categories, protect},
    walk::Walk,
};
use crate::addr::{PMD_PAGES, Vpn, VpnRange};
use crate::mm::{entry::uffd_flags::PageCategories, fault::hugetlb::parts};

impl Scanner<'_> {
    /// Scans a part of a VMA with pages of `grain` small ones (`pagemap_scan_hugetlb_entry`).
    pub(super) fn pooled(
        &mut self,
        walk: &mut impl Walk,
        part: &Part,
        grain: u64,
    ) -> Result<(), Stop> {
        let mut at = part.pages.start();
        while at < part.pages.end() {
            let start = at.align_down(grain);
            let page = VpnRange::new(start, start.plus(grain)).expect("a page is not empty");
            let behind = walk.behind_hole(start);
            let end = match walk.leaf(start, |leaf| leaf.get(start)) {
                // No table for its entry.
                None if behind > start.align_down(PMD_PAGES).plus(PMD_PAGES) => {
                    let end = behind.min(part.pages.end());
                    let hole = VpnRange::new(at, end).expect("not empty");
                    self.hole(walk, hole, part)?;
                    end
                }
                _ => {
                    let end = page.end().min(part.pages.end());
                    let seen = VpnRange::new(at, end).expect("not empty");
                    self.huge_page_of_pool(walk, (page, seen), part)?;
                    end
                }
            };
            at = end;
        }
        Ok(())
    }
    /// Reports the part `seen` of a page. One that is to be protected and does not fit is passed
    /// over.
    fn huge_page_of_pool(
        &mut self,
        walk: &mut impl Walk,
        (page, seen): (VpnRange, VpnRange),
        part: &Part,
    ) -> Result<(), Stop> {
        let pte = walk.leaf(page.start(), |leaf| leaf.get(page.start()));
        let pte = pte.filter(|pte| !pte.is_none());
        let own = match pte {
            Some(pte) => categories(self.mem, pte, true),
            None => PageCategories::HUGE,
        };
        let all = part.categories | own;
        if !self.is_interesting(all) {
            return Ok(());
        }
        if self.protects() && all.contains(PageCategories::WRITTEN) {
            let extends = self.extends(all, seen.start());
            let fit: Vpn = self.end_of_fit(extends, seen);
            if seen != page || fit != page.end() {
                return Ok(());
            }
            for (block, _) in parts(page) {
                walk.leaf(block.start(), |leaf| {
                    block.iter().for_each(|at| protect(self.mem, leaf, at));
                });
            }
        }
        self.report(all, seen).1
    }
}
