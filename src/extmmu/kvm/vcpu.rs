//! Virtual processors: loads and stores of guest memory through a TLB.

use super::{
    exit::Exit,
    gfn::{Gfn, split},
    guest_entry::GuestEntry,
    memslot::{MemSlot, MemSlots},
    tlbs::{SharedTlb, TLB_ENTRIES, VcpuTlb},
    vm::Vm,
};
use crate::{
    addr::{Vpn, by_page, within_page},
    ctx::CallCx,
    error::FaultError,
    frame::{AtomicOp, FrameView, FrameViewMut, PhysMem, Word},
    mm::Mm,
    notifier::Access,
    sync::{Ordering, SpinGuard},
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
}

impl Vm {
    /// Creates a processor (`KVM_CREATE_VCPU`).
    pub fn vcpu(self: &Arc<Self>, cx: &mut CallCx<'_>) -> Vcpu {
        let _no_lock_is_held = cx;
        let tlb = VcpuTlb::new(TLB_ENTRIES);
        self.tlbs.write().push(Arc::clone(&tlb));
        Vcpu {
            vm: Arc::clone(self),
            mm: self.mm.upgrade(),
            tlb,
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
    #[inline]
    pub fn read(&self, cx: &mut CallCx<'_>, gpa: u64, out: &mut [u8]) -> Result<(), Exit> {
        let Some(place) = within_page(gpa, out.len()) else {
            return self.read_pages(cx, gpa, out);
        };
        match self.hit(place.0, |view| view.read(place.1, out)) {
            Ok(()) => Ok(()),
            Err(tlb) => self.read_missed(cx, tlb, place, out),
        }
    }
    #[cold]
    #[inline(never)]
    fn read_missed(
        &self,
        cx: &mut CallCx<'_>,
        tlb: SpinGuard<'_, VcpuTlb>,
        place: (Vpn, usize),
        out: &mut [u8],
    ) -> Result<(), Exit> {
        self.with_page_after(cx, Some(tlb), place, |view| view.read(place.1, out))
    }
    #[cold]
    #[inline(never)]
    fn read_pages(&self, cx: &mut CallCx<'_>, gpa: u64, out: &mut [u8]) -> Result<(), Exit> {
        by_page(gpa, out, |page, offset, part| {
            self.with_page(cx, (page, offset), |view| view.read(offset, part))
        })
    }
    /// Stores all of `bytes` from guest-physical address `gpa` on; the bytes of one page are stored
    /// at once.
    ///
    /// # Errors
    ///
    /// [`Exit`]; the bytes before the page that failed have been stored.
    #[inline]
    pub fn write(&self, cx: &mut CallCx<'_>, gpa: u64, bytes: &[u8]) -> Result<(), Exit> {
        let store = |mut view: FrameViewMut<'_>, at| view.write_deferring_dirty(at, bytes);
        let Some(place) = within_page(gpa, bytes.len()) else {
            return self.write_pages(cx, gpa, bytes);
        };
        match self.hit_mut(place.0, |view| store(view, place.1)) {
            Ok(()) => Ok(()),
            Err(tlb) => self.write_missed(cx, tlb, place, bytes),
        }
    }
    #[cold]
    #[inline(never)]
    fn write_missed(
        &self,
        cx: &mut CallCx<'_>,
        tlb: SpinGuard<'_, VcpuTlb>,
        place: (Vpn, usize),
        bytes: &[u8],
    ) -> Result<(), Exit> {
        self.with_page_mut_after(cx, Some(tlb), place, |mut view| {
            view.write_deferring_dirty(place.1, bytes);
        })
    }
    #[cold]
    #[inline(never)]
    fn write_pages(&self, cx: &mut CallCx<'_>, gpa: u64, bytes: &[u8]) -> Result<(), Exit> {
        by_page(gpa, bytes, |page, offset, part| {
            self.with_page_mut(cx, (page, offset), |mut view| {
                view.write_deferring_dirty(offset, part);
            })
        })
    }
    /// Does an atomic access of the aligned word at `gpa` with the given ordering at least, and
    /// returns the value before it.
    ///
    /// # Errors
    ///
    /// [`Exit`]; as a fault with [`FaultError::Misaligned`] if `gpa` is no multiple of the word's
    /// size. Nothing is stored then.
    pub fn atomic<T: Word>(
        &self,
        cx: &mut CallCx<'_>,
        gpa: u64,
        op: AtomicOp<T>,
        order: Ordering,
    ) -> Result<T, Exit> {
        if !gpa.is_multiple_of(size_of::<T>() as u64) {
            let why = FaultError::Misaligned(gpa);
            return Err(Exit::Fault { gpa, why });
        }
        let (page, offset) = place(gpa);
        match op {
            AtomicOp::Load => self.with_page(cx, (page, offset), |view| view.load(offset, order)),
            _ => self.with_page_mut(cx, (page, offset), |mut view| {
                view.atomic_deferring_dirty(offset, op, order)
            }),
        }
    }
    /// Runs `f` on the frame of guest-physical address `gpa`, for reading.
    ///
    /// While `f` runs, the TLB of this processor is locked, so the translation stays: a window over
    /// the page waits for the end of `f`. `f` must not use this processor.
    ///
    /// # Errors
    ///
    /// [`Exit`]; `f` did not run.
    ///
    /// # Examples
    ///
    /// ```
    /// use emmu::extmmu::kvm::{Gfn, MemSlot, SlotFlags, Vm, VmConfig};
    /// use emmu::{PAGE_SIZE, addr::Vpn, mm::MmapArgs};
    /// # let machine = emmu::Machine::new(Default::default());
    /// # let mut thread = machine.enter()?;
    /// # let mut cx = thread.cx();
    /// # let mm = emmu::Mm::new(&machine);
    /// # let (vm, _registration) = Vm::create(&mut cx, &mm, VmConfig::default());
    ///
    /// let at = mm.mmap(&mut cx, &MmapArgs::anonymous(PAGE_SIZE))?;
    /// let (hva, flags) = (Vpn::containing(at), SlotFlags::empty());
    /// vm.set_memory(&mut cx, MemSlot { id: 0, gfn: Gfn(16), pages: 1, hva, flags })?;
    /// let vcpu = vm.vcpu(&mut cx);
    /// vcpu.view_mut(&mut cx, 16 * PAGE_SIZE, |mut frame| frame.write(0, b"guest"))?;
    /// let host = vcpu.view(&mut cx, 16 * PAGE_SIZE, |frame| frame.as_ptr())?;
    /// assert!(host.is_some(), "the address of the guest's page, to be used under the lock");
    /// assert_eq!(mm.load(&mut cx, at)?, b'g');
    /// # mm.exit(&mut cx);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn view<V>(
        &self,
        cx: &mut CallCx<'_>,
        gpa: u64,
        f: impl FnOnce(FrameView<'_>) -> V,
    ) -> Result<V, Exit> {
        self.with_page(cx, place(gpa), f)
    }
    /// Runs `f` on the frame of guest-physical address `gpa`, for writing; otherwise like
    /// [`view`](Self::view).
    ///
    /// # Errors
    ///
    /// [`Exit`]; `f` did not run.
    pub fn view_mut<V>(
        &self,
        cx: &mut CallCx<'_>,
        gpa: u64,
        f: impl FnOnce(FrameViewMut<'_>) -> V,
    ) -> Result<V, Exit> {
        self.with_page_mut(cx, place(gpa), f)
    }
    /// Runs `f` on the frame of a page of the process, if the TLB has it: all that most accesses
    /// are, so it is apart from all else. The TLB stays locked until `f` is done, and if it lacks
    /// the page: a flush waits for the end of an instruction.
    #[inline(always)]
    fn hit<V>(
        &self,
        page: Vpn,
        f: impl FnOnce(FrameView<'_>) -> V,
    ) -> Result<V, SpinGuard<'_, VcpuTlb>> {
        let tlb = self.tlb.lock();
        let cached = tlb.process.get(0, page.0);
        let view = cached.and_then(|c| self.vm.gates.follow_nth(c, c.nth_like(page.0)));
        view.map(f).ok_or(tlb)
    }
    /// Runs `f` as [`hit`](Self::hit) does, if the TLB has the page for writing.
    #[inline(always)]
    fn hit_mut<V>(
        &self,
        page: Vpn,
        f: impl FnOnce(FrameViewMut<'_>) -> V,
    ) -> Result<V, SpinGuard<'_, VcpuTlb>> {
        let tlb = self.tlb.lock();
        let cached = tlb.process.get(0, page.0);
        let view = cached.and_then(|c| self.vm.gates.follow_nth_mut(c, c.nth_like(page.0)));
        view.map(f).ok_or(tlb)
    }
    fn with_page<V>(
        &self,
        cx: &mut CallCx<'_>,
        place: (Vpn, usize),
        f: impl FnOnce(FrameView<'_>) -> V,
    ) -> Result<V, Exit> {
        self.with_page_after(cx, None, place, f)
    }
    fn with_page_mut<V>(
        &self,
        cx: &mut CallCx<'_>,
        place: (Vpn, usize),
        f: impl FnOnce(FrameViewMut<'_>) -> V,
    ) -> Result<V, Exit> {
        self.with_page_mut_after(cx, None, place, f)
    }
    /// Runs `f` on the frame of a page of the guest: its number is that of a guest frame, with the
    /// C-bit. `missed` is the TLB, if it was found without the page of the process.
    fn with_page_after<V>(
        &self,
        cx: &mut CallCx<'_>,
        missed: Option<SpinGuard<'_, VcpuTlb>>,
        place: (Vpn, usize),
        f: impl FnOnce(FrameView<'_>) -> V,
    ) -> Result<V, Exit> {
        let (page, gfn) = (place.0, Gfn(place.0.0));
        // A guest file's page may be there.
        let mut missed = missed.filter(|_| !self.vm.has_guest_memory());
        loop {
            if let Some(tlb) = missed.take() {
                self.miss(cx, tlb, place, Access::Read)?;
            }
            let tlb = self.tlb.lock();
            let view = match tlb.process.get(0, gfn.0) {
                Some(cached) => {
                    let view = self.vm.gates.follow_nth(cached, cached.nth_like(gfn.0));
                    Some(view.expect("one of its pages"))
                }
                None => self
                    .guest_page(&tlb, page)
                    .map(|(entry, mem)| entry.view(mem)),
            };
            // The TLB stays locked until the access is done.
            if let Some(view) = view {
                return Ok(f(view));
            }
            missed = Some(tlb);
        }
    }
    /// Runs `f` as [`with_page_after`](Self::with_page_after) does, for writing.
    fn with_page_mut_after<V>(
        &self,
        cx: &mut CallCx<'_>,
        missed: Option<SpinGuard<'_, VcpuTlb>>,
        place: (Vpn, usize),
        f: impl FnOnce(FrameViewMut<'_>) -> V,
    ) -> Result<V, Exit> {
        let (page, gfn) = (place.0, Gfn(place.0.0));
        let mut missed = missed.filter(|_| !self.vm.has_guest_memory());
        loop {
            if let Some(tlb) = missed.take() {
                self.miss(cx, tlb, place, Access::Write)?;
            }
            let tlb = self.tlb.lock();
            let view = match tlb.process.get(0, gfn.0) {
                Some(cached) => {
                    let nth = cached.nth_like(gfn.0);
                    self.vm.gates.follow_nth_mut(cached, nth)
                }
                None => self
                    .guest_page(&tlb, page)
                    .map(|(entry, mem)| entry.view_mut(mem)),
            };
            if let Some(view) = view {
                return Ok(f(view));
            }
            missed = Some(tlb);
        }
    }
    /// Walks the shadow page table, and faults if the entry is missing. The slot is found while the
    /// TLB is still locked from the access that missed.
    #[cold]
    #[inline(never)]
    pub(super) fn miss(
        &self,
        cx: &mut CallCx<'_>,
        mut tlb: SpinGuard<'_, VcpuTlb>,
        (page, offset): (Vpn, usize),
        access: Access,
    ) -> Result<(), Exit> {
        let vm = &self.vm;
        if vm.has_guest_memory() {
            drop(tlb);
            return self.guest_miss(cx, (page, offset as u64), access);
        }
        let gpa = page.addr() + offset as u64;
        let slot = self.update_slots(&mut tlb).allowing(gpa, access);
        drop(tlb);
        let slot = slot?;
        match vm.walk(cx, self, &slot, (gpa, access)) {
            true => Ok(()),
            false => vm.page_fault(cx, self, slot, gpa, access),
        }
    }
    /// Returns the translation of a guest file's page in the TLB, and the memory that it leads to.
    /// Most guests have none.
    #[inline(never)]
    fn guest_page<'m>(&'m self, tlb: &VcpuTlb, page: Vpn) -> Option<(GuestEntry, &'m PhysMem)> {
        let (encrypted, gfn) = split(page);
        let entry = tlb.guest(encrypted, gfn)?;
        Some((*entry, self.vm.guest.mem()?))
    }
    pub(super) fn mm(&self) -> Result<&Arc<Mm>, Exit> {
        self.mm.as_ref().ok_or(Exit::Gone)
    }
    /// Returns the slot of a guest address, if it allows the access. Under the gate it may turn out
    /// to have been replaced.
    pub(super) fn slot_for(&self, gpa: u64, access: Access) -> Result<MemSlot, Exit> {
        self.update_slots(&mut self.tlb.lock())
            .allowing(gpa, access)
    }
    /// Returns the slots.
    pub(super) fn slots_now(&self) -> Arc<MemSlots> {
        Arc::clone(self.update_slots(&mut self.tlb.lock()))
    }
    /// Brings the copy of the slots up to date.
    #[inline]
    fn update_slots<'t>(&self, tlb: &'t mut VcpuTlb) -> &'t Arc<MemSlots> {
        if tlb.slots.generation() != self.vm.generation.load(Ordering::Acquire) {
            tlb.slots = self.vm.current();
        }
        &tlb.slots
    }
}

/// Returns the page of the guest that an address lies in, and the offset there.
pub(super) fn place(gpa: u64) -> (Vpn, usize) {
    let page = Vpn::containing(gpa);
    let offset = usize::try_from(gpa - page.addr()).expect("in a page");
    (page, offset)
}

impl std::fmt::Debug for Vcpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vcpu")
            .field("tlb", &self.tlb.lock().process.len())
            .finish_non_exhaustive()
    }
}
