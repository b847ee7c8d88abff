//! The fault path: a shadow entry is made for an access that missed (`kvm_tdp_page_fault`).
//!
//! A fault is checked twice under the gate. The permit says that no window has come between its
//! ticket and now, page by page. The machine's own account says the same by guest frames and a
//! sequence, as in Linux: it is coarser, and a model runs it alone (`models.rs`).

use super::{
    config::KvmMistake,
    exit::Exit,
    memslot::{Gfn, MemSlot, MemSlots, SlotFlags},
    shadow::ShadowPages,
    vcpu::Vcpu,
    vm::{SharedTlb, State, Vm},
};
use crate::{
    addr::{PMD_PAGES, Vpn},
    ctx::{Atomic, CallCx},
    extmmu::References,
    mm::Mm,
    notifier::{Access, Cached, GateGuard, Permit, Retry, ShadowEntry},
};
use std::sync::Arc;

impl MemSlots {
    /// Returns the slot of a guest address, if it allows the access.
    pub(super) fn allowing(&self, gpa: u64, access: Access) -> Result<MemSlot, Exit> {
        let slot = self.find(Gfn::containing(gpa)).ok_or(Exit::Mmio(gpa))?;
        if access == Access::Write && slot.flags.contains(SlotFlags::READONLY) {
            return Err(Exit::ReadOnly(gpa));
        }
        Ok(*slot)
    }
}

type Allowed<'p> = Permit<'p, ShadowPages, State, Atomic>;

impl Vm {
    pub(super) fn mm(&self) -> Result<Arc<Mm>, Exit> {
        self.mm.upgrade().ok_or(Exit::Gone)
    }
    /// Returns the slots now.
    pub(super) fn current(&self) -> Arc<MemSlots> {
        Arc::clone(&self.slots.lock())
    }
    /// Makes the entry for an access and enters it in the TLB of the processor; tries again for as
    /// long as windows are in the way.
    pub(super) fn page_fault(
        &self,
        cx: &mut CallCx<'_>,
        cpu: &Vcpu,
        mut slot: MemSlot,
        gpa: u64,
        access: Access,
    ) -> Result<(), Exit> {
        let mm = cpu.mm()?;
        let gfn = Gfn::containing(gpa);
        loop {
            let page = slot.hva_of(gfn);
            // Before the look-up: a window that ends after this advances the sequence, and is
            // noticed below.
            let seq = self.sequence_at(page);
            let mut ticket = self.gates.ticket(page, access).allow_huge();
            if !slot
                .flags
                .intersects(SlotFlags::READONLY | SlotFlags::LOG_DIRTY_PAGES)
            {
                ticket = ticket.or_writable();
            }
            let found = mm.resolve(cx, ticket);
            let pending = found.map_err(|why| Exit::Fault { gpa, why })?;
            if self.made(KvmMistake::NoRetry) {
                // The page may be gone by now, and nothing checks it.
                let cached = pending.vouch();
                let mut guard = self.gates.lock(cx, page);
                guard.state().enter(&cpu.tlb, gfn, cached);
                return Ok(());
            }
            match pending.admit(cx) {
                Ok(permit) => {
                    if self.establish(permit, &slot, gfn, seq, &cpu.tlb, access) {
                        return Ok(());
                    }
                }
                Err(Retry::Detached) => return Err(Exit::Gone),
                Err(Retry::Busy | Retry::Stale) => {}
            }
            self.meter.retried();
            crate::sync::thread::yield_now();
            slot = cpu.slot_for(gpa, access)?;
        }
    }
    /// Enters an admitted translation with the gate held. Returns false if the fault must be tried
    /// again.
    pub(super) fn establish(
        &self,
        mut permit: Allowed<'_>,
        slot: &MemSlot,
        gfn: Gfn,
        seq: u64,
        tlb: &SharedTlb,
        access: Access,
    ) -> bool {
        let page = slot.hva_of(gfn);
        // The slot may have been replaced since, and the machine's own account is coarser than the
        // permit's.
        let same = permit.guard().store().slots().find(gfn) == Some(slot);
        if !same || self.must_retry(permit.state(), (gfn, page), seq) {
            return false;
        }
        // Another processor was faster: its entry stays, with the dirty bit that TLBs rely on
        // (`RET_PF_SPURIOUS`).
        if self.enter_present(permit.guard(), gfn, tlb, access) {
            return true;
        }
        if permit.range().pages() > 1 && !fits_huge(slot, gfn) {
            permit = permit.only_page();
        }
        if access == Access::Write && slot.flags.contains(SlotFlags::LOG_DIRTY_PAGES) {
            permit.state().log.insert((slot.id, gfn.0 - slot.gfn.0));
        }
        self.meter.faulted(permit.range());
        let mut guard = match self.config.references {
            References::None => permit.establish(gfn),
            References::Held => permit.establish_held(gfn),
        };
        self.enter_present(&mut guard, gfn, tlb, access)
    }
    /// Enters the shadow entry of a guest frame in a TLB, if it allows the access, as the walk of a
    /// processor does. The gate is held, so a window that zaps the entry flushes the TLB after
    /// this.
    pub(super) fn enter_present(
        &self,
        gate: &mut GateGuard<'_, ShadowPages, State, Atomic>,
        gfn: Gfn,
        tlb: &SharedTlb,
        access: Access,
    ) -> bool {
        let cached = gate.cached_if(&gfn, |spte| {
            let allows = access == Access::Read || spte.is_writable();
            if allows {
                self.mark(spte, access);
            }
            allows
        });
        if let Some(cached) = cached {
            gate.state().enter(tlb, gfn, for_access(cached, access));
        }
        cached.is_some()
    }
    /// Sets the accessed and dirty bits of the walk.
    fn mark(&self, spte: &ShadowEntry, access: Access) {
        match access {
            Access::Write if !self.made(KvmMistake::LostDirty) => spte.set_dirty(),
            _ => spte.set_accessed(),
        }
    }
    /// Returns true if a window over the frame is open or has ended since
    /// (`mmu_invalidate_retry_gfn`).
    fn must_retry(&self, state: &State, (gfn, page): (Gfn, Vpn), seq: u64) -> bool {
        let forbidden = state.forbidden.is_some_and(|(s, e)| s <= gfn && gfn < e);
        (state.in_progress > 0 && forbidden) || self.sequence_at(page) != seq
    }
}

/// Restricts a copy to reading, unless the access writes: a TLB entry allows writing only once the
/// dirty bit is set in the entry behind it.
pub(super) fn for_access(cached: Cached, access: Access) -> Cached {
    match access {
        Access::Read => cached.read_only(),
        Access::Write => cached,
    }
}

/// Returns true if the huge page can be mapped as one: frame and page have the same alignment, and
/// the slot has all of it and logs nothing.
fn fits_huge(slot: &MemSlot, gfn: Gfn) -> bool {
    let first = gfn.0 & !(PMD_PAGES - 1);
    let alike = slot.gfn.0 % PMD_PAGES == slot.hva.0 % PMD_PAGES;
    let inside = slot.contains(Gfn(first)) && slot.contains(Gfn(first + PMD_PAGES - 1));
    alike && inside && !slot.flags.contains(SlotFlags::LOG_DIRTY_PAGES)
}
