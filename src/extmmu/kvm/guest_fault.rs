//! The fault path of machines with guest files or private memory (`kvm_mmu_faultin_pfn`).
//!
//! The stamp comes first, then the kind of the guest frame. A kind that is not that of the access,
//! or a private frame without a page, leaves the guest. A page of the guest file is entered under
//! the lock of such entries if the stamp still holds; a page of the process goes the way of all
//! others, and the stamp is checked there as well.

use super::{
    attributes::{PageKind, Stamp},
    config::{GuestMemoryMistake, VmType},
    exit::Exit,
    gfn::{Gfn, split},
    guest_entries::NotAdmitted,
    guest_entry::GuestEntry,
    guest_pages::SlotMemory,
    memslot::{MemSlot, MemSlots, SlotFlags},
    vcpu::Vcpu,
    vm::Vm,
};
use crate::{
    addr::{PAGE_SIZE, Vpn},
    ctx::CallCx,
    error::{Errno, ObjectError},
    notifier::Access,
};

/// An access that missed the TLB.
struct Miss {
    gfn: Gfn,
    encrypted: bool,
    /// The kind that the guest asks for, if it says.
    asked: Option<PageKind>,
    gpa: u64,
    access: Access,
}

impl Miss {
    fn new(vm_type: VmType, (page, offset): (Vpn, u64), access: Access) -> Self {
        let (encrypted, gfn) = match vm_type {
            VmType::Snp => split(page),
            VmType::Default | VmType::SwProtected => (false, Gfn(page.0)),
        };
        let asked = match (vm_type, encrypted) {
            (VmType::Snp, true) => Some(PageKind::Private),
            (VmType::Snp, false) => Some(PageKind::Shared),
            _ => None,
        };
        Self {
            gfn,
            encrypted,
            asked,
            gpa: gfn.0 * PAGE_SIZE + offset,
            access,
        }
    }
    /// The exit for an access of this kind (`kvm_prepare_memory_fault_exit`).
    fn exit(&self, kind: PageKind, errno: Errno) -> Exit {
        Exit::MemoryFault {
            gpa: self.gfn.0 * PAGE_SIZE,
            size: PAGE_SIZE,
            kind,
            errno,
        }
    }
}

impl Vm {
    /// Returns true if a fault must ask for attributes and guest files.
    #[inline]
    pub(super) fn has_guest_memory(&self) -> bool {
        self.config.vm_type.has_private_memory() || self.guest.mem().is_some()
    }
    fn stamp(&self, slots: &MemSlots, page: Option<Vpn>) -> Stamp {
        Stamp {
            process: page.map_or(0, |page| self.sequence_at(page)),
            guest: self.guest.sequence(),
            slots: slots.generation(),
        }
    }
    /// Enters a page of the guest file. Returns false if the fault must be tried again.
    fn fault_in_guest_file(
        &self,
        cx: &mut CallCx<'_>,
        cpu: &Vcpu,
        miss: &Miss,
        (stamp, kind): (&Stamp, PageKind),
        (slot, memory): (&MemSlot, &SlotMemory),
    ) -> Result<bool, Exit> {
        let pages = memory.pages();
        let pages = pages.ok_or_else(|| miss.exit(kind, Errno::EFAULT))?;
        let index = memory.index(miss.gfn.0 - slot.gfn.0);
        let found = pages.page(cx, index);
        let frame = found.map_err(|why: ObjectError| miss.exit(kind, why.errno()))?;
        let entry = GuestEntry {
            gfn: miss.gfn,
            pfn: frame.pfn(),
            generation: pages.cache.host().mem().generation(frame.pfn()),
            kind,
        };
        let admitted = match self.guest_made(GuestMemoryMistake::UncheckedGuestFault) {
            true => Ok(self.guest.admit_unchecked()),
            false => self.guest.admit(stamp, miss.gfn),
        };
        match admitted {
            Ok(admitted) => admitted.establish(entry, &cpu.tlb, miss.encrypted),
            Err(NotAdmitted::Retry) => return Ok(false),
            Err(NotAdmitted::Gone) => return Err(Exit::Gone),
        }
        Ok(true)
    }
}

impl Vcpu {
    /// Makes the entry for an access that missed, and enters it in the TLB.
    #[cold]
    pub(super) fn guest_miss(
        &self,
        cx: &mut CallCx<'_>,
        at: (Vpn, u64),
        access: Access,
    ) -> Result<(), Exit> {
        let miss = Miss::new(self.vm().config.vm_type, at, access);
        while !self.try_guest_miss(cx, &miss)? {
            self.vm().meter.retried();
            crate::sync::thread::yield_now();
        }
        Ok(())
    }
    /// Returns false if the fault must be tried again.
    fn try_guest_miss(&self, cx: &mut CallCx<'_>, miss: &Miss) -> Result<bool, Exit> {
        let (vm, gfn) = (self.vm(), miss.gfn);
        let slots = self.slots_now();
        let slot = slots.find(gfn);
        if vm.guest.walk((gfn, miss.asked), &self.tlb, miss.encrypted) {
            return Ok(true);
        }
        let stamp = vm.stamp(&slots, slot.map(|slot| slot.hva_of(gfn)));
        let kind = vm.attributes.kind(gfn, &stamp);
        if let Some(asked) = miss.asked.filter(|asked| *asked != kind) {
            return Err(miss.exit(asked, Errno::EFAULT));
        }
        let Some(slot) = slot else {
            return Err(match kind {
                PageKind::Private => miss.exit(kind, Errno::EFAULT),
                PageKind::Shared => Exit::Mmio(miss.gpa),
            });
        };
        let from_file = kind == PageKind::Private || slot.flags.contains(SlotFlags::GMEM_ONLY);
        match slots.memory_of(slot).filter(|_| from_file) {
            Some(memory) => vm.fault_in_guest_file(cx, self, miss, (&stamp, kind), (slot, memory)),
            None if kind == PageKind::Private => Err(miss.exit(kind, Errno::EFAULT)),
            None => {
                let slot = slots.allowing(miss.gpa, miss.access)?;
                let page = (miss.gpa, miss.access);
                Ok(vm.walk(cx, self, &slot, page)
                    || vm.try_page(cx, self, &slot, page, stamp.process)?)
            }
        }
    }
}
