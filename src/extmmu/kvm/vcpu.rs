//! A virtual processor: loads and stores of guest memory through its TLB.

use super::{Exit, Gfn, SharedTlb, TLB_ENTRIES, Vm, fault::for_access};
use crate::{
    addr::PAGE_SIZE,
    ctx::{Cx, Sleepable, rank},
    extmmu::tlb::{IsHuge, Tlb},
    notifier::{Access, Cached, ShadowStore},
    sync::Mutex,
};
use std::sync::Arc;

type Idle<'t> = Cx<'t, rank::Idle, Sleepable>;

/// A processor of a virtual machine. It may move to a thread of its own.
pub struct Vcpu {
    vm: Arc<Vm>,
    tlb: SharedTlb,
}

/// Enters a translation of the page of `gfn`, of whatever size.
pub(super) fn enter(tlb: &mut Tlb<Cached>, gfn: Gfn, cached: Cached) {
    let pages = cached.range().pages();
    let _evicted = tlb.insert(0, gfn.0, IsHuge::of(pages), cached);
}

impl Vm {
    /// Another processor (`KVM_CREATE_VCPU`).
    pub fn vcpu(self: &Arc<Self>, cx: &mut Idle<'_>) -> Vcpu {
        let tlb = Arc::new(Mutex::new(Tlb::new(TLB_ENTRIES)));
        self.gate.lock(cx).state().tlbs.push(Arc::clone(&tlb));
        self.tlbs.write().push(Arc::clone(&tlb));
        Vcpu {
            vm: Arc::clone(self),
            tlb,
        }
    }
}

impl Vcpu {
    /// The machine.
    pub fn vm(&self) -> &Arc<Vm> {
        &self.vm
    }
    /// Loads one byte of guest memory.
    ///
    /// # Errors
    ///
    /// [`Exit`].
    pub fn load(&self, cx: &mut Idle<'_>, gpa: u64) -> Result<u8, Exit> {
        let mut byte = [0];
        self.read(cx, gpa, &mut byte)?;
        Ok(byte[0])
    }
    /// Stores one byte of guest memory.
    ///
    /// # Errors
    ///
    /// [`Exit`].
    pub fn store(&self, cx: &mut Idle<'_>, gpa: u64, byte: u8) -> Result<(), Exit> {
        self.write(cx, gpa, &[byte])
    }
    /// Loads `out.len()` bytes from guest-physical address `gpa` on; within a page at once.
    ///
    /// # Errors
    ///
    /// [`Exit`]; what lies before the page that failed has been loaded.
    pub fn read(&self, cx: &mut Idle<'_>, gpa: u64, out: &mut [u8]) -> Result<(), Exit> {
        let mut done = 0;
        while done < out.len() {
            let at = gpa + done as u64;
            let n = in_page(at).min(out.len() - done);
            self.read_page(cx, at, &mut out[done..done + n])?;
            done += n;
        }
        Ok(())
    }
    /// Stores all of `bytes` from guest-physical address `gpa` on; within a page at once.
    ///
    /// # Errors
    ///
    /// [`Exit`]; what lies before the page that failed has been stored.
    pub fn write(&self, cx: &mut Idle<'_>, gpa: u64, bytes: &[u8]) -> Result<(), Exit> {
        let mut done = 0;
        while done < bytes.len() {
            let at = gpa + done as u64;
            let n = in_page(at).min(bytes.len() - done);
            self.write_page(cx, at, &bytes[done..done + n])?;
            done += n;
        }
        Ok(())
    }
    fn read_page(&self, cx: &mut Idle<'_>, gpa: u64, out: &mut [u8]) -> Result<(), Exit> {
        loop {
            let tlb = self.tlb.lock();
            if let Some(cached) = tlb.get(0, Gfn::containing(gpa).0) {
                // The TLB stays locked, as an instruction is finished before a flush is answered.
                let at = page_in(cached, gpa);
                let view = self.vm.gate.follow(cached, at).expect("one of its pages");
                view.read(offset(gpa), out);
                return Ok(());
            }
            drop(tlb);
            self.miss(cx, gpa, Access::Read)?;
        }
    }
    fn write_page(&self, cx: &mut Idle<'_>, gpa: u64, bytes: &[u8]) -> Result<(), Exit> {
        loop {
            let tlb = self.tlb.lock();
            if let Some(cached) = tlb.get(0, Gfn::containing(gpa).0)
                && let Some(mut view) = self.vm.gate.follow_mut(cached, page_in(cached, gpa))
            {
                view.write_untold(offset(gpa), bytes);
                return Ok(());
            }
            drop(tlb);
            self.miss(cx, gpa, Access::Write)?;
        }
    }
    /// Walks the shadow page table, and has the entry made if it is not there.
    fn miss(&self, cx: &mut Idle<'_>, gpa: u64, access: Access) -> Result<(), Exit> {
        let gfn = Gfn::containing(gpa);
        let guard = self.vm.gate.lock(cx);
        let store = guard.store();
        let allows = |writable: bool| access == Access::Read || writable;
        if let Some(spte) = store.get(&gfn).filter(|e| allows(e.is_writable())) {
            let _bits_are_set_below = spte;
            self.vm.mark(store, gfn, access);
            let cached = guard.cached(&gfn).expect("just seen");
            // Still under the gate: whoever zaps the entry flushes after this.
            enter(&mut self.tlb.lock(), gfn, for_access(cached, access));
            return Ok(());
        }
        drop(guard);
        self.vm.page_fault(cx, &self.tlb, gpa, access)
    }
}

/// The page of the address space that a guest address is, by a translation of its guest frame.
fn page_in(cached: &Cached, gpa: u64) -> crate::addr::Vpn {
    let range = cached.range();
    range
        .start()
        .plus(Gfn::containing(gpa).0 & (range.pages() - 1))
}

#[allow(clippy::cast_possible_truncation)]
fn offset(gpa: u64) -> usize {
    (gpa % PAGE_SIZE) as usize
}
#[allow(clippy::cast_possible_truncation)]
fn in_page(gpa: u64) -> usize {
    (PAGE_SIZE - gpa % PAGE_SIZE) as usize
}

impl std::fmt::Debug for Vcpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vcpu")
            .field("tlb", &self.tlb.lock().len())
            .finish_non_exhaustive()
    }
}
