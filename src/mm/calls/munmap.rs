//! `munmap`: takes VMAs out of the layout, then drops their pages in one window, then frees the
//! tables that no VMA needs.
//!
//! The mmap lock is held exclusively only for the VMAs. While the drivers are called, other
//! operations run, except on these pages (ADR 0009).

use super::mlock::mark_unevictable;
use crate::mm::{
    entry::{args::check_range, flags::VmFlags},
    guard::{AfterYield, MmapWriteGuard},
    page_table::{Bounds, Tables},
    space::Mm,
    vma::{Vma, tree::Emptied},
    window::{InvalidationWindow, Zap},
};
use crate::{
    addr::VpnRange,
    ctx::{CallCx, Sleepable},
    error::{MunmapError, VmaError},
    notifier::Event,
    trace,
};
use smallvec::SmallVec;

/// The sums over the VMAs of a range, before they are taken out.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::mm) struct Gathered {
    pub(in crate::mm) pages: u64,
    pub(in crate::mm) accounted: u64,
    /// A VMA among them is registered with a userfaultfd.
    pub(in crate::mm) registered: bool,
}

impl Mm {
    /// Unmaps `[addr, addr + len)`, `len` rounded up to pages; the range may have holes.
    ///
    /// # Errors
    ///
    /// [`MunmapError`]; nothing is unmapped then. As on Linux, a boundary may have been split
    /// already.
    ///
    /// # Panics
    ///
    /// If a driver does. If it panicked at the beginning of a window, the memory of that window
    /// stays mapped.
    ///
    /// # Examples
    ///
    /// ```
    /// use emmu::{FaultError, PAGE_SIZE, mm::MmapArgs};
    /// # let machine = emmu::Machine::new(Default::default());
    /// # let mut thread = machine.enter()?;
    /// # let mut cx = thread.cx();
    /// # let mm = emmu::Mm::new(&machine);
    ///
    /// let at = mm.mmap(&mut cx, &MmapArgs::anonymous(3 * PAGE_SIZE))?;
    /// let middle = at + PAGE_SIZE;
    /// mm.munmap(&mut cx, middle, PAGE_SIZE)?;
    /// assert_eq!(mm.map_count(&mut cx), 2);
    /// assert_eq!(mm.load(&mut cx, middle), Err(FaultError::NotMapped(middle)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn munmap(&self, cx: &mut CallCx<'_>, addr: u64, len: u64) -> Result<(), MunmapError> {
        let _call = trace::call("munmap", addr, len);
        let range = check_range(addr, len)?;
        let mut g = self.lock_exclusive_some(cx);
        g.claim_range(range);
        Ok(g.unmap(range, AfterYield::OnlyPages)?)
    }
}

impl MmapWriteGuard<'_> {
    /// Unmaps a checked range (`do_munmap`), in one window over all of it, if anything is mapped
    /// there.
    #[inline]
    pub(in crate::mm) fn unmap(
        &mut self,
        range: VpnRange,
        then: AfterYield,
    ) -> Result<(), VmaError> {
        self.layout.vmas.focus(range.start());
        let gathered = self.gather(range)?;
        if gathered.pages > 0 {
            let told = self.watchers(range, &gathered);
            self.complete_unmap(range, true, then);
            if let Some(told) = told {
                told.send();
            }
        }
        Ok(())
    }

    /// Splits the VMAs at both ends of `range`, so that the range can be taken out
    /// (`vms_gather_munmap_vmas`).
    #[inline]
    pub(in crate::mm) fn gather(&mut self, range: VpnRange) -> Result<Gathered, VmaError> {
        match self.layout.vmas.find_near(range.start()) {
            Some((first, _)) if first.start() < range.end() => self.gather_from(first, range),
            _ => Ok(Gathered::default()),
        }
    }
    /// Gathers the VMAs of `range`, the first of which is `first`.
    fn gather_from(&mut self, first: VpnRange, range: VpnRange) -> Result<Gathered, VmaError> {
        if range.start() > first.start() {
            self.split_below(first, range)?;
        }
        let mut sum = Gathered::default();
        let mut last = range.end();
        for vma in self.layout.vmas.range(range) {
            if vma.is_sealed() {
                return Err(VmaError::Sealed(vma.start().addr()));
            }
            last = vma.end();
            let pages = last.min(range.end()).0 - vma.start().0;
            sum.pages += pages;
            sum.registered |= vma.userfault().is_some();
            if vma.flags.contains(VmFlags::ACCOUNT) {
                sum.accounted += pages;
            }
        }
        if last > range.end() {
            let cut = self.layout.vmas.before(range.end());
            let start = cut.expect("it reaches beyond the range").start();
            self.split_unlimited(start, range.end())?;
        }
        Ok(sum)
    }
    /// Splits the VMA `first` where `range` begins inside of it.
    fn split_below(&mut self, first: VpnRange, range: VpnRange) -> Result<(), VmaError> {
        // Only a VMA that is left in two pieces adds to the number of VMAs.
        if range.end() < first.end() {
            self.layout.check_map_count()?;
        }
        if self.vma(first.start()).is_sealed() {
            return Err(VmaError::Sealed(first.start().addr()));
        }
        self.split_unlimited(first.start(), range.start())
    }

    /// Takes the gathered VMAs of `range` out and drops their pages and tables (`vms_clear_ptes`,
    /// `vms_complete_munmap_vmas`); with `uncharge` also gives their promised memory back.
    ///
    /// If a driver panics, each VMA is gone together with its pages, or back together with them;
    /// see [`TakenOut`].
    pub(in crate::mm) fn complete_unmap(
        &mut self,
        range: VpnRange,
        uncharge: bool,
        then: AfterYield,
    ) {
        self.complete_unmap_or(OnPanic::Restore, range, uncharge, then);
    }
    /// Takes out VMAs that map nothing. They do not come back after a driver's panic.
    pub(in crate::mm) fn complete_unmap_empty(
        &mut self,
        range: VpnRange,
        uncharge: bool,
        then: AfterYield,
    ) {
        self.complete_unmap_or(OnPanic::Remove, range, uncharge, then);
    }
    fn complete_unmap_or(
        &mut self,
        on_panic: OnPanic,
        range: VpnRange,
        uncharge: bool,
        then: AfterYield,
    ) {
        let mut out = TakenOut::new(self, uncharge, on_panic);
        let Some((freed, bounds)) = out.take_out(range) else {
            return;
        };
        let TakenOut { guard, vmas, .. } = &mut out;
        guard.empty(range, (freed, bounds), vmas, then);
    }
    /// Frees the tables that only `left` needed, whose VMA has moved away with its pages, in the
    /// window in which it is unmapped.
    pub(in crate::mm) fn leave(&mut self, left: VpnRange) {
        let bounds = self.neighbours(left);
        let none = &mut RemovedVmas::default();
        self.empty(left, (left, bounds), none, AfterYield::KeepsEditing);
    }
    /// Opens a window over `range`, and drops the pages of `vmas`, which are out of the layout, and
    /// the tables of `freed`, the pages from the first of them to the last.
    #[inline]
    fn empty(
        &mut self,
        range: VpnRange,
        (freed, bounds): (VpnRange, Bounds),
        vmas: &mut RemovedVmas,
        then: AfterYield,
    ) {
        let tables = self.mm.table.above(freed, &mut self.cx);
        let work = match tables {
            Tables::Middle => freed.pages(),
            Tables::Upper | Tables::None => 0,
        };
        let others = self.should_yield(work);
        // While other operations run, only tables that lie in the range altogether are freed, since
        // no other mapping can need them.
        let bounds = if others {
            Bounds {
                floor: freed.start(),
                ceiling: Some(freed.end()),
            }
        } else {
            self.without_claims(freed, bounds)
        };
        self.yield_if(others, then, &[], |lease| {
            let mut window = lease.into_window(range, Event::Unmap);
            match tables {
                Tables::Middle => vmas.drop_pages(&mut window),
                Tables::Upper | Tables::None => vmas.dropped = vmas.list.len(),
            }
            // Another operation may leave tables to this one, but only while others run.
            if tables != Tables::None {
                window.free_tables(freed, bounds);
            }
            window.close();
            // Objects and families go last, when none of their pages is mapped by these VMAs.
            vmas.list.clear();
        });
        if others {
            let bounds = self.neighbours(freed);
            let bounds = self.without_claims(freed, bounds);
            let table = &self.mm.table;
            table.free_range(freed, bounds, table.view(&mut self.cx).pin());
        }
    }
    /// Returns the bounds of the mappings next to pages that have none.
    fn neighbours(&mut self, freed: VpnRange) -> Bounds {
        let Emptied { floor, ceiling } = self.layout.vmas.hole(freed);
        Bounds { floor, ceiling }
    }
    /// Narrows these bounds by the pages that other operations are still unmapping.
    fn without_claims(&self, freed: VpnRange, bounds: Bounds) -> Bounds {
        let Bounds {
            mut floor,
            mut ceiling,
        } = bounds;
        let layout = &self.layout;
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

/// VMAs that are out of the layout, ascending.
#[derive(Default)]
struct RemovedVmas {
    list: SmallVec<[Vma; 1]>,
    /// The number of VMAs, from the first on, whose pages are dropped.
    dropped: usize,
}

impl RemovedVmas {
    fn drop_pages(&mut self, window: &mut InvalidationWindow<'_, Sleepable>) {
        for vma in &self.list {
            if vma.flags.contains(VmFlags::LOCKED) {
                let mm = window.mm();
                let mut cx = window.cx();
                let view = mm.table.view(&mut cx);
                mark_unevictable(mm, view.pin(), vma.range(), false);
            }
            match vma.flags.contains(VmFlags::HUGETLB) {
                true => {
                    let mm = window.mm();
                    mm.machine().shared_tables.forget(mm.number(), vma.range());
                    window.zap_hugetlb(vma.range(), Zap::Mapping, vma.is_owner());
                }
                false => window.zap(vma.range(), Zap::Mapping),
            }
            self.dropped += 1;
        }
    }
}

/// VMAs that are out of the layout, but not yet out of the account of promised memory, while their
/// pages are dropped.
///
/// If a driver's panic keeps a window from opening, nothing in it may be unmapped: those VMAs come
/// back as they were (ADR 0024). Their place is still free, since the operation keeps others off
/// it.
struct TakenOut<'a, 'g> {
    guard: &'a mut MmapWriteGuard<'g>,
    vmas: RemovedVmas,
    /// The pages that were promised to the VMAs.
    promised: u64,
    uncharge: bool,
    on_panic: OnPanic,
}

/// The end of VMAs whose pages were not dropped because of a driver's panic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OnPanic {
    Restore,
    Remove,
}

impl<'a, 'g> TakenOut<'a, 'g> {
    fn new(guard: &'a mut MmapWriteGuard<'g>, uncharge: bool, on_panic: OnPanic) -> Self {
        Self {
            guard,
            vmas: RemovedVmas::default(),
            promised: 0,
            uncharge,
            on_panic,
        }
    }
    /// Takes the VMAs inside `range` out of the layout. Returns the pages from the first one to the
    /// last, and the bounds of their neighbours; `None` if there are none.
    #[inline]
    fn take_out(&mut self, range: VpnRange) -> Option<(VpnRange, Bounds)> {
        let layout = &mut *self.guard.layout;
        let list = &mut self.vmas.list;
        let Emptied { floor, ceiling } = layout.vmas.drain_range(range, list);
        for vma in &*list {
            layout.unaccount(vma.flags, vma.pages());
            if vma.flags.contains(VmFlags::LOCKED) {
                layout.locked_vm -= vma.pages();
            }
            if vma.flags.contains(VmFlags::ACCOUNT) {
                self.promised += vma.pages();
            }
        }
        let freed = VpnRange::new(list.first()?.start(), list.last()?.end());
        let freed = freed.expect("in ascending order");
        Some((freed, Bounds { floor, ceiling }))
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
                    // Their promise has passed to the new mapping, so they need another.
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
