//! Nonlinear mappings: the entries of one VMA name pages of its object in any order. `remap_file_pages` as it was until
//! Linux 4.0.
//!
//! An entry that is not present keeps the page that belongs there. A reverse map cannot find a page in such a VMA by its
//! offset; it is led to all of the VMA, and the entries are searched.

use crate::mm::{
    entry::{flags::VmFlags, pte::RawPte},
    guard::{AfterYield, FaultScope, Lease, MmapWriteGuard},
    space::Mm,
    vma::Vma,
    window::InvalidationWindow,
};
use crate::{
    addr::{Pfn, Vpn, VpnRange},
    ctx::{Context, Sleepable},
    error::{FaultError, MmapError, NoMemory, RemapError, VmaError},
    file::MemoryObject,
    notifier::{Access, Event},
    rmap::RmapCx,
};
use std::convert::Infallible;

impl MmapWriteGuard<'_> {
    /// `populate_range` in one window: what is mapped goes, and each entry is told its page. The range must lie in one
    /// shared mapping.
    pub(in crate::mm) fn remap_nonlinear(
        &mut self,
        range: VpnRange,
        pgoff: u64,
    ) -> Result<(), RemapError> {
        let bad = RemapError::Unsuitable(range.start().addr());
        let vma = self.layout.vmas.get(range.start()).ok_or(bad)?;
        let fits = vma.flags.contains(VmFlags::SHARED) && vma.range().covers(range);
        if !fits || vma.is_sealed() {
            return Err(bad);
        }
        let limit = crate::file::MAX_SIZE / crate::addr::PAGE_SIZE;
        if pgoff.saturating_add(range.pages()) > limit {
            return Err(MmapError::OffsetOverflow(pgoff).into());
        }
        let start = vma.start();
        if !vma.flags.contains(VmFlags::NONLINEAR) {
            self.layout
                .change(start, |vma| vma.flags |= VmFlags::NONLINEAR);
        }
        let mm = self.mm;
        let filled = self.yield_while(range.pages(), AfterYield::OnlyPages, &[], |lease| {
            let mut window = lease.into_window(range, Event::Clear);
            window.fill(mm, range, pgoff)
        });
        filled.map_err(|e| MmapError::Vma(VmaError::NoMemory(e)).into())
    }
}

impl InvalidationWindow<'_, Sleepable> {
    fn fill(&mut self, mm: &Mm, range: VpnRange, pgoff: u64) -> Result<(), NoMemory> {
        self.split_edges(range);
        for at in range.iter() {
            {
                let mut cx = self.cx();
                let pinned = cx.pin();
                mm.table.make_leaf(at, mm.table.pin(pinned.guard()))?;
            }
            let entry = RawPte::file(pgoff + (at.0 - range.start().0));
            self.lock_ptes(at, |txn| txn.slot(at).map(|slot| drop(slot.replace(entry))));
        }
        Ok(())
    }
}

impl<C: Context> InvalidationWindow<'_, C> {
    /// What is mapped of pages `[from, to)` of the object goes; its place is kept.
    pub(in crate::mm) fn forget_pages(&mut self, range: VpnRange, from: u64, to: u64) {
        self.leaves_in(range, |txn| {
            txn.for_each(|slot| {
                let mem = slot.mem();
                let page = slot.raw().counted_or_migrating();
                let owner = page.and_then(|pfn| mem.owner(pfn));
                if let Some(owner) = owner.filter(|o| (from..to).contains(&o.index)) {
                    drop(slot.replace(RawPte::file(owner.index)));
                }
            });
            Ok::<(), Infallible>(())
        })
        .unwrap_or_else(|e| match e {});
    }
}

impl Mm {
    pub(in crate::mm) fn unmap_pages_of(&self, cx: RmapCx<'_>, vma: VpnRange, from: u64, to: u64) {
        let mut window = Lease { mm: self, cx }.into_window(vma, Event::Clear);
        window.forget_pages(vma, from, to);
        window.close();
    }
    pub(in crate::mm) fn places_of(&self, mut cx: RmapCx<'_>, vma: VpnRange, pfn: Pfn) -> Vec<Vpn> {
        let pinned = cx.pin();
        let mut out = Vec::new();
        self.table
            .leaves(vma, self.table.pin(pinned.guard()), |part, leaf| {
                out.extend(
                    part.iter()
                        .filter(|&at| leaf.peek(at).counted_or_migrating() == Some(pfn)),
                );
                Ok::<(), Infallible>(())
            })
            .unwrap_or_else(|e| match e {});
        out
    }
}

impl FaultScope<'_> {
    /// `do_nonlinear_fault`: the page that the entry names.
    pub(in crate::mm) fn fault_nonlinear(
        &mut self,
        vma: &Vma,
        object: &dyn MemoryObject,
        (at, seen): (Vpn, RawPte),
        index: u64,
        access: Access,
    ) -> Result<(), FaultError> {
        let locked = self.lock_index(vma, object, (at, index), access)?;
        let mem = self.lease.mm.machine().mem();
        let pte = match access {
            Access::Read => RawPte::frame(locked.pfn(), vma.mapped_rights()),
            Access::Write => RawPte::frame(locked.pfn(), vma.rights()).mkdirty(),
        };
        self.with_leaf(at, |leaf| {
            if leaf.get(at) == seen {
                mem.map_inc(locked.frame().clone().into_raw());
                leaf.set(at, pte);
            }
        })?;
        Ok(())
    }
}
