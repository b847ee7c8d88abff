//! A scan that is going on: the pages that it selects, reports and protects.

use super::{
    args::{PageRegion, ScanArgs},
    walk::Walk,
};
use crate::mm::{
    calls::change_protection::Protection,
    entry::{
        pte::RawPte,
        uffd_flags::{PageCategories, ScanFlags},
    },
    page_table::LockedLeaf,
    vma::Vma,
};
use crate::{
    addr::{Vpn, VpnRange},
    error::ScanError,
    frame::{FrameFlags, PhysMem},
};

/// The part of a VMA that is scanned.
pub(super) struct Part {
    pub(super) pages: VpnRange,
    pub(super) categories: PageCategories,
    /// Memory that is registered for write protection.
    registered: bool,
    protect: Protection,
    /// Small pages in each page, of huge pages of a pool.
    grain: Option<u64>,
}

impl Part {
    pub(super) fn of(vma: &Vma, range: VpnRange) -> Self {
        let tracked = vma.is_wp_async() && vma.uses_markers();
        Self {
            pages: vma.range().intersect(range).expect("it overlaps"),
            categories: match tracked {
                true => PageCategories::WPALLOWED,
                false => PageCategories::empty(),
            },
            registered: vma.is_uffd_wp(),
            protect: Protection::by_userfault(vma, true),
            grain: vma.hugetlb().map(|_| vma.grain()),
        }
    }
    fn is_tracked(&self) -> bool {
        self.categories.contains(PageCategories::WPALLOWED)
    }
}

/// The end of a walk.
pub(super) enum Stop {
    /// A limit is met; the first page that was not reported.
    Full(Vpn),
    Failed(ScanError),
}

/// Most regions that are gathered under one hold of the mmap lock.
const AT_ONCE: usize = 512;

/// A scan that is going on.
pub(super) struct Scanner<'a> {
    args: &'a ScanArgs,
    pub(super) mem: &'a PhysMem,
    found: u64,
    /// Regions since the last flush, and the most that fit.
    buffer: Vec<PageRegion>,
    room: usize,
    pub(super) out: Vec<PageRegion>,
}

impl<'a> Scanner<'a> {
    pub(super) fn new(args: &'a ScanArgs, mem: &'a PhysMem) -> Self {
        Self {
            args,
            mem,
            found: 0,
            buffer: Vec::new(),
            room: args.regions.min(AT_ONCE),
            out: Vec::new(),
        }
    }
    pub(super) fn protects(&self) -> bool {
        self.args.flags.contains(ScanFlags::WP_MATCHING)
    }
    fn most(&self) -> u64 {
        match self.args.pages {
            0 => u64::MAX,
            pages => pages,
        }
    }
    pub(super) fn is_done(&self) -> bool {
        self.found == self.most() || self.out.len() == self.args.regions
    }
    /// Passes the gathered regions on (`pagemap_scan_flush_buffer`).
    pub(super) fn flush(&mut self) {
        self.out.append(&mut self.buffer);
        self.room = (self.args.regions - self.out.len()).min(AT_ONCE);
    }
    /// Scans a part of a VMA (`pagemap_scan_test_walk`).
    pub(super) fn part(&mut self, walk: &mut impl Walk, part: &Part) -> Result<(), Stop> {
        if !part.is_tracked() {
            if self.args.flags.contains(ScanFlags::CHECK_WPASYNC) {
                let at = part.pages.start().addr();
                return Err(Stop::Failed(ScanError::NotTracked(at)));
            }
            if self.protects() {
                return Ok(());
            }
        }
        let required = self.args.mask & PageCategories::WPALLOWED;
        if !(part.categories ^ self.args.inverted).contains(required) {
            return Ok(());
        }
        if let Some(grain) = part.grain {
            return self.pooled(walk, part, grain);
        }
        let mut at = part.pages.start();
        while at < part.pages.end() {
            let block = VpnRange::block_of(at).intersect(part.pages);
            let block = block.and_then(|block| VpnRange::new(at, block.end()));
            let block = block.expect("at lies inside");
            let scanned = walk.leaf(at, |leaf| self.block(leaf, block, part.categories));
            at = match scanned {
                Some(Ok(())) => block.end(),
                Some(Err(None)) => {
                    walk.split(at);
                    at
                }
                Some(Err(Some(stop))) => return Err(stop),
                None => {
                    let behind = walk.behind_hole(at).min(part.pages.end());
                    let hole = VpnRange::new(at, behind).expect("not empty");
                    self.hole(walk, hole, part)?;
                    behind
                }
            };
        }
        Ok(())
    }
    /// Reports pages that have no table (`pagemap_scan_pte_hole`). They count as written where the
    /// memory is registered for write protection, whether absent pages can be protected or not;
    /// empty entries of a table do so everywhere.
    pub(super) fn hole(
        &mut self,
        walk: &mut impl Walk,
        hole: VpnRange,
        part: &Part,
    ) -> Result<(), Stop> {
        let mut categories = part.categories;
        categories.set(PageCategories::WRITTEN, part.registered);
        if !self.is_interesting(categories) {
            return Ok(());
        }
        let (end, stop) = self.report(categories, hole);
        if let Some(marked) = VpnRange::new(hole.start(), end).filter(|_| self.protects()) {
            walk.protect(marked, part.protect).map_err(Stop::Failed)?;
        }
        stop
    }
    /// Scans the part of a leaf (`pagemap_scan_pmd_entry`). `Err(None)`: a huge page must be split
    /// first, since only a part of it is to be protected.
    fn block(
        &mut self,
        leaf: &LockedLeaf<'_>,
        block: VpnRange,
        vma: PageCategories,
    ) -> Result<(), Option<Stop>> {
        if leaf.is_huge() {
            return self.huge(leaf, block, vma);
        }
        let written = PageCategories::WRITTEN;
        let plain = self.args.any_of.is_empty() && self.args.inverted.is_empty();
        let only_written = plain && self.args.mask == written && self.args.reported == written;
        let only_protects = self.args.regions == 0 && self.protects();
        for at in block.iter() {
            let pte = leaf.get(at);
            // With nothing to report, or only that a page was written, other categories do not
            // matter.
            let categories = match only_protects || only_written {
                true if pte.is_uffd_wp() => continue,
                true => vma | written,
                false => vma | categories(self.mem, pte, false),
            };
            if !only_protects && !self.is_interesting(categories) {
                continue;
            }
            let (end, stop) = self.report(categories, VpnRange::single(at));
            if end > at && self.protects() && categories.contains(written) {
                protect(self.mem, leaf, at);
            }
            stop.map_err(Some)?;
        }
        Ok(())
    }
    fn huge(
        &mut self,
        leaf: &LockedLeaf<'_>,
        block: VpnRange,
        vma: PageCategories,
    ) -> Result<(), Option<Stop>> {
        let categories = vma | categories(self.mem, leaf.get(block.start()), true);
        if !self.is_interesting(categories) {
            return Ok(());
        }
        let protects = self.protects() && categories.contains(PageCategories::WRITTEN);
        let extends = self.extends(categories, block.start());
        let fit = VpnRange::new(block.start(), self.end_of_fit(extends, block));
        if let Some(fit) = fit.filter(|_| protects) {
            if fit != VpnRange::block_of(block.start()) {
                return Err(None);
            }
            block.iter().for_each(|at| protect(self.mem, leaf, at));
        }
        self.report(categories, block).1.map_err(Some)
    }
    /// Returns true if the masks select pages of these categories
    /// (`pagemap_scan_is_interesting_page`).
    pub(super) fn is_interesting(&self, categories: PageCategories) -> bool {
        let categories = categories ^ self.args.inverted;
        categories.contains(self.args.mask)
            && (self.args.any_of.is_empty() || categories.intersects(self.args.any_of))
    }
    /// Reports pages, as many as fit (`pagemap_scan_output`). Returns the end of those that were
    /// reported, and the stop if not all were or no more will fit.
    pub(super) fn report(
        &mut self,
        categories: PageCategories,
        pages: VpnRange,
    ) -> (Vpn, Result<(), Stop>) {
        if self.args.regions == 0 {
            return (pages.end(), Ok(()));
        }
        let extends = self.extends(categories, pages.start());
        let end = self.end_of_fit(extends, pages);
        if let Some(fit) = VpnRange::new(pages.start(), end) {
            match self.buffer.last_mut().filter(|_| extends) {
                Some(last) => last.end = end.addr(),
                None => self.buffer.push(PageRegion {
                    start: fit.start().addr(),
                    end: end.addr(),
                    categories: categories & self.args.reported,
                }),
            }
            self.found += fit.pages();
        }
        let all = end == pages.end();
        (end, if all { Ok(()) } else { Err(Stop::Full(end)) })
    }
    /// Returns true if a page of these categories at `start` continues the last region.
    pub(super) fn extends(&self, categories: PageCategories, start: Vpn) -> bool {
        let categories = categories & self.args.reported;
        let last = self.buffer.last();
        last.is_some_and(|last| last.end == start.addr() && last.categories == categories)
    }
    /// Returns the end of the pages that fit, of pages that are to be reported.
    pub(super) fn end_of_fit(&self, extends: bool, pages: VpnRange) -> Vpn {
        if self.args.regions == 0 {
            return pages.end();
        }
        if !extends && self.buffer.len() == self.room {
            return pages.start();
        }
        let most = self.most() - self.found;
        pages.start().plus(pages.pages().min(most))
    }
}

/// Sets the mark of an entry under a window of the scan (`make_uffd_wp_pte`).
pub(super) fn protect(mem: &PhysMem, leaf: &LockedLeaf<'_>, at: Vpn) {
    let pte = leaf.get(at);
    if let Some(pfn) = pte.counted().filter(|_| pte.may_write()) {
        mem.lose_write(pfn);
    }
    leaf.set(at, pte.mkuffd_wp());
}

/// Returns the categories of a page (`pagemap_page_category`, `pagemap_thp_category`).
pub(super) fn categories(mem: &PhysMem, pte: RawPte, huge: bool) -> PageCategories {
    use PageCategories as C;
    let mut all = C::empty();
    all.set(C::WRITTEN, !pte.is_uffd_wp());
    all.set(C::HUGE, huge);
    if pte.is_none() || pte.file_index().is_some() {
        return all;
    }
    all.set(C::PRESENT, pte.is_present());
    all.set(C::SWAPPED, !pte.is_present());
    all.set(C::PFNZERO, pte.is_zero_page());
    all.set(C::GUARD, pte.is_guard());
    let object = |pfn| !mem.flags(pfn).contains(FrameFlags::ANON);
    all.set(C::FILE, pte.counted_or_migrating().is_some_and(object));
    all
}
