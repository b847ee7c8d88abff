//! Devices that walk the page table themselves: registration, the walk, the page request.

use crate::mm::{guard::MmapWriteGuard, space::Mm};
#[cfg(feature = "testkit")]
use crate::notifier::test_hook::{self, Moment};
use crate::{
    addr::{TASK_PAGES, Vpn},
    ctx::{Below, CallCx, Context, Cx, rank},
    error::FaultError,
    notifier::{Access, SecondaryTlb, TlbGate, TlbRegistration, TlbSeat, Walked},
};
use std::sync::Arc;

impl Mm {
    /// Registers a device that walks the page table of this address space itself
    /// (`mmu_notifier_register` with `arch_invalidate_secondary_tlbs`). `build` makes the device
    /// from the seat.
    ///
    /// Takes the mmap lock, and waits until the windows that are open have ended. From then on each
    /// change of an entry that takes a page or a right away calls [`SecondaryTlb::flush`].
    pub fn register_tlb<E: SecondaryTlb + 'static>(
        &self,
        cx: &mut CallCx<'_>,
        build: impl FnOnce(TlbSeat) -> Arc<E>,
    ) -> (Arc<E>, TlbRegistration) {
        self.check_token(cx);
        self.lock_exclusive(cx).register_tlb(build)
    }
    /// Walks the page table for a device, as its hardware does, and caches the entry in its TLB.
    /// Returns false if the entry does not allow the access, or the device was released: the device
    /// sends a page request then, or aborts.
    ///
    /// Takes no lock of the page table, and never waits for one. A huge page is cached page by
    /// page. Hardware would set the accessed bit of the entry; this does not.
    ///
    /// # Errors
    ///
    /// [`FaultError::WrongAddressSpace`].
    pub fn walk<T, R: Below<rank::Ptl>, C: Context>(
        &self,
        cx: &mut Cx<'_, R, C>,
        gate: &TlbGate<T>,
        at: Vpn,
        access: Access,
    ) -> Result<bool, FaultError> {
        if !gate.is_of(&self.tlbs) {
            return Err(FaultError::WrongAddressSpace);
        }
        if at.0 >= TASK_PAGES {
            return Ok(false);
        }
        let view = self.table.view(cx);
        Ok(gate.fill(at, access, || {
            // Under the gate: a flush that comes later removes the page again.
            let pte = view.leaf(at)?.peek(at);
            pte.allows(Access::Read).then(|| Walked {
                pfn: pte.pfn(),
                generation: self.machine().mem().generation(pte.pfn()),
                writable: pte.may_write(),
            })
        }))
    }
    /// Serves a page request of a device: makes the page present for the access, as a fault of the
    /// process would (`iommu_sva_handle_mm`). The device walks again after that, and may have to
    /// ask again.
    ///
    /// # Errors
    ///
    /// [`FaultError`], as for the access itself: the request is answered as invalid.
    pub fn serve_page_request(
        &self,
        cx: &mut CallCx<'_>,
        at: Vpn,
        access: Access,
    ) -> Result<(), FaultError> {
        let mut patience = crate::mm::fault::Patience::default();
        patience.allow_retry(self.fault_in_for_driver(cx, at, at.addr(), access))?;
        #[cfg(feature = "testkit")]
        test_hook::call(self.hooked_space(), Moment::LookedUp(at, access));
        Ok(())
    }
}

impl MmapWriteGuard<'_> {
    /// Registers a device under this lock; see [`Mm::register_tlb`].
    pub fn register_tlb<E: SecondaryTlb + 'static>(
        &mut self,
        build: impl FnOnce(TlbSeat) -> Arc<E>,
    ) -> (Arc<E>, TlbRegistration) {
        // Walks over reverse maps open windows without the mmap lock.
        let (mm, layout) = (self.mm, &self.layout);
        let of = (mm.machine().mem(), layout.space.clone() as _);
        let registered = mm.tlbs.register(of, || layout.drain_walks(), build);
        #[cfg(feature = "testkit")]
        mm.tlbs.set_hooked(mm.hooked_space());
        registered
    }
}
