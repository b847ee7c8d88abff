//! The fault path: a shadow entry is made for an access that missed (`kvm_tdp_page_fault`).
//!
//! A fault is checked twice under the gate. The permit says that no window has come between its
//! ticket and now, page by page. The machine's own account says the same by guest frames and a
//! sequence, as in Linux: it is coarser, and a model runs it alone (`models.rs`).

use super::{
    attributes::PageKind,
    config::KvmMistake,
    exit::Exit,
    gfn::Gfn,
    memslot::{MemSlot, MemSlots, SlotFlags},
    shadow::ShadowPages,
    tlbs::SharedTlb,
    vcpu::Vcpu,
    vm::{State, Vm},
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
        loop {
            // Before the look-up: a window that ends after this advances the sequence, and is
            // noticed when the entry is made.
            let seq = self.sequence_at(slot.hva_of(Gfn::containing(gpa)));
            if self.try_page(cx, cpu, &slot, (gpa, access), seq)? {
                return Ok(());
            }
            self.meter.retried();
            crate::sync::thread::yield_now();
            slot = cpu.slot_for(gpa, access)?;
        }
    }
    /// Tries once to make an entry of a page of the process, for a fault that began when the
    /// sequence was `seq`. Returns false if the fault must be tried again.
    pub(super) fn try_page(
        &self,
        cx: &mut CallCx<'_>,
        cpu: &Vcpu,
        slot: &MemSlot,
        (gpa, access): (u64, Access),
        seq: u64,
    ) -> Result<bool, Exit> {
        let mm = cpu.mm()?;
        let gfn = Gfn::containing(gpa);
        let page = slot.hva_of(gfn);
        let kept_from_writing = SlotFlags::READONLY | SlotFlags::LOG_DIRTY_PAGES;
        let ticket = self.gates.ticket(page, access).allow_huge();
        let ticket = ticket.or_writable_if(!slot.flags.intersects(kept_from_writing));
        let found = mm.resolve(cx, ticket);
        let pending = found.map_err(|why| Exit::Fault { gpa, why })?;
        if self.made(KvmMistake::NoRetry) {
            // The page may be gone by now, and nothing checks it.
            let Ok(cached) = pending.vouch() else {
                return Ok(false);
            };
            let mut guard = self.gates.lock(cx, page);
            guard.state().tlbs.enter(&cpu.tlb, gfn, cached);
            return Ok(true);
        }
        match pending.admit(cx) {
            Ok(permit) => Ok(self.establish(permit, slot, gfn, seq, &cpu.tlb, access)),
            Err(Retry::Detached) => Err(Exit::Gone),
            Err(Retry::Busy | Retry::Stale) => Ok(false),
        }
    }
    /// Walks the shadow page table: enters the entry of a guest frame in the processor's TLB, if it
    /// allows the access.
    pub(super) fn walk(
        &self,
        cx: &mut CallCx<'_>,
        cpu: &Vcpu,
        slot: &MemSlot,
        (gpa, access): (u64, Access),
    ) -> bool {
        let gfn = Gfn::containing(gpa);
        let mut gate = self.gates.lock(cx, slot.hva_of(gfn));
        self.enter_present(&mut gate, gfn, &cpu.tlb, access)
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
        if permit.range().pages() > 1 && !self.fits_huge(slot, gfn) {
            permit = permit.only_page();
        }
        if access == Access::Write && slot.logs() {
            permit.state().log.insert((slot.id, gfn.0 - slot.gfn.0));
        }
        self.meter.faulted(permit.range());
        // As the walk of a processor sets them.
        permit = permit.used_for(self.marked_as(access));
        let cached = for_access(permit.cached(), access);
        let resized = permit.guard().store().resized();
        let mut guard = match self.config.references {
            References::None => permit.establish(gfn),
            References::Held => permit.establish_held(gfn),
        };
        if guard.store().resized() != resized {
            flush_block(guard.state(), gfn);
        }
        guard.state().tlbs.enter(tlb, gfn, cached);
        true
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
            let cached = for_access(cached, access);
            gate.state().tlbs.enter(tlb, gfn, cached);
        }
        cached.is_some()
    }
    /// Sets the accessed and dirty bits of the walk.
    fn mark(&self, spte: &ShadowEntry, access: Access) {
        match self.marked_as(access) {
            Access::Write => spte.set_dirty(),
            Access::Read => spte.set_accessed(),
        }
    }
    /// Returns the access that the bits of an entry show after this one.
    fn marked_as(&self, access: Access) -> Access {
        match self.made(KvmMistake::LostDirty) {
            true => Access::Read,
            false => access,
        }
    }
    /// Returns true if a window over the frame is open or has ended since
    /// (`mmu_invalidate_retry_gfn`).
    fn must_retry(&self, state: &State, (gfn, page): (Gfn, Vpn), seq: u64) -> bool {
        state.account.forbids(gfn) || self.sequence_at(page) != seq
    }
    /// Returns true if the huge page can be mapped as one: frame and page have the same alignment,
    /// the slot has all of it and logs nothing, and no frame of it is private.
    fn fits_huge(&self, slot: &MemSlot, gfn: Gfn) -> bool {
        let first = gfn.0 & !(PMD_PAGES - 1);
        let blocks = slot.huge_blocks();
        let inside = blocks.is_some_and(|(from, to)| (from..to).contains(&gfn));
        let one_kind = !self.config.vm_type.has_private_memory() || {
            let (first, end) = (Gfn(first), Gfn(first + PMD_PAGES));
            self.attributes.all_are(PageKind::Shared, first, end)
        };
        inside && !slot.logs() && one_kind
    }
}

/// Flushes the pages of a block whose entries of another size were replaced: a TLB may have copies
/// of these, and no window finds them any more (`tdp_mmu_map_handle_target_level`).
fn flush_block(state: &mut State, gfn: Gfn) {
    let first = gfn.0 & !(PMD_PAGES - 1);
    let block = (Gfn(first), Gfn(first + PMD_PAGES));
    state.tlbs.flush_gfns(|| std::iter::once(block));
}

/// Restricts a copy to reading, unless the access writes: a TLB entry allows writing only once the
/// dirty bit is set in the entry behind it.
pub(super) fn for_access(cached: Cached, access: Access) -> Cached {
    match access {
        Access::Read => cached.read_only(),
        Access::Write => cached,
    }
}
