//! Faults in nonlinear mappings: each entry of such a VMA names a page of the object, in any order,
//! as `remap_file_pages` did until Linux 4.0.
//!
//! An entry that is not present keeps the index of its page. A reverse map cannot compute where
//! such a VMA maps a page, so it searches all entries of the VMA.

use super::scope::FaultScope;
use crate::mm::{entry::pte::RawPte, vma::Vma, window::InvalidationWindow};
use crate::{
    addr::{Vpn, VpnRange},
    ctx::Context,
    error::FaultError,
    file::MemoryObject,
    notifier::Access,
};
use std::convert::Infallible;

impl<C: Context> InvalidationWindow<'_, C> {
    /// Unmaps pages `[from, to)` of the object in `range`; each entry keeps the index of its page.
    pub(in crate::mm) fn forget_pages(&mut self, range: VpnRange, from: u64, to: u64) {
        self.leaves_in(range, |txn| {
            txn.each_entry(|slot| {
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
    /// Maps page `index` of the object, which the entry `seen` names (`do_nonlinear_fault`).
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
