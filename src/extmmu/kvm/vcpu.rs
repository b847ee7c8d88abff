//! Virtual processors: loads and stores of guest memory through a TLB.

use super::{
    exit::Exit,
    memslot::{Gfn, MemSlot, MemSlots},
    vm::{SharedTlb, TLB_ENTRIES, Vm},
};
use crate::{
    addr::{Vpn, by_page},
    ctx::CallCx,
    extmmu::tlb::{PageSize, Tlb},
    mm::Mm,
    notifier::{Access, Cached},
    sync::{Mutex, Ordering},
};
use std::sync::Arc;

/// A processor of a virtual machine.
///
/// It may move to a thread of its own. It keeps the object of the address space alive, not its
/// memory (`mmgrab`).
pub struct Vcpu {
    vm: Arc<Vm>,
    mm: Option<Arc<Mm>>,
    pub(super) tlb: SharedTlb,
    /// The slots as the processor last saw them. Those of the gate decide.
    slots: Mutex<Arc<MemSlots>>,
}

/// Enters a translation of the page of `gfn`, of either size.
pub(super) fn enter(tlb: &mut Tlb<Cached>, gfn: Gfn, cached: Cached) {
    let pages = cached.range().pages();
    let _evicted = tlb.insert(0, gfn.0, PageSize::of(pages), cached);
}

impl Vm {
    /// Creates a processor (`KVM_CREATE_VCPU`).
    pub fn vcpu(self: &Arc<Self>, cx: &mut CallCx<'_>) -> Vcpu {
        let _no_lock_is_held = cx;
        let tlb = Arc::new(Mutex::new(Tlb::new(TLB_ENTRIES)));
        self.tlbs.write().push(Arc::clone(&tlb));
        Vcpu {
            vm: Arc::clone(self),
            mm: self.mm.upgrade(),
            tlb,
            slots: Mutex::new(self.current()),
        }
    }
}

impl Vcpu {
    /// Returns the machine.
    pub fn vm(&self) -> &Arc<Vm> {
        &self.vm
    }
    /// Loads one byte of guest memory.
    ///
    /// # Errors
    ///
    /// [`Exit`].
    pub fn load(&self, cx: &mut CallCx<'_>, gpa: u64) -> Result<u8, Exit> {
        let mut byte = [0];
        self.read(cx, gpa, &mut byte)?;
        Ok(byte[0])
    }
    /// Stores one byte of guest memory.
    ///
    /// # Errors
    ///
    /// [`Exit`].
    pub fn store(&self, cx: &mut CallCx<'_>, gpa: u64, byte: u8) -> Result<(), Exit> {
        self.write(cx, gpa, &[byte])
    }
    /// Loads `out.len()` bytes from guest-physical address `gpa` on; the bytes of one page are
    /// loaded at once.
    ///
    /// # Errors
    ///
    /// [`Exit`]; the bytes before the page that failed have been loaded.
    pub fn read(&self, cx: &mut CallCx<'_>, gpa: u64, out: &mut [u8]) -> Result<(), Exit> {
        by_page(gpa, out, |page, offset, part| {
            self.read_page(cx, (page, offset), part)
        })
    }
    /// Stores all of `bytes` from guest-physical address `gpa` on; the bytes of one page are stored
    /// at once.
    ///
    /// # Errors
    ///
    /// [`Exit`]; the bytes before the page that failed have been stored.
    pub fn write(&self, cx: &mut CallCx<'_>, gpa: u64, bytes: &[u8]) -> Result<(), Exit> {
        by_page(gpa, bytes, |page, offset, part| {
            self.write_page(cx, (page, offset), part)
        })
    }
    /// `page` is a page of the guest: its number is that of a guest frame.
    #[inline]
    fn read_page(
        &self,
        cx: &mut CallCx<'_>,
        (page, offset): (Vpn, usize),
        out: &mut [u8],
    ) -> Result<(), Exit> {
        let gfn = Gfn(page.0);
        loop {
            let tlb = self.tlb.lock();
            if let Some(cached) = tlb.get(0, gfn.0) {
                // The TLB stays locked until the access is done: a flush waits for the end of an
                // instruction.
                let view = self.vm.gates.follow(cached, page_in(cached, gfn));
                view.expect("one of its pages").read(offset, out);
                return Ok(());
            }
            drop(tlb);
            self.miss(cx, page.addr() + offset as u64, Access::Read)?;
        }
    }
    #[inline]
    fn write_page(
        &self,
        cx: &mut CallCx<'_>,
        (page, offset): (Vpn, usize),
        bytes: &[u8],
    ) -> Result<(), Exit> {
        let gfn = Gfn(page.0);
        loop {
            let tlb = self.tlb.lock();
            if let Some(cached) = tlb.get(0, gfn.0)
                && let Some(mut view) = self.vm.gates.follow_mut(cached, page_in(cached, gfn))
            {
                view.write_deferring_dirty(offset, bytes);
                return Ok(());
            }
            drop(tlb);
            self.miss(cx, page.addr() + offset as u64, Access::Write)?;
        }
    }
    /// Walks the shadow page table, and faults if the entry is missing.
    #[cold]
    #[inline(never)]
    fn miss(&self, cx: &mut CallCx<'_>, gpa: u64, access: Access) -> Result<(), Exit> {
        let (vm, gfn) = (&self.vm, Gfn::containing(gpa));
        let slot = self.slot_for(gpa, access)?;
        let mut gate = vm.gates.lock(cx, slot.hva_of(gfn));
        if vm.enter_present(&mut gate, gfn, &self.tlb, access) {
            return Ok(());
        }
        drop(gate);
        vm.page_fault(cx, self, slot, gpa, access)
    }
    pub(super) fn mm(&self) -> Result<&Arc<Mm>, Exit> {
        self.mm.as_ref().ok_or(Exit::Gone)
    }
    /// Returns the slot of a guest address, if it allows the access. Under the gate it may turn out
    /// to have been replaced.
    pub(super) fn slot_for(&self, gpa: u64, access: Access) -> Result<MemSlot, Exit> {
        let mut slots = self.slots.lock();
        if slots.generation() != self.vm.generation.load(Ordering::Acquire) {
            *slots = self.vm.current();
        }
        slots.allowing(gpa, access)
    }
}

/// Returns the page of the address space behind a guest frame, by a translation of it.
#[inline]
fn page_in(cached: &Cached, gfn: Gfn) -> Vpn {
    let range = cached.range();
    range.start().plus(gfn.0 & (range.pages() - 1))
}

impl std::fmt::Debug for Vcpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vcpu")
            .field("tlb", &self.tlb.lock().len())
            .finish_non_exhaustive()
    }
}
