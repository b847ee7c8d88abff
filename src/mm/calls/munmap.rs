//! `munmap`: take VMAs out, then their pages inside one window, then the tables that nobody needs.

use super::mlock::mark_unevictable;
use crate::ctx::CallCx;

use crate::mm::{
    entry::{args::check_range, flags::VmFlags},
    guard::{AfterYield, MmapWriteGuard},
    page_table::Bounds,
    space::Mm,
    vma::Vma,
    window::{InvalidationWindow, Zap},
};
use crate::{
    addr::{Vpn, VpnRange},
    ctx::Sleepable,
    error::{MunmapError, VmaError},
    notifier::Event,
};
use smallvec::SmallVec;

/// What the VMAs of a range amount to, before they are taken out.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::mm) struct Gathered {
    pub(in crate::mm) pages: u64,
    pub(in crate::mm) accounted: u64,
}

impl Mm {
    /// Unmaps `[addr, addr + len)`, `len` rounded up to pages; holes in the range are fine.
    ///
    /// # Errors
    ///
    /// [`MunmapError`]; nothing is unmapped then. As on Linux, a boundary may have been split already.
    ///
    /// # Panics
    ///
    /// If a driver does. Where it on_panic at the beginning of a window, what lies in that window stays mapped.
    pub fn munmap(&self, cx: &mut CallCx<'_>, addr: u64, len: u64) -> Result<(), MunmapError> {
        let range = check_range(addr, len)?;
        let mut g = self.lock_exclusive_some(cx);
        g.claim_range(range);
        Ok(g.unmap(range, AfterYield::OnlyPages)?)
    }
}

impl MmapWriteGuard<'_> {
    /// `do_munmap` after its checks: one window over the whole requested range if anything is mapped in it.
    pub(in crate::mm) fn unmap(
        &mut self,
        range: VpnRange,
        then: AfterYield,
    ) -> Result<(), VmaError> {
        self.layout.vmas.focus(range.start());
        if self.layout.occupied(range) {
            self.gather(range)?;
            self.detach(range, true, then);
        }
        Ok(())
    }

    /// Splits the VMAs at both ends of `range`, so that it can be taken out (`vms_gather_munmap_vmas`).
    pub(in crate::mm) fn gather(&mut self, range: VpnRange) -> Result<Gathered, VmaError> {
        let Some(first) = self.layout.vmas.find(range.start()) else {
            return Ok(Gathered::default());
        };
        if first.start() >= range.end() {
            return Ok(Gathered::default());
        }
        let first = (first.range(), first.is_sealed());
        if range.start() > first.0.start() {
            // Two pieces would be left of it: only then can the map grow.
            if range.end() < first.0.end() {
                self.layout.check_map_count()?;
            }
            if first.1 {
                return Err(VmaError::Sealed(first.0.start().addr()));
            }
            self.split_unlimited(first.0.start(), range.start())?;
        }
        let mut sum = Gathered::default();
        let mut last = first.0;
        for vma in self.layout.vmas.range(range) {
            if vma.is_sealed() {
                return Err(VmaError::Sealed(vma.start().addr()));
            }
            last = vma.range();
            let pages = vma.pages().min(range.end().0 - vma.start().0);
            sum.pages += pages;
            if vma.flags.contains(VmFlags::ACCOUNT) {
                sum.accounted += pages;
            }
        }
        if last.end() > range.end() {
            self.split_unlimited(last.start(), range.end())?;
        }
        Ok(sum)
    }

    /// Takes the gathered VMAs of `range` out and drops their pages and tables (`vms_clear_ptes`,
    /// `vms_complete_munmap_vmas`). `uncharge`: give their promised memory back as well.
    ///
    /// Should a driver panic, each VMA is gone with its pages or back with them: see [`TakenOut`].
    pub(in crate::mm) fn detach(&mut self, range: VpnRange, uncharge: bool, then: AfterYield) {
        self.detach_or(OnPanic::Restore, range, uncharge, then);
    }
    /// The same of VMAs that map nothing, and go in any case.
    pub(in crate::mm) fn detach_empty(
        &mut self,
        range: VpnRange,
        uncharge: bool,
        then: AfterYield,
    ) {
        self.detach_or(OnPanic::Remove, range, uncharge, then);
    }
    fn detach_or(&mut self, on_panic: OnPanic, range: VpnRange, uncharge: bool, then: AfterYield) {
        let vmas = self.layout.vmas.drain_range(range);
        let (Some(first), Some(last)) = (vmas.first(), vmas.last()) else {
            return;
        };
        let freed = VpnRange::new(first.start(), last.end()).expect("in ascending order");
        let mut out = TakenOut::new(self, vmas, uncharge, on_panic);
        // While others are let in, only tables that nobody can want are freed: those that lie in the range altogether.
        let work = if out.guard.has_tables(freed) {
            freed.pages()
        } else {
            0
        };
        let others = out.guard.should_yield(work);
        let bounds = if others {
            Bounds {
                floor: freed.start(),
                ceiling: Some(freed.end()),
            }
        } else {
            out.guard.bounds(freed)
        };
        let TakenOut { guard, vmas, .. } = &mut out;
        guard.yield_while(work, then, &[], |lease| {
            let mut window = lease.into_window(range, Event::Unmap);
            vmas.drop_pages(&mut window);
            window.free_tables(freed, bounds);
            window.close();
            // The VMAs' objects and families go last, when nothing maps their pages any more.
            vmas.list.clear();
        });
        drop(out);
        if others {
            let bounds = self.bounds(freed);
            let pinned = self.cx.pin();
            let table = &self.mm.table;
            table.free_range(freed, bounds, table.pin(pinned.guard()));
        }
    }
    /// Whether there is any table of 2-MiB entries: what was moved away as a whole left none.
    fn has_tables(&mut self, range: VpnRange) -> bool {
        let table = &self.mm.table;
        let pinned = self.cx.pin();
        table.first_pmd(range, table.pin(pinned.guard())).is_some()
    }
    /// Where the next mappings are, those that somebody is still unmapping among them.
    fn bounds(&self, freed: VpnRange) -> Bounds {
        let layout = &self.layout;
        let below = layout.vmas.range_before(freed.start());
        let above = layout.vmas.find_range(freed.end());
        let mut floor = below.map_or(Vpn(0), |(below, _)| below.end());
        let mut ceiling = above.map(|(above, _)| above.start());
        for claimed in layout.claims().flat_map(|claim| &claim.no_writers) {
            if claimed.start() < freed.start() {
                floor = floor.max(claimed.end());
            } else {
                ceiling = Some(ceiling.map_or(claimed.start(), |c| c.min(claimed.start())));
            }
        }
        Bounds { floor, ceiling }
    }
}

/// VMAs that nobody finds any more, ascending.
struct RemovedVmas {
    list: SmallVec<[Vma; 1]>,
    /// So many of them, the first ones, map nothing any more.
    dropped: usize,
}

impl RemovedVmas {
    fn drop_pages(&mut self, window: &mut InvalidationWindow<'_, Sleepable>) {
        for vma in &self.list {
            if vma.flags.contains(VmFlags::LOCKED) {
                let mm = window.mm();
                let mut cx = window.cx();
                let pinned = cx.pin();
                mark_unevictable(mm, mm.table.pin(pinned.guard()), vma.range(), false);
            }
            window.zap(vma.range(), Zap::Mapping);
            self.dropped += 1;
        }
    }
}

/// VMAs are out of the layout and not of the accounts of promised memory, while their pages go.
///
/// Where a driver's panic keeps a window from opening, nothing in it may be unmapped: those VMAs come back as they were. They
/// find their place free, since the operation keeps others off it.
struct TakenOut<'a, 'g> {
    guard: &'a mut MmapWriteGuard<'g>,
    vmas: RemovedVmas,
    /// What was promised to them.
    promised: u64,
    uncharge: bool,
    on_panic: OnPanic,
}

/// What VMAs do whose pages a driver's panic kept from being dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OnPanic {
    Restore,
    Remove,
}

impl<'a, 'g> TakenOut<'a, 'g> {
    fn new(
        guard: &'a mut MmapWriteGuard<'g>,
        list: SmallVec<[Vma; 1]>,
        uncharge: bool,
        on_panic: OnPanic,
    ) -> Self {
        let mut promised = 0;
        for vma in &list {
            guard.layout.unaccount(vma.flags, vma.pages());
            if vma.flags.contains(VmFlags::LOCKED) {
                guard.layout.locked_vm -= vma.pages();
            }
            if vma.flags.contains(VmFlags::ACCOUNT) {
                promised += vma.pages();
            }
        }
        Self {
            guard,
            vmas: RemovedVmas { list, dropped: 0 },
            promised,
            uncharge,
            on_panic,
        }
    }
    #[cold]
    fn restore(&mut self) {
        let layout = &mut self.guard.layout;
        for vma in self.vmas.list.drain(..).skip(self.vmas.dropped) {
            let (flags, pages) = (vma.flags, vma.pages());
            layout.insert(vma);
            layout.account(flags, pages);
            if flags.contains(VmFlags::LOCKED) {
                layout.locked_vm += pages;
            }
            if flags.contains(VmFlags::ACCOUNT) {
                if self.uncharge {
                    self.promised -= pages;
                } else {
                    // What was promised to it is somebody else's by now.
                    layout.machine.commit().force(pages);
                }
            }
        }
    }
}

impl Drop for TakenOut<'_, '_> {
    fn drop(&mut self) {
        if !self.vmas.list.is_empty() && self.on_panic == OnPanic::Restore {
            self.restore();
        }
        if self.uncharge && self.promised > 0 {
            self.guard.layout.uncharge(self.promised);
        }
    }
}
