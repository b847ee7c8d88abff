//! Nonlinear mappings: the entries of one VMA name pages of its object in any order. `remap_file_pages` as it was until
//! Linux 4.0.
//!
//! An entry that is not present keeps the page that belongs there. A reverse map cannot find a page in such a VMA by its
//! offset; it is led to all of the VMA, and the entries are searched.

use crate::mm::{entry::pte::RawPte, guard::FaultScope, vma::Vma, window::InvalidationWindow};
use crate::{
    addr::{Vpn, VpnRange},
    ctx::Context,
    error::FaultError,
    file::MemoryObject,
    notifier::Access,
};
use std::convert::Infallible;

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
