//! New pages in the place of holes and zero pages, on a device (`migrate_vma_insert_page`).

use super::{Selection, Stays};
use crate::mm::{
    entry::{flags::VmFlags, pte::RawPte},
    fault::scope::FaultScope,
    vma::Vma,
    window::PteSlot,
};
use crate::{
    addr::{Vpn, VpnRange},
    frame::{Frame, FrameFlags},
};

impl<'h> FaultScope<'h> {
    /// Puts a frame into each of these holes of `vma`, ascending, in one window from the first one
    /// to `end`; the owner may keep the translations of its frames. Returns the outcome of each.
    ///
    /// A hole that has another page by now, or whose fault userfaultfd handles, stays as it is.
    pub(in crate::mm) fn insert_pages(
        &mut self,
        vma: &Vma,
        holes: Vec<(Vpn, Frame<'h>)>,
        end: Vpn,
        select: &Selection,
    ) -> Vec<(Vpn, Result<(), Stays>)> {
        let Some(range) = holes.first().and_then(|(at, _)| VpnRange::new(*at, end)) else {
            return Vec::new();
        };
        let mem = self.lease.mm.machine().mem();
        let closed = self.layout.released || vma.flags.contains(VmFlags::UFFD_MISSING);
        let node = self.layout.anon_of(vma).ok().filter(|_| !closed);
        // Nothing may fail in the window.
        let made: Vec<_> = holes
            .into_iter()
            .map(|(at, frame)| (at, frame, self.with_leaf(at, |_| ()).is_ok()))
            .collect();
        let mut window = self.lease.again().into_window(range, select.reason());
        let mut out = Vec::new();
        for (at, frame, has_leaf) in made {
            let put = node.filter(|_| has_leaf).and_then(|node| {
                window.lock_ptes(at, |txn| {
                    let vacant =
                        |slot: &PteSlot<'_>| slot.raw().is_none() || slot.raw().is_zero_page();
                    let slot = txn.slot(at).filter(vacant)?;
                    let pfn = frame.into_raw();
                    mem.set_owner(pfn, Some(node.owner(vma.pgoff_at(at))));
                    // No list of reclaim has a frame of a device, so locking it has no meaning.
                    let flags = vma.new_anon() - FrameFlags::UNEVICTABLE;
                    mem.set_flags(pfn, flags);
                    mem.map_inc(pfn);
                    let write = vma.flags.contains(VmFlags::WRITE);
                    let pte = match (mem.is_private(pfn), write) {
                        (true, _) => RawPte::private(pfn, write),
                        (false, false) => RawPte::frame(pfn, vma.rights()),
                        (false, true) => RawPte::frame(pfn, vma.rights()).mkdirty(),
                    };
                    drop(slot.replace(pte));
                    Some(())
                })
            });
            out.push((at, put.flatten().ok_or(Stays::Changed)));
        }
        window.close();
        out
    }
}
