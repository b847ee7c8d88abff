//! `MADV_COLLAPSE`: small pages become a huge one (`mm/khugepaged.c`).
//!
//! Per 2-MiB block: pages in swap come back under the mmap lock held shared, then the bytes are
//! copied under the lock held exclusively, in one window over the block.

use crate::mm::{
    calls::vma_walk::{Visit, each_vma, part_at},
    entry::{
        flags::VmFlags,
        pte::{RawPte, Rights},
    },
    fault::scope::FaultScope,
    guard::{AfterYield, MmapWriteGuard},
    machine::KhugepagedLimits,
    page_table::LockedLeaf,
    space::Mm,
    vma::{Vma, layout::Layout},
    window::InvalidationWindow,
};
use crate::{
    addr::{PMD_PAGES, Vpn, VpnRange},
    ctx::{CallCx, Sleepable},
    error::MadviseError,
    frame::{FrameFlags, HUGE, LargeFrame, PhysMem},
    notifier::{Access, AgeKind, Event},
};

/// The reasons why 2 MiB did not become a huge page (`enum scan_result`, where it decides the
/// result).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::mm::calls) enum Fail {
    /// Nothing to collapse here; the next 2 MiB may do.
    Skip,
    /// A page has references beside its mappings: EAGAIN; the next 2 MiB may do.
    Busy,
    /// The mapping, or a page in it, is of the wrong kind: EINVAL, at once.
    Never,
    /// No huge page is free: ENOMEM, at once.
    NoMemory,
}

/// The initiator of a collapse.
#[derive(Clone, Copy, Debug)]
pub(in crate::mm::calls) enum By<'l> {
    /// `MADV_COLLAPSE`: all that can be collapsed is.
    Advice,
    /// `khugepaged`, which chooses by these limits, and wants pages that are used.
    Khugepaged(&'l KhugepagedLimits),
}

/// The huge page of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::mm::calls) enum Collapsed {
    /// The huge page was made now.
    Now,
    /// The huge page was there before.
    Before,
}

impl<'l> By<'l> {
    /// Returns the limits of the daemon.
    pub(super) fn limits(self) -> Option<&'l KhugepagedLimits> {
        match self {
            Self::Advice => None,
            Self::Khugepaged(limits) => Some(limits),
        }
    }
}

impl Fail {
    fn error(self, at: Vpn) -> MadviseError {
        match self {
            Self::Skip | Self::Never => MadviseError::Unsuitable(at.addr()),
            Self::Busy => MadviseError::Busy(at.addr()),
            Self::NoMemory => MadviseError::NoMemory(crate::error::NoMemory::Frame),
        }
    }
}

/// Returns start and end of the whole 2-MiB blocks of a range, of which there may be none; `None`
/// if not even a boundary of blocks lies in the range.
pub(in crate::mm::calls) fn blocks(part: VpnRange) -> Option<(Vpn, Vpn)> {
    let (from, to) = (
        part.start().align_up(PMD_PAGES),
        part.end().align_down(PMD_PAGES),
    );
    (from <= to).then_some((from, to))
}

impl Mm {
    /// Collapses VMA by VMA (`madvise_collapse`).
    pub(in crate::mm) fn advise_collapse(
        &self,
        cx: &mut CallCx<'_>,
        range: VpnRange,
    ) -> Result<(), MadviseError> {
        each_vma(range, MadviseError::Hole, |at| {
            let g = self.lock_shared_over(cx, Some(range));
            let (vma, part) = match part_at(g.layout.vmas.find(at), at, range) {
                Ok(found) => found,
                Err(visit) => return Ok(visit),
            };
            if !may_collapse(&g.layout, vma) {
                return Err(MadviseError::Unsuitable(vma.start().addr()));
            }
            drop(g);
            self.collapse_part(cx, part)?;
            Ok(Visit::Done(part.end()))
        })
    }
    fn collapse_part(&self, cx: &mut CallCx<'_>, part: VpnRange) -> Result<(), MadviseError> {
        let Some((from, to)) = blocks(part) else {
            return Err(MadviseError::Unsuitable(part.start().addr()));
        };
        let mut failed = None;
        let mut at = from;
        while at < to {
            match self.collapse_block(cx, at, By::Advice) {
                Ok(_) => {}
                Err(fail @ (Fail::Skip | Fail::Busy)) => failed = Some(fail.error(at)),
                Err(fail) => return Err(fail.error(at)),
            }
            at = at.plus(PMD_PAGES);
        }
        failed.map_or(Ok(()), Err)
    }
    /// Collapses one block: reads pages back from swap, then copies with the mmap lock held
    /// exclusively (`collapse_huge_page`).
    pub(in crate::mm::calls) fn collapse_block(
        &self,
        cx: &mut CallCx<'_>,
        at: Vpn,
        by: By<'_>,
    ) -> Result<Collapsed, Fail> {
        self.machine().mem().drain_batches();
        let mut g = self.lock_shared_over(cx, Some(VpnRange::block_of(at)));
        let vma = vma_of_block(&g.layout, at)?;
        // Each page of registered memory must be able to fault alone: no hole may be filled.
        let armed = vma.userfault().is_some();
        if !vma.is_anonymous() {
            drop(g);
            return self.collapse_object(cx, at, by).map(|()| Collapsed::Now);
        }
        let mem = self.machine().mem();
        let scanned = self.with_leaf_of(&mut g.cx, at, |leaf| scan(mem, leaf, (by, armed)));
        let Some(scanned) = scanned else {
            // No page is here. Linux looks further only if the table above is missing too.
            let above = self.table.view(&mut g.cx).has_pmd(at);
            return Err(if above { Fail::Never } else { Fail::Skip });
        };
        let swapped = match scanned? {
            Scan::Huge => return Ok(Collapsed::Before),
            Scan::Small { swapped } => swapped,
            Scan::Unused => {
                let block = VpnRange::block_of(at);
                if !self.age_range(&mut g.cx, block, AgeKind::Test) {
                    return Err(Fail::Skip);
                }
                false
            }
        };
        if swapped {
            let mut held = FaultScope::of(&mut g);
            let vma = held.layout.vmas.get(at).expect("found above");
            held.swap_in_block(vma, at)?;
        }
        drop(g);
        let mut g = self.lock_exclusive_some(cx);
        g.claim_range(VpnRange::block_of(at));
        g.copy_block(at).map(|()| Collapsed::Now)
    }
}

/// Returns true if the VMA may hold huge pages after this advice (`thp_vma_allowable_order` with
/// `TVA_FORCED_COLLAPSE`): whether it asked for them or not, but not if it refused them for good.
/// Private memory must have been written once.
pub(in crate::mm::calls) fn may_collapse(layout: &Layout, vma: &Vma) -> bool {
    let written = vma.is_anonymous() && vma.anon.get().is_some();
    layout.allows_huge(vma.flags, true)
        && !vma.flags.intersects(VmFlags::SPECIAL)
        && (written || in_memory_and_aligned(vma))
        && vma.start().align_up(PMD_PAGES).plus(PMD_PAGES) <= vma.end()
}

/// Returns the VMA that holds the block at `at`, if the block may become a huge page
/// (`hugepage_vma_revalidate`).
pub(super) fn vma_of_block(layout: &Layout, at: Vpn) -> Result<&Vma, Fail> {
    let vma = layout.vmas.get(at).ok_or(Fail::Never)?;
    match may_collapse(layout, vma) && vma.range().covers(VpnRange::block_of(at)) {
        true => Ok(vma),
        false => Err(Fail::Never),
    }
}

/// Returns true for an object whose pages are in memory alone, mapped so that addresses and page
/// offsets are aligned alike: other pages of objects do not become huge, or cannot be mapped huge.
fn in_memory_and_aligned(vma: &Vma) -> bool {
    vma.object().is_some_and(|object| object.is_memory())
        && !vma.flags.contains(VmFlags::NONLINEAR)
        && Vpn(vma.start().0.wrapping_sub(vma.pgoff)).is_aligned(PMD_PAGES)
}

/// The contents of a block.
enum Scan {
    Huge,
    Small {
        swapped: bool,
    },
    /// Small pages, none of them in swap, that the processor did not use lately.
    Unused,
}

/// The pages of a block, by kind.
#[derive(Default)]
struct Pages {
    none: u32,
    shared: u32,
    swapped: u32,
    used: u32,
}

impl Pages {
    /// Returns true if khugepaged leaves the block alone: a limit is exceeded, or with pages in
    /// swap fewer than half of the block are used.
    fn exceed(&self, limits: &KhugepagedLimits) -> bool {
        let idle = self.swapped > 0 && self.used < HUGE / 2;
        self.none > limits.none || self.shared > limits.shared || self.swapped > limits.swap || idle
    }
}

/// Scans a block (`hpage_collapse_scan_pmd`): holes, the zero page and pages in swap may be
/// collapsed; all else must be private pages with no reference beside their mappings. In memory
/// that is registered with userfaultfd (`armed`) neither holes nor protected pages may.
fn scan(mem: &PhysMem, leaf: &LockedLeaf<'_>, (by, armed): (By<'_>, bool)) -> Result<Scan, Fail> {
    if leaf.is_huge() {
        return Ok(Scan::Huge);
    }
    let mut pages = Pages::default();
    for at in (0..PMD_PAGES).map(Vpn) {
        let pte = leaf.get(at);
        if pte.is_uffd_wp() {
            return Err(Fail::Never);
        }
        if pte.is_none() || pte.is_zero_page() {
            if armed {
                return Err(Fail::Never);
            }
            pages.none += 1;
            continue;
        }
        let Some(pfn) = pte.counted() else {
            pages.swapped += 1;
            continue;
        };
        let flags = mem.flags(pfn);
        if !flags.contains(FrameFlags::ANON) || mem.is_device(pfn) {
            return Err(Fail::Never);
        }
        let cached = u32::from(flags.contains(FrameFlags::SWAP_CACHE));
        if mem.refcount(pfn) != mem.mapcount(pfn) + cached {
            return Err(Fail::Busy);
        }
        pages.shared += u32::from(mem.mapcount(pfn) > 1);
        pages.used += u32::from(pte.is_young() || flags.contains(FrameFlags::REFERENCED));
    }
    match by {
        By::Khugepaged(limits) if pages.exceed(limits) => Err(Fail::Skip),
        By::Khugepaged(_) if pages.used == 0 => Ok(Scan::Unused),
        _ => Ok(Scan::Small {
            swapped: pages.swapped > 0,
        }),
    }
}

impl FaultScope<'_> {
    /// Reads pages in swap back, and waits for pages that move (`__collapse_huge_page_swapin`).
    /// Fails at a guard marker.
    fn swap_in_block(&mut self, vma: &Vma, at: Vpn) -> Result<(), Fail> {
        for page in VpnRange::block_of(at).iter() {
            let pte = self.look(page).map_err(|_| Fail::NoMemory)?;
            if pte.is_guard() || pte.is_poison() {
                return Err(Fail::Never);
            }
            self.wait_for_migration(pte);
            if let Some(slot) = pte.swap_slot() {
                self.fault_swapped(vma, page, Access::Read, pte, slot)
                    .map_err(|_| Fail::Never)?;
            }
            self.fault_on_device(vma, page, pte)
                .map_err(|_| Fail::Never)?;
        }
        Ok(())
    }
}

impl MmapWriteGuard<'_> {
    fn copy_block(&mut self, at: Vpn) -> Result<(), Fail> {
        let mem = self.mm.machine().mem();
        let vma = vma_of_block(&self.layout, at)?;
        if !vma.is_anonymous() {
            return Err(Fail::Never);
        }
        let node = vma.anon_node().ok_or(Fail::Never)?;
        let (rights, flags) = (vma.rights(), vma.new_anon());
        let armed = vma.userfault().is_some();
        let index = vma.pgoff_at(at);
        let huge = mem.alloc_huge().map_err(|_| Fail::NoMemory)?;
        for i in 0..HUGE {
            let pfn = huge.head().nth(i);
            mem.set_flags(pfn, flags);
            mem.set_owner(pfn, Some(node.owner(index + u64::from(i))));
        }
        let walks = vma.walks();
        self.yield_while(0, AfterYield::OnlyPages, &[vma.range()], |lease| {
            let window = lease.into_window(VpnRange::block_of(at), Event::Clear);
            // Reverse maps must not be walked while pages are in neither place
            // (`anon_vma_lock_write`).
            let _walks_wait = walks.freeze();
            window.collapse(at, huge, (rights, armed))
        })
    }
}

impl InvalidationWindow<'_, Sleepable> {
    /// Copies the pages of the block to `huge`, which takes their place, under the lock of the
    /// leaf.
    fn collapse(
        mut self,
        at: Vpn,
        huge: LargeFrame<'_>,
        (rights, armed): (Rights, bool),
    ) -> Result<(), Fail> {
        let mem = self.mm().machine().mem();
        let copied = self.lock_ptes(at, |txn| {
            let leaf = txn.leaf();
            // Scanned again, since the pages may have got references meanwhile.
            if let Scan::Huge = scan(mem, leaf, (By::Advice, armed))? {
                return Ok(None);
            }
            if VpnRange::block_of(at)
                .iter()
                .any(|p| leaf.get(p).is_other())
            {
                return Err(Fail::Skip);
            }
            let head = huge.into_raw();
            let old: Vec<_> = VpnRange::block_of(at).iter().map(|p| leaf.get(p)).collect();
            // No device writes to a page that is being copied (`pmdp_collapse_flush`).
            VpnRange::block_of(at)
                .iter()
                .for_each(|p| leaf.set(p, RawPte::NONE));
            let (leaf, mut flusher) = txn.parts();
            let flushed = flusher.flush(VpnRange::block_of(at));
            for ((i, page), old) in (0..HUGE).zip(VpnRange::block_of(at).iter()).zip(old) {
                let new = head.nth(i);
                if let Some(pfn) = old.counted() {
                    mem.copy(pfn, new);
                }
                mem.map_inc(new);
                leaf.set(page, RawPte::frame(new, rights).mkdirty());
                crate::mm::entry::release::drop_entry(mem, old, flushed);
            }
            leaf.set_huge(true);
            mem.lru_add(head);
            Ok(Some(()))
        });
        self.close();
        copied.unwrap_or(Err(Fail::Skip)).map(|_| ())
    }
}
