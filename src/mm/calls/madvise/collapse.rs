//! `MADV_COLLAPSE`: small pages become a huge one. `mm/khugepaged.c`.

use crate::ctx::CallCx;
use crate::mm::{
    entry::{
        flags::VmFlags,
        pte::{RawPte, Rights},
    },
    fault::huge::block,
    guard::{AfterYield, MmapWriteGuard},
    page_table::LockedLeaf,
    space::Mm,
    vma::Vma,
    window::InvalidationWindow,
};
use crate::{
    addr::{PMD_PAGES, Vpn, VpnRange},
    ctx::Sleepable,
    error::MadviseError,
    frame::{FrameFlags, HUGE, HugeFrame, PhysMem},
    notifier::{Access, Event},
};

/// Why 2 MiB did not become a huge page (`enum scan_result`, as far as it decides what is returned).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::mm) enum Fail {
    /// Nothing to be collapsed here; the next 2 MiB may do.
    Skip,
    /// A page has references that no mapping accounts for: EAGAIN; the next 2 MiB may do.
    Busy,
    /// The mapping, or a page in it, is not of the kind: EINVAL, at once.
    Never,
    /// No huge page is left: ENOMEM, at once.
    NoMemory,
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

/// The whole 2-MiB blocks of a range, first and last; `None`: it does not even reach from one boundary to another.
fn blocks(part: VpnRange) -> Option<(Vpn, Vpn)> {
    let (from, to) = (
        part.start().align_up(PMD_PAGES),
        part.end().align_down(PMD_PAGES),
    );
    (from <= to).then_some((from, to))
}

impl Mm {
    /// VMA by VMA (`madvise_collapse`).
    pub(in crate::mm) fn advise_collapse(
        &self,
        cx: &mut CallCx<'_>,
        range: VpnRange,
    ) -> Result<(), MadviseError> {
        let mut hole = None;
        let mut at = range.start();
        while at < range.end() {
            let g = self.lock_shared_over(cx, Some(range));
            let Some(vma) = g.layout.vmas.find(at) else {
                return Err(MadviseError::Hole(at.addr()));
            };
            if vma.start() > at {
                hole.get_or_insert(at);
                at = vma.start();
                continue;
            }
            let part = VpnRange::new(at, vma.end().min(range.end())).expect("vma holds at");
            at = part.end();
            if !may_collapse(vma) {
                return Err(MadviseError::Unsuitable(vma.start().addr()));
            }
            drop(g);
            self.collapse_part(cx, part)?;
        }
        hole.map_or(Ok(()), |at: Vpn| Err(MadviseError::Hole(at.addr())))
    }
    fn collapse_part(&self, cx: &mut CallCx<'_>, part: VpnRange) -> Result<(), MadviseError> {
        let Some((from, to)) = blocks(part) else {
            return Err(MadviseError::Unsuitable(part.start().addr()));
        };
        let mut failed = None;
        let mut at = from;
        while at < to {
            match self.collapse_block(cx, at) {
                Ok(()) => {}
                Err(fail @ (Fail::Skip | Fail::Busy)) => failed = Some(fail.error(at)),
                Err(fail) => return Err(fail.error(at)),
            }
            at = at.plus(PMD_PAGES);
        }
        failed.map_or(Ok(()), Err)
    }
    /// One block: brought in from swap first, then copied with the mmap lock held exclusively (`collapse_huge_page`).
    fn collapse_block(&self, cx: &mut CallCx<'_>, at: Vpn) -> Result<(), Fail> {
        let mut g = self.lock_shared_over(cx, Some(block(at)));
        let anonymous = match g.layout.vmas.get(at) {
            Some(vma) if may_collapse(vma) && vma.range().covers(block(at)) => vma.is_anonymous(),
            _ => return Err(Fail::Never),
        };
        if !anonymous {
            drop(g);
            return self.collapse_object(cx, at);
        }
        let mem = self.machine().mem();
        let scanned = self.with_leaf_of(&mut g.cx, at, |leaf| scan(mem, leaf));
        let Some(scanned) = scanned else {
            // Nothing here; but only where even the table above is missing does Linux look further.
            let pinned = g.cx.pin();
            let above = self.table.has_pmd(at, self.table.pin(pinned.guard()));
            return Err(if above { Fail::Never } else { Fail::Skip });
        };
        let swapped = match scanned? {
            Scan::Huge => return Ok(()),
            Scan::Small { swapped } => swapped,
        };
        if swapped {
            let mut held = g.held();
            let vma = held.layout.vmas.get(at).expect("found above");
            held.swap_in_block(vma, at)?;
        }
        drop(g);
        let mut g = self.lock_exclusive_some(cx);
        g.settle_on(block(at));
        g.copy_block(at)
    }
}

/// `thp_vma_allowable_order` with `TVA_FORCED_COLLAPSE`: asked for or not, unless refused for good. Private memory must
/// have been written once.
pub(in crate::mm) fn may_collapse(vma: &Vma) -> bool {
    let written = vma.is_anonymous() && vma.anon.get().is_some();
    !vma.flags
        .intersects(VmFlags::NOHUGEPAGE.union(VmFlags::SPECIAL))
        && (written || in_memory_and_aligned(vma))
        && vma.start().align_up(PMD_PAGES).plus(PMD_PAGES) <= vma.end()
}

/// Pages of an object become huge ones only of one that has them in memory alone, and are mapped as such only where addresses
/// and page offsets are aligned alike.
fn in_memory_and_aligned(vma: &Vma) -> bool {
    vma.object().is_some_and(|object| object.is_memory())
        && !vma.flags.contains(VmFlags::NONLINEAR)
        && Vpn(vma.start().0.wrapping_sub(vma.pgoff)).is_aligned(PMD_PAGES)
}

/// What a block consists of.
enum Scan {
    Huge,
    Small { swapped: bool },
}

/// `hpage_collapse_scan_pmd`: holes, the zero page and pages in swap are welcome; all else must be private pages that
/// only mappings refer to.
fn scan(mem: &PhysMem, leaf: &LockedLeaf<'_>) -> Result<Scan, Fail> {
    if leaf.is_huge() {
        return Ok(Scan::Huge);
    }
    let mut swapped = false;
    for at in (0..PMD_PAGES).map(Vpn) {
        let pte = leaf.get(at);
        if pte.is_none() || pte.is_zero_page() {
            continue;
        }
        let Some(pfn) = pte.counted() else {
            swapped = true;
            continue;
        };
        let flags = mem.flags(pfn);
        if !flags.contains(FrameFlags::ANON) {
            return Err(Fail::Never);
        }
        let cached = u32::from(flags.contains(FrameFlags::SWAP_CACHE));
        if mem.refcount(pfn) != mem.mapcount(pfn) + cached {
            return Err(Fail::Busy);
        }
    }
    Ok(Scan::Small { swapped })
}

impl crate::mm::guard::FaultScope<'_> {
    /// `__collapse_huge_page_swapin`: pages in swap come in, those on their way arrive; a guard marker is no page.
    fn swap_in_block(&mut self, vma: &Vma, at: Vpn) -> Result<(), Fail> {
        for page in block(at).iter() {
            let pte = self.look(page).map_err(|_| Fail::NoMemory)?;
            if pte.is_guard() {
                return Err(Fail::Never);
            }
            self.wait_for_migration(pte);
            if let Some(slot) = pte.swap_slot() {
                self.fault_swapped(vma, page, Access::Read, pte, slot)
                    .map_err(|_| Fail::Never)?;
            }
        }
        Ok(())
    }
}

impl MmapWriteGuard<'_> {
    fn copy_block(&mut self, at: Vpn) -> Result<(), Fail> {
        let mem = self.mm.machine().mem();
        let vma = self.layout.vmas.get(at).ok_or(Fail::Never)?;
        if !vma.is_anonymous() || !may_collapse(vma) || !vma.range().covers(block(at)) {
            return Err(Fail::Never);
        }
        let node = vma.anon_node().ok_or(Fail::Never)?;
        let (rights, init_allocated) = (vma.rights(), vma.new_anon());
        let index = vma.pgoff_at(at);
        let huge = mem.alloc_huge().map_err(|_| Fail::NoMemory)?;
        for i in 0..HUGE {
            let pfn = huge.head().nth(i);
            mem.set_flags(pfn, init_allocated);
            mem.set_owner(pfn, Some(node.owner(index + u64::from(i))));
        }
        let walks = vma.walks();
        self.yield_while(0, AfterYield::OnlyPages, &[vma.range()], |lease| {
            let window = lease.into_window(block(at), Event::Clear);
            // Reverse maps must not be walked while pages are in neither place (`anon_vma_lock_write`).
            let _walks_wait = walks.freeze();
            window.collapse(at, huge, rights)
        })
    }
}

impl InvalidationWindow<'_, Sleepable> {
    /// Under the lock of the leaf: `huge` takes the place of its pages.
    fn collapse(mut self, at: Vpn, huge: HugeFrame<'_>, rights: Rights) -> Result<(), Fail> {
        let mem = self.mm().machine().mem();
        let copied = self.lock_ptes(at, |txn| {
            let leaf = txn.leaf();
            // Looked at again: references may have come since.
            if let Scan::Huge = scan(mem, leaf)? {
                return Ok(None);
            }
            if block(at).iter().any(|p| leaf.get(p).is_other()) {
                return Err(Fail::Skip);
            }
            let head = huge.into_raw();
            for (i, page) in (0..HUGE).zip(block(at).iter()) {
                let (old, new) = (leaf.get(page), head.nth(i));
                if let Some(pfn) = old.counted() {
                    mem.copy(pfn, new);
                }
                mem.map_inc(new);
                mem.lru_add(new);
                leaf.set(page, RawPte::frame(new, rights).mkdirty());
                crate::mm::entry::release::drop_entry(mem, old);
            }
            leaf.set_huge(true);
            Ok(Some(()))
        });
        self.close();
        copied.unwrap_or(Err(Fail::Skip)).map(|_| ())
    }
}
