//! Conversions of guest frames: setting their memory attributes.

use super::{
    attributes::{MemoryAttributes, PageKind},
    config::GuestMemoryMistake,
    gfn::Gfn,
    guest_entries::Zap,
    guest_error::GuestMemoryError,
    memslot::MemSlot,
    slots::NewSlots,
    vm::Vm,
};
use crate::{
    addr::{PAGE_SIZE, PMD_PAGES, VpnRange},
    ctx::CallCx,
    sync::Ordering,
};
use std::sync::Arc;

/// A part of the guest frames that change: those of one slot, and the process's pages behind them.
struct Part {
    first: Gfn,
    end: Gfn,
    hvas: VpnRange,
}

impl Vm {
    /// Sets the attributes of `size` bytes of guest memory from `gpa` on
    /// (`KVM_SET_MEMORY_ATTRIBUTES`).
    ///
    /// Guarantee: when this returns, the guest has no entry of the old kind there, and gets none.
    /// The bytes are not moved: a private frame is a page of the guest file, a shared one a page of
    /// the process.
    ///
    /// # Errors
    ///
    /// [`GuestMemoryError::Attributes`] for attributes that the [type](super::VmType) of the
    /// machine does not have, and [`GuestMemoryError::Range`].
    pub fn set_memory_attributes(
        &self,
        cx: &mut CallCx<'_>,
        gpa: u64,
        size: u64,
        attributes: MemoryAttributes,
    ) -> Result<(), GuestMemoryError> {
        let supported = match self.config.vm_type.has_private_memory() {
            true => MemoryAttributes::PRIVATE,
            false => MemoryAttributes::empty(),
        };
        if !supported.contains(attributes) {
            return Err(GuestMemoryError::Attributes(attributes.bits()));
        }
        let whole = gpa.is_multiple_of(PAGE_SIZE) && size.is_multiple_of(PAGE_SIZE);
        let end = gpa.checked_add(size).filter(|_| whole && size > 0);
        let end = end.ok_or(GuestMemoryError::Range { gpa, size })?;
        let (first, end) = (Gfn::containing(gpa), Gfn::containing(end));
        self.convert(cx, PageKind::of(attributes), first, end);
        Ok(())
    }
    /// Returns true if all guest frames of `[first, end)` are private.
    pub fn is_private(&self, first: Gfn, end: Gfn) -> bool {
        self.attributes.all_are(PageKind::Private, first, end)
    }
    /// Makes guest frames of one kind, inside of a window over them (`kvm_vm_set_mem_attributes`).
    fn convert(&self, cx: &mut CallCx<'_>, kind: PageKind, first: Gfn, end: Gfn) {
        let _slots_stay = self.slots_lock.lock();
        if self.attributes.all_are(kind, first, end) {
            return;
        }
        let parts = self.parts(first, end);
        let gone = match self.guest_made(GuestMemoryMistake::WrongKindZapped) {
            true => kind,
            false => kind.other(),
        };
        self.begin_conversion(cx, &parts, gone);
        let window = self.guest.window(&[(first, end)], Zap::Kind(gone));
        if !self.guest_made(GuestMemoryMistake::AttributesAfterWindow) {
            self.attributes.set(kind, first, end);
        }
        drop(window);
        self.end_conversion(cx, &parts);
        if self.guest_made(GuestMemoryMistake::AttributesAfterWindow) {
            self.attributes.set(kind, first, end);
        }
    }
    fn parts(&self, first: Gfn, end: Gfn) -> Vec<Part> {
        let slots = self.current();
        let part = |slot: &MemSlot| {
            let from = first.max(slot.gfn);
            let to = end.min(Gfn(slot.gfn.0 + slot.pages));
            let hva = |gfn| slot.hva_of(gfn);
            (from < to).then(|| Part {
                first: from,
                end: to,
                hvas: VpnRange::new(hva(from), hva(to)).expect("not empty"),
            })
        };
        slots.iter().filter_map(part).collect()
    }
    /// Begins the window at the gates of the process's pages.
    ///
    /// It forbids the blocks of 2 MiB around the frames: a huge entry made meanwhile would have
    /// frames of both kinds (`kvm_arch_pre_set_memory_attributes`).
    fn begin_conversion(&self, cx: &mut CallCx<'_>, parts: &[Part], gone: PageKind) {
        for Part { first, end, hvas } in parts {
            self.gates.each(cx, *hvas, |_, gate| {
                let account = &mut gate.state().account;
                account.begin();
                let blocks = end.0.next_multiple_of(PMD_PAGES);
                account.forbid(Gfn(first.0 & !(PMD_PAGES - 1)), Gfn(blocks));
                if gone == PageKind::Shared {
                    let slots = Arc::clone(gate.store().slots());
                    let gone = NewSlots::unchanged(slots, *first, *end);
                    gate.rearrange(gone, |state| state.tlbs.flush());
                }
            });
        }
    }
    fn end_conversion(&self, cx: &mut CallCx<'_>, parts: &[Part]) {
        for Part { hvas, .. } in parts {
            self.gates.each(cx, *hvas, |place, gate| {
                // Release: as in `end_at`.
                self.shares[place].0.seq.fetch_add(1, Ordering::Release);
                gate.state().account.end();
            });
        }
    }
}
