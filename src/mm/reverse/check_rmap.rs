//! The check of the page table against the reverse maps: each mapping must be found from its frame.

use crate::mm::space::Mm;
use crate::{
    addr::{Pfn, Vpn, VpnRange},
    ctx::CallCx,
    rmap::walk_frame,
};
use std::sync::Arc;

impl Mm {
    /// Returns the mappings of this address space that the reverse map of their frame does not lead
    /// to. There are none, unless this crate is broken. Merged pages and an object's sparse page
    /// are left out, since they have no one place in an object.
    pub fn unreachable_pages(&self, cx: &mut CallCx<'_>) -> Vec<(Vpn, Pfn)> {
        let mut lost = self.mapped(cx);
        lost.retain(|&(at, pfn)| !self.leads_to(cx, at, pfn));
        lost
    }
    fn mapped(&self, cx: &mut CallCx<'_>) -> Vec<(Vpn, Pfn)> {
        let mut out = Vec::new();
        self.for_each_entry(cx, VpnRange::TASK, |at, pte| {
            out.extend(pte.mapped().map(|pfn| (at, pfn)))
        });
        out
    }
    fn leads_to(&self, cx: &mut CallCx<'_>, at: Vpn, pfn: Pfn) -> bool {
        let machine = self.machine();
        let mem = machine.mem();
        let Some(frame) = mem.try_get(pfn) else {
            return true; // Given up meanwhile.
        };
        let locked = mem.lock(cx, frame);
        let owner = locked.owner();
        let sparse = owner.is_some_and(|o| o.index == crate::frame::SPARSE_INDEX);
        let mut found = sparse || mem.is_merged(pfn);
        walk_frame(machine.registry(), cx, &locked, |_, spot| {
            let here = std::ptr::addr_eq(Arc::as_ptr(spot.space), std::ptr::from_ref(self));
            found |= here && spot.at == at;
            !found
        });
        found
    }
}
