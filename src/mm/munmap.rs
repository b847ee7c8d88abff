//! `munmap`: take VMAs out, then their pages inside one window, then the tables that nobody needs.

use super::{
    Mm, MmapWriteGuard,
    flags::VmFlags,
    guard::{Lease, Then},
    mlock::mark_unevictable,
    page_table::Bounds,
    vma::Vma,
    window::Zap,
};
use crate::{
    addr::{PAGE_SHIFT, PAGE_SIZE, TASK_SIZE, Vpn, VpnRange},
    ctx::{Cx, Sleepable, rank},
    error::{MunmapError, VmaError},
    notifier::Event,
};

/// Checks and rounds a range of bytes as `do_vmi_munmap` does.
pub(super) fn check_range(addr: u64, len: u64) -> Result<VpnRange, MunmapError> {
    let bad = MunmapError::Range { addr, len };
    if !addr.is_multiple_of(PAGE_SIZE) || addr > TASK_SIZE || len > TASK_SIZE - addr {
        return Err(bad);
    }
    let end = addr + len.next_multiple_of(PAGE_SIZE);
    VpnRange::new(Vpn::containing(addr), Vpn(end >> PAGE_SHIFT)).ok_or(bad)
}

/// What the VMAs of a range amount to, before they are taken out.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Gathered {
    pub(super) pages: u64,
    pub(super) accounted: u64,
}

impl Mm {
    /// Unmaps `[addr, addr + len)`, `len` rounded up to pages; holes in the range are fine.
    ///
    /// # Errors
    ///
    /// [`MunmapError`]; nothing is unmapped then. As on Linux, a boundary may have been split already.
    pub fn munmap(
        &self,
        cx: &mut Cx<'_, rank::Idle, Sleepable>,
        addr: u64,
        len: u64,
    ) -> Result<(), MunmapError> {
        let range = check_range(addr, len)?;
        let mut g = self.write_some(cx);
        g.settle_on(range);
        Ok(g.unmap(range, Then::Ends)?)
    }
}

impl MmapWriteGuard<'_> {
    /// `do_munmap` after its checks: one window over the whole requested range if anything is mapped in it.
    pub(super) fn unmap(&mut self, range: VpnRange, then: Then) -> Result<(), VmaError> {
        if self.layout.occupied(range) {
            self.gather(range)?;
            self.detach(range, true, then);
        }
        Ok(())
    }

    /// Splits the VMAs at both ends of `range`, so that it can be taken out (`vms_gather_munmap_vmas`).
    pub(super) fn gather(&mut self, range: VpnRange) -> Result<Gathered, VmaError> {
        let Some(first) = self.layout.vmas.find(range.start()) else {
            return Ok(Gathered::default());
        };
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
        let sealed = self.layout.vmas.range(range).find(|v| v.is_sealed());
        if let Some(vma) = sealed {
            return Err(VmaError::Sealed(vma.start().addr()));
        }
        let last = self.layout.vmas.before(range.end()).map(Vma::range);
        if let Some(last) = last.filter(|v| v.end() > range.end()) {
            self.split_unlimited(last.start(), range.end())?;
        }
        let mut sum = Gathered::default();
        for vma in self.layout.vmas.range(range) {
            sum.pages += vma.pages();
            if vma.flags.contains(VmFlags::ACCOUNT) {
                sum.accounted += vma.pages();
            }
        }
        Ok(sum)
    }

    /// Takes the gathered VMAs of `range` out and drops their pages and tables (`vms_clear_ptes`,
    /// `vms_complete_munmap_vmas`). `uncharge`: give their promised memory back as well.
    pub(super) fn detach(&mut self, range: VpnRange, uncharge: bool, then: Then) {
        let vmas = self.layout.vmas.drain_range(range);
        let (Some(first), Some(last)) = (vmas.first(), vmas.last()) else {
            return;
        };
        let freed = VpnRange::new(first.start(), last.end()).expect("in ascending order");
        for vma in &vmas {
            self.layout.unaccount(vma.flags, vma.pages());
            if vma.flags.contains(VmFlags::LOCKED) {
                self.layout.locked_vm -= vma.pages();
            }
            if uncharge && vma.flags.contains(VmFlags::ACCOUNT) {
                self.layout.uncharge(vma.pages());
            }
        }
        // While others are let in, only tables that nobody can want are freed: those that lie in the range altogether.
        let others = self.gives_way(freed.pages());
        let bounds = if others {
            Bounds {
                floor: freed.start(),
                ceiling: Some(freed.end()),
            }
        } else {
            self.bounds(freed)
        };
        self.during(freed.pages(), then, &[], |lease| {
            drop_pages(lease, range, &vmas, freed, bounds);
            // The VMAs' objects and families go last, when nothing maps their pages any more.
            drop(vmas);
        });
        if others {
            let bounds = self.bounds(freed);
            let pinned = self.cx.pin();
            let table = &self.mm.table;
            table.free_range(freed, bounds, table.pin(pinned.guard()));
        }
    }
    /// Where the next mappings are, those that somebody is still unmapping among them.
    fn bounds(&self, freed: VpnRange) -> Bounds {
        let layout = &self.layout;
        let mut floor = layout.vmas.before(freed.start()).map_or(Vpn(0), Vma::end);
        let mut ceiling = layout.vmas.find(freed.end()).map(Vma::start);
        for claimed in layout.claims().flat_map(|claim| &claim.held) {
            if claimed.start() < freed.start() {
                floor = floor.max(claimed.end());
            } else {
                ceiling = Some(ceiling.map_or(claimed.start(), |c| c.min(claimed.start())));
            }
        }
        Bounds { floor, ceiling }
    }
}

/// Pages of VMAs that nobody finds any more, in one window over all that was asked for.
fn drop_pages(
    mut lease: Lease<'_, rank::Mmap, Sleepable>,
    range: VpnRange,
    vmas: &[Vma],
    freed: VpnRange,
    bounds: Bounds,
) {
    let mm = lease.mm;
    for vma in vmas.iter().filter(|v| v.flags.contains(VmFlags::LOCKED)) {
        let pinned = lease.cx.pin();
        mark_unevictable(mm, mm.table.pin(pinned.guard()), vma.range(), false);
    }
    let mut window = lease.into_window(range, Event::Unmap);
    for vma in vmas {
        window.zap(vma.range(), Zap::Mapping);
    }
    window.free_tables(freed, bounds);
    window.close();
}
