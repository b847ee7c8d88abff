//! Guest files (`guest_memfd`): memory of a guest that no process sees unless it is shared.

use super::{
    config::{GuestMemoryMistake, VmType},
    guest_entries::{GuestWindow, Zap},
    guest_error::GuestMemoryError,
    guest_pages::{GuestMemfdFlags, GuestPages},
    vm::Vm,
};
use crate::{
    addr::PAGE_SIZE,
    ctx::{CallCx, FaultCx},
    error::{MmapError, ObjectError},
    file::{Cutting, FallocateMode, MAX_SIZE, MemoryObject, PageRequest},
    frame::Frame,
    rmap::Mapping,
    sync::Despite,
};
use std::{borrow::Cow, fmt, ops::Range, sync::Arc};

/// A guest file: memory of one machine, which its memory slots show to the guest
/// ([`Vm::set_guest_memory`]).
///
/// Guarantee: a page leaves the file only after the guest has lost its entry of it. Pages never
/// move, and are never swapped out. The file has its size for good, and no call reads or writes it.
///
/// A process maps it only with [`GuestMemfdFlags::MMAP`], and as shared memory; its accesses are
/// SIGBUS unless the file has [`GuestMemfdFlags::INIT_SHARED`]. The file keeps the machine, and a
/// slot does not keep the file: when the file goes, the guest loses all entries of it.
pub struct GuestMemfd {
    pub(super) vm: Arc<Vm>,
    pub(super) pages: Arc<GuestPages>,
}

impl Vm {
    /// Creates a guest file of `size` bytes (`KVM_CREATE_GUEST_MEMFD`).
    ///
    /// # Errors
    ///
    /// [`GuestMemoryError::Flags`], also for `INIT_SHARED` on a machine with private memory;
    /// [`GuestMemoryError::Size`], [`Gone`](GuestMemoryError::Gone) and
    /// [`NoMemory`](GuestMemoryError::NoMemory).
    ///
    /// # Examples
    ///
    /// ```
    /// use emmu::extmmu::kvm::{
    ///     Exit, Gfn, GuestMemfdFlags, MemSlot, MemoryAttributes, SlotFlags, Vm, VmConfig, VmType,
    /// };
    /// use emmu::{PAGE_SIZE, addr::Vpn, mm::MmapArgs};
    /// # let machine = emmu::Machine::new(Default::default());
    /// # let mut thread = machine.enter()?;
    /// # let mut cx = thread.cx();
    /// # let mm = emmu::Mm::new(&machine);
    ///
    /// let at = mm.mmap(&mut cx, &MmapArgs::anonymous(PAGE_SIZE))?;
    /// let config = VmConfig { vm_type: VmType::SwProtected, ..VmConfig::default() };
    /// let (vm, registration) = Vm::create(&mut cx, &mm, config);
    /// let memfd = vm.create_guest_memfd(PAGE_SIZE, GuestMemfdFlags::empty())?;
    /// let (hva, flags) = (Vpn::containing(at), SlotFlags::GUEST_MEMFD);
    /// let slot = MemSlot { id: 0, gfn: Gfn(0), pages: 1, hva, flags };
    /// vm.set_guest_memory(&mut cx, slot, &memfd, 0)?;
    ///
    /// let vcpu = vm.vcpu(&mut cx);
    /// vcpu.store(&mut cx, 0, 1)?;
    /// vm.set_memory_attributes(&mut cx, 0, PAGE_SIZE, MemoryAttributes::PRIVATE)?;
    /// assert_eq!(vcpu.load(&mut cx, 0), Ok(0), "a page of the file");
    /// vcpu.store(&mut cx, 0, 2)?;
    /// assert_eq!(mm.load(&mut cx, at)?, 1, "the process has its own");
    /// drop(memfd);
    /// assert!(matches!(vcpu.load(&mut cx, 0), Err(Exit::MemoryFault { .. })));
    /// mm.unregister(&mut cx, registration);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn create_guest_memfd(
        self: &Arc<Self>,
        size: u64,
        flags: GuestMemfdFlags,
    ) -> Result<Arc<GuestMemfd>, GuestMemoryError> {
        let supported = match self.config.vm_type {
            VmType::Default => GuestMemfdFlags::all(),
            VmType::SwProtected | VmType::Snp => GuestMemfdFlags::MMAP,
        };
        if !supported.contains(flags) {
            return Err(GuestMemoryError::Flags(flags.bits()));
        }
        if size == 0 || !size.is_multiple_of(PAGE_SIZE) || size > MAX_SIZE {
            return Err(GuestMemoryError::Size(size));
        }
        let mm = self.mm.upgrade().ok_or(GuestMemoryError::Gone)?;
        let pages = GuestPages::new(mm.machine().host(), size, flags)?;
        self.guest.use_memory(mm.machine().mem());
        Ok(Arc::new(GuestMemfd {
            vm: Arc::clone(self),
            pages,
        }))
    }
}

impl GuestMemfd {
    /// Returns the machine.
    pub fn vm(&self) -> &Arc<Vm> {
        &self.vm
    }
    /// Opens a window over the guest frames that show these pages.
    fn window(&self, pages: &Range<u64>, zap: Zap) -> GuestWindow<'_> {
        self.vm.guest.window(&self.pages.gfns(pages), zap)
    }
    /// Removes pages, with the mappings of processes: the window proves that the guest has no entry
    /// of them.
    fn cut(cutting: &mut Cutting<'_, '_>, pages: &Range<u64>, _: &GuestWindow<'_>) {
        cutting.remove(pages.start, pages.end);
    }
    /// Punches a hole (`kvm_gmem_punch_hole`).
    ///
    /// Linux removes the entries of one kind, private ones unless the file is `INIT_SHARED`. Only
    /// machines with two roots of page tables heed that; here it is all entries, since a slot whose
    /// file has `MMAP` has shared entries of it as well.
    fn punch(&self, cx: &mut CallCx<'_>, pages: &Range<u64>) {
        let zap = match self.vm.guest_made(GuestMemoryMistake::PunchKeepsEntries) {
            true => Zap::Nothing,
            false => Zap::All,
        };
        let mut despite = Despite::default();
        let mut cutting = self.pages.cache.cutting(cx);
        let window = self.window(pages, zap);
        despite.call(|| Self::cut(&mut cutting, pages, &window));
        drop((window, cutting));
        despite.call(|| self.pages.cache.host().settle_exports(cx));
        despite.resume();
    }
    /// Makes the pages of a range (`kvm_gmem_allocate`).
    fn allocate(&self, cx: &mut CallCx<'_>, pages: Range<u64>) -> Result<(), ObjectError> {
        for index in pages {
            self.pages.page(cx, index)?;
        }
        Ok(())
    }
}

impl MemoryObject for GuestMemfd {
    fn name(&self) -> Cow<'_, str> {
        Cow::Borrowed("anon_inode:[kvm-gmem]")
    }
    fn mapping(&self) -> &Arc<Mapping> {
        self.pages.cache.mapping()
    }
    fn size(&self) -> u64 {
        self.pages.size()
    }
    /// Returns the frame of a page for a process (`kvm_gmem_fault_user_mapping`).
    fn page(
        &self,
        mut cx: FaultCx<'_>,
        index: u64,
        _: &PageRequest,
    ) -> Result<Frame<'_>, ObjectError> {
        if index >= self.pages() {
            return Err(ObjectError::Beyond(index));
        }
        if !self.pages.has(GuestMemfdFlags::INIT_SHARED) {
            return Err(ObjectError::Private(index));
        }
        self.pages.page(&mut cx, index)
    }
    /// Returns nothing: a fault maps its own page alone.
    fn resident(&self, _: u64) -> Option<Frame<'_>> {
        None
    }
    fn in_core(&self, index: u64) -> bool {
        self.pages.cache.get(index).is_some()
    }
    /// Refuses private mappings, and all of a file without `MMAP` (`kvm_gmem_mmap`).
    fn check_mapping(&self, shared: bool) -> Result<(), MmapError> {
        if !self.pages.has(GuestMemfdFlags::MMAP) {
            return Err(MmapError::Unmappable);
        }
        match shared {
            true => Ok(()),
            false => Err(MmapError::SharedOnly),
        }
    }
    fn is_no_exec(&self) -> bool {
        true
    }
    /// Refuses: the size stays (`kvm_gmem_setattr`).
    fn truncate(&self, _: CallCx<'_>, size: u64) -> Result<(), ObjectError> {
        Err(ObjectError::Range { from: 0, len: size })
    }
    fn punch_hole(&self, cx: CallCx<'_>, from: u64, len: u64) -> Result<(), ObjectError> {
        let mode = FallocateMode::PUNCH_HOLE | FallocateMode::KEEP_SIZE;
        self.fallocate(cx, mode, from, len)
    }
    /// Makes pages, or punches a hole, of whole pages and with `KEEP_SIZE` alone
    /// (`kvm_gmem_fallocate`). A hole may lie beyond the end.
    fn fallocate(
        &self,
        mut cx: CallCx<'_>,
        mode: FallocateMode,
        from: u64,
        len: u64,
    ) -> Result<(), ObjectError> {
        let hole = FallocateMode::PUNCH_HOLE | FallocateMode::KEEP_SIZE;
        if mode != FallocateMode::KEEP_SIZE && mode != hole {
            return Err(ObjectError::Unsupported);
        }
        let end = from.saturating_add(len);
        let whole = from.is_multiple_of(PAGE_SIZE) && len.is_multiple_of(PAGE_SIZE);
        if !whole || (mode != hole && end > self.size()) {
            return Err(ObjectError::Range { from, len });
        }
        let pages = from / PAGE_SIZE..end / PAGE_SIZE;
        match mode == hole {
            true => self.punch(&mut cx, &pages),
            false => self.allocate(&mut cx, pages)?,
        }
        Ok(())
    }
    fn read_at(&self, _: CallCx<'_>, _: u64, _: &mut [u8]) -> Result<usize, ObjectError> {
        Err(ObjectError::OnlyMapped)
    }
    fn write_at(&self, _: CallCx<'_>, _: u64, _: &[u8]) -> Result<usize, ObjectError> {
        Err(ObjectError::OnlyMapped)
    }
    fn sync(&self, _: CallCx<'_>, from: u64, to: u64) -> Result<(), ObjectError> {
        let len = to.saturating_sub(from).saturating_mul(PAGE_SIZE);
        let from = from.saturating_mul(PAGE_SIZE);
        Err(ObjectError::Range { from, len })
    }
}

/// The last user of the file closes it: the guest loses its entries before the pages go
/// (`kvm_gmem_release`).
impl Drop for GuestMemfd {
    fn drop(&mut self) {
        // First: a fault that still finds the file has begun before the window, and is noticed.
        self.pages.close();
        drop(self.window(&(0..u64::MAX), Zap::All));
    }
}

impl fmt::Debug for GuestMemfd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("GuestMemfd").field(&self.pages).finish()
    }
}
