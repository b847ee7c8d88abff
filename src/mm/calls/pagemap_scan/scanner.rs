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
use std::sync::Arc;

/// The part of a VMA that is scanned.
pub(super) struct Part {
    pages: VpnRange,
    categories: PageCategories,
    /// Absent pages can be protected.
    has_markers: bool,
    protect: Protection,
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
            has_markers: vma.uses_markers(),
            protect: Protection::by_userfault(vma, true),
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
    found: u64,
    /// Regions since the last flush, and the most that fit.
    buffer: Vec<PageRegion>,
    room: usize,
    pub(super) out: Vec<PageRegion>,
    pub(super) end: Option<Vpn>,
}

impl<'a> Scanner<'a> {
    pub(super) fn new(args: &'a ScanArgs) -> Self {
        Self {
            args,
            found: 0,
            buffer: Vec::new(),
            room: args.regions.min(AT_ONCE),
            out: Vec::new(),
            end: None,
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
        let mut at = part.pages.start();
        while at < part.pages.end() {
            let block = VpnRange::block_of(at).intersect(part.pages);
            let block = block.and_then(|block| VpnRange::new(at, block.end()));
            let block = block.expect("at lies inside");
            let mem = Arc::clone(walk.mm().machine().mem());
            let scanned = walk.leaf(at, |leaf| self.block(&mem, leaf, block, part.categories));
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
    /// Reports pages that have no table (`pagemap_scan_pte_hole`). They count as written where
    /// absent pages can be protected; empty entries of a table do so everywhere.
    fn hole(&mut self, walk: &mut impl Walk, hole: VpnRange, part: &Part) -> Result<(), Stop> {
        let mut categories = part.categories;
        categories.set(PageCategories::WRITTEN, part.has_markers);
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
        mem: &PhysMem,
        leaf: &LockedLeaf<'_>,
        block: VpnRange,
        vma: PageCategories,
    ) -> Result<(), Option<Stop>> {
        if leaf.is_huge() {
            return self.huge(mem, leaf, block, vma);
        }
        let written = PageCategories::WRITTEN;
        let plain = self.args.any_of.is_empty() && self.args.inverted.is_empty();
        let only_written = plain && self.args.mask == written && self.args.reported == written;
        for at in block.iter() {
            let pte = leaf.get(at);
            // With nothing to report, or only that a page was written, other categories do not
            // matter.
            let categories = match self.args.regions == 0 && self.protects() || only_written {
                true if pte.is_uffd_wp() => continue,
                true => vma | written,
                false => vma | categories(mem, pte, false),
            };
            let asked = self.args.regions == 0 && self.protects();
            if !asked && !self.is_interesting(categories) {
                continue;
            }
            let (end, stop) = self.report(categories, VpnRange::single(at));
            if end > at && self.protects() && categories.contains(written) {
                protect(mem, leaf, at);
            }
            stop.map_err(Some)?;
        }
        Ok(())
    }
    fn huge(
        &mut self,
        mem: &PhysMem,
        leaf: &LockedLeaf<'_>,
        block: VpnRange,
        vma: PageCategories,
    ) -> Result<(), Option<Stop>> {
        let categories = vma | categories(mem, leaf.get(block.start()), true);
        if !self.is_interesting(categories) {
            return Ok(());
        }
        let before = (self.found, self.buffer.clone());
        let (end, stop) = self.report(categories, block);
        let protects = self.protects() && categories.contains(PageCategories::WRITTEN);
        if protects && end > block.start() {
            if VpnRange::new(block.start(), end) != Some(VpnRange::block_of(block.start())) {
                (self.found, self.buffer) = before;
                return Err(None);
            }
            block.iter().for_each(|at| protect(mem, leaf, at));
        }
        stop.map_err(Some)
    }
    /// Returns true if the masks select pages of these categories
    /// (`pagemap_scan_is_interesting_page`).
    fn is_interesting(&self, categories: PageCategories) -> bool {
        let categories = categories ^ self.args.inverted;
        categories.contains(self.args.mask)
            && (self.args.any_of.is_empty() || categories.intersects(self.args.any_of))
    }
    /// Reports pages, as many as fit (`pagemap_scan_output`). Returns the end of those that were
    /// reported, and the stop if not all were or no more will fit.
    fn report(&mut self, categories: PageCategories, pages: VpnRange) -> (Vpn, Result<(), Stop>) {
        if self.args.regions == 0 {
            return (pages.end(), Ok(()));
        }
        let categories = categories & self.args.reported;
        let fit = pages.pages().min(self.most() - self.found);
        let end = pages.start().plus(fit);
        let (start, end_addr) = (pages.start().addr(), end.addr());
        let has_room = self.buffer.len() < self.room;
        let last = self.buffer.last_mut();
        match last.filter(|last| last.end == start && last.categories == categories) {
            _ if fit == 0 => return (end, Err(Stop::Full(end))),
            Some(last) => last.end = end_addr,
            None if has_room => self.buffer.push(PageRegion {
                start,
                end: end_addr,
                categories,
            }),
            None => return (pages.start(), Err(Stop::Full(pages.start()))),
        }
        self.found += fit;
        let all = fit == pages.pages();
        (end, if all { Ok(()) } else { Err(Stop::Full(end)) })
    }
}

/// Sets the mark of an entry under a window of the scan (`make_uffd_wp_pte`).
fn protect(mem: &PhysMem, leaf: &LockedLeaf<'_>, at: Vpn) {
    let pte = leaf.get(at);
    if let Some(pfn) = pte.counted().filter(|_| pte.may_write()) {
        mem.lose_write(pfn);
    }
    leaf.set(at, pte.mkuffd_wp());
}

/// Returns the categories of a page (`pagemap_page_category`, `pagemap_thp_category`).
fn categories(mem: &PhysMem, pte: RawPte, huge: bool) -> PageCategories {
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
