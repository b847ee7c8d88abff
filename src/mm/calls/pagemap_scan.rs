//! `PAGEMAP_SCAN`: reports pages by category, and write-protects those that it reports.
//!
//! A page is *written* if it does not have the mark of write protection: of memory that is
//! registered with an asynchronous userfaultfd, the pages that were written since the last scan.
//! What a device writes counts as well: the window of the scan takes its translations, so it must
//! fault again, and that lifts the mark.

use super::change_protection::Protection;
use crate::mm::{
    entry::{
        pte::RawPte,
        uffd_flags::{PageCategories, ScanFlags},
    },
    guard::MmapPin,
    page_table::LockedLeaf,
    space::Mm,
    vma::Vma,
    window::{InvalidationWindow, Lease},
};
use crate::{
    addr::{PAGE_SIZE, PGD_PAGES, PMD_PAGES, PUD_PAGES, TASK_SIZE, Vpn, VpnRange},
    ctx::{CallCx, Cx, Rank, Sleepable, rank},
    error::ScanError,
    frame::{FrameFlags, PhysMem},
    notifier::Event,
};
use std::sync::Arc;

/// The arguments of a scan (`struct pm_scan_arg`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScanArgs {
    /// First byte; a multiple of the page size.
    pub start: u64,
    /// One past the last byte; rounded up to pages.
    pub end: u64,
    /// Protects pages, checks memory.
    pub flags: ScanFlags,
    /// Most regions that are reported; with 0, pages are protected and none is reported.
    pub regions: usize,
    /// Most pages that are reported; 0 is no limit.
    pub pages: u64,
    /// Categories that are inverted before the masks are compared.
    pub inverted: PageCategories,
    /// Categories that a page must have, all of them.
    pub mask: PageCategories,
    /// Categories of which a page must have one, unless this is empty.
    pub any_of: PageCategories,
    /// Categories that are reported.
    pub reported: PageCategories,
}

/// Neighbouring pages of the same reported categories.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageRegion {
    /// First byte.
    pub start: u64,
    /// One past the last byte.
    pub end: u64,
    /// The reported categories that the pages have.
    pub categories: PageCategories,
}

/// The result of a scan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scan {
    /// The pages that were found, ascending.
    pub regions: Vec<PageRegion>,
    /// The byte at which the scan ended: the end of its range, or the first byte that is not
    /// reported because a limit was met.
    pub end: u64,
}

impl Mm {
    /// Scans `[start, end)` (`do_pagemap_scan`). With [`ScanFlags::WP_MATCHING`] one window opens
    /// over all of the range, and every page that is reported and written gets the mark of write
    /// protection, under the lock under which it was read: no write is lost or reported twice.
    ///
    /// # Errors
    ///
    /// [`ScanError`]. [`ScanError::NotTracked`]: the pages below were protected.
    pub fn pagemap_scan(&self, cx: &mut CallCx<'_>, args: &ScanArgs) -> Result<Scan, ScanError> {
        let range = check(args)?;
        let mut scan = Scanner::new(args);
        let mut rest = range;
        while let Some(now) = rest {
            match self.scan_once(cx, now, &mut scan) {
                Ok(()) => rest = None,
                Err(Stop::Failed(why)) => return Err(why),
                Err(Stop::Full(end)) => {
                    scan.end = Some(end);
                    scan.flush();
                    let enough = args.regions == 0 || scan.is_done();
                    rest = match enough {
                        true => None,
                        false => VpnRange::new(end, now.end()),
                    };
                    if !enough {
                        scan.end = None;
                    }
                }
            }
        }
        scan.flush();
        let end = range.map_or(args.start, |range| range.end().addr());
        Ok(Scan {
            regions: scan.out,
            end: scan.end.map_or(end, Vpn::addr),
        })
    }
    fn scan_once(
        &self,
        cx: &mut CallCx<'_>,
        range: VpnRange,
        scan: &mut Scanner<'_>,
    ) -> Result<(), Stop> {
        let g = self.lock_shared_over(cx, Some(range));
        let parts: Vec<Part> = g
            .layout
            .vmas
            .range(range)
            .map(|v| Part::of(v, range))
            .collect();
        let pin = MmapPin::new(self, &g, range);
        drop(g);
        let mut lease = pin.lease(cx);
        let scanned = match scan.protects() {
            true => {
                let mut window = lease.window(range, Event::ProtectionVma);
                parts
                    .iter()
                    .try_for_each(|part| scan.part(&mut window, part))
            }
            false => parts
                .iter()
                .try_for_each(|part| scan.part(&mut lease, part)),
        };
        lease.settle_exports();
        scanned
    }
}

/// Checks the arguments (`pagemap_scan_get_args`); `None`: the range is empty.
fn check(args: &ScanArgs) -> Result<Option<VpnRange>, ScanError> {
    let ScanArgs { start, end, .. } = *args;
    if !ScanFlags::all().contains(args.flags) {
        return Err(ScanError::Flags(args.flags.bits()));
    }
    let used = args.inverted | args.mask | args.any_of | args.reported;
    if !PageCategories::all().contains(used) {
        return Err(ScanError::Categories(used.bits()));
    }
    if !start.is_multiple_of(PAGE_SIZE) {
        return Err(ScanError::Unaligned(start));
    }
    if end < start || end > TASK_SIZE {
        return Err(ScanError::Range { start, end });
    }
    let end = end.next_multiple_of(PAGE_SIZE);
    Ok(VpnRange::new(Vpn::containing(start), Vpn::containing(end)))
}

/// The part of a VMA that is scanned.
struct Part {
    pages: VpnRange,
    categories: PageCategories,
    protect: Protection,
}

impl Part {
    fn of(vma: &Vma, range: VpnRange) -> Self {
        let tracked = vma.is_wp_async() && vma.uses_markers();
        Self {
            pages: vma.range().intersect(range).expect("it overlaps"),
            categories: match tracked {
                true => PageCategories::WPALLOWED,
                false => PageCategories::empty(),
            },
            protect: Protection::by_userfault(vma, true),
        }
    }
    fn is_tracked(&self) -> bool {
        self.categories.contains(PageCategories::WPALLOWED)
    }
}

/// The end of a walk.
enum Stop {
    /// A limit is met; the first page that was not reported.
    Full(Vpn),
    Failed(ScanError),
}

/// The page table as a scan walks it: under a window if it protects.
trait Walk {
    fn mm(&self) -> &Mm;
    /// Runs `f` on the leaf of `at`, locked; `None` if there is none.
    fn leaf<T>(&mut self, at: Vpn, f: impl FnOnce(&LockedLeaf<'_>) -> T) -> Option<T>;
    /// The first page behind the hole at `at`.
    fn behind_hole(&mut self, at: Vpn) -> Vpn;
    fn split(&mut self, at: Vpn);
    fn protect(&mut self, part: VpnRange, how: Protection) -> Result<(), ScanError>;
}

/// The first page behind the missing table at `at`, of the highest level that is missing.
fn behind_hole<R: Rank>(mm: &Mm, cx: &mut Cx<'_, R, Sleepable>, at: Vpn) -> Vpn {
    let pinned = cx.pin();
    let pin = mm.table.pin(pinned.guard());
    let span = if !mm.table.has_pud(at, pin) {
        PGD_PAGES
    } else if !mm.table.has_pmd(at, pin) {
        PUD_PAGES
    } else {
        PMD_PAGES
    };
    at.align_down(span).plus(span)
}

impl Walk for Lease<'_, rank::Mmap, Sleepable> {
    fn mm(&self) -> &Mm {
        self.mm
    }
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
    fn mm(&self) -> &Mm {
        InvalidationWindow::mm(self)
    }
    fn leaf<T>(&mut self, at: Vpn, f: impl FnOnce(&LockedLeaf<'_>) -> T) -> Option<T> {
        self.lock_ptes(at, |txn| f(txn.leaf()))
    }
    fn behind_hole(&mut self, at: Vpn) -> Vpn {
        let mm = InvalidationWindow::mm(self);
        behind_hole(mm, &mut self.cx(), at)
    }
    fn split(&mut self, at: Vpn) {
        self.split_pmd(at);
    }
    fn protect(&mut self, part: VpnRange, how: Protection) -> Result<(), ScanError> {
        Ok(self.protect_inside(part, how)?)
    }
}

/// Most regions that are gathered under one hold of the mmap lock.
const AT_ONCE: usize = 512;

/// A scan that is going on.
struct Scanner<'a> {
    args: &'a ScanArgs,
    found: u64,
    /// Regions since the last flush, and the most that fit.
    buffer: Vec<PageRegion>,
    room: usize,
    out: Vec<PageRegion>,
    end: Option<Vpn>,
}

impl<'a> Scanner<'a> {
    fn new(args: &'a ScanArgs) -> Self {
        Self {
            args,
            found: 0,
            buffer: Vec::new(),
            room: args.regions.min(AT_ONCE),
            out: Vec::new(),
            end: None,
        }
    }
    fn protects(&self) -> bool {
        self.args.flags.contains(ScanFlags::WP_MATCHING)
    }
    fn most(&self) -> u64 {
        match self.args.pages {
            0 => u64::MAX,
            pages => pages,
        }
    }
    fn is_done(&self) -> bool {
        self.found == self.most() || self.out.len() == self.args.regions
    }
    /// Passes the gathered regions on (`pagemap_scan_flush_buffer`).
    fn flush(&mut self) {
        self.out.append(&mut self.buffer);
        self.room = (self.args.regions - self.out.len()).min(AT_ONCE);
    }
    /// Scans a part of a VMA (`pagemap_scan_test_walk`).
    fn part(&mut self, walk: &mut impl Walk, part: &Part) -> Result<(), Stop> {
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
    /// Reports pages that have no table (`pagemap_scan_pte_hole`).
    fn hole(&mut self, walk: &mut impl Walk, hole: VpnRange, part: &Part) -> Result<(), Stop> {
        let categories = part.categories | PageCategories::WRITTEN;
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
