//! The memory of a process as guest memory of rust-vmm's crates (`vm_memory::GuestMemory`, feature
//! `vm-memory`).
#![allow(unsafe_code)]

use crate::{
    addr::{PAGE_SIZE, Pfn, TASK_SIZE, Vpn},
    ctx::CallCx,
    mm::{HeldPages, Mm, PinKind, VmFlags},
    notifier::Access,
    sync::{Mutex, OnceLock},
};
use std::{
    collections::HashMap,
    io,
    iter::FusedIterator,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering::Relaxed},
    },
};
use vm_memory::{
    GuestAddress, GuestAddressSpace, GuestMemory, GuestMemoryError, GuestMemoryRegion,
    GuestMemoryRegionBytes, GuestMemoryResult, GuestRegionCollection, GuestUsize, Permissions,
    VolatileSlice, bitmap::BS, guest_memory::GuestMemorySliceIterator,
};

/// A range of guest-physical addresses and the memory of the process that is behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestRegion {
    /// The first guest-physical address.
    pub guest: GuestAddress,
    /// The length in bytes.
    pub len: u64,
    /// The address of the first byte in the process.
    pub process: u64,
}

/// Returns the address in the process of a guest address, and the number of bytes from there to the
/// end of its region. Of regions that overlap, the first one counts.
pub(super) fn locate(regions: &[GuestRegion], at: GuestAddress) -> Option<(u64, u64)> {
    regions.iter().find_map(|region| {
        let offset = at.0.checked_sub(region.guest.0)?;
        let left = region.len.checked_sub(offset).filter(|&left| left > 0)?;
        Some((region.process.checked_add(offset)?, left))
    })
}

/// The guest memory of a process, as the device models of rust-vmm use it.
///
/// Each call of [`memory`](GuestAddressSpace::memory) makes a [`ProcessMemory`] that holds the
/// pages of the slices which it gives out, for as long as it lives.
///
/// Calls take a token by [`Machine::with_current`](crate::Machine::with_current): they fail where
/// the thread has one that it did not lend ([`CallCx::lend`]).
///
/// # Examples
///
/// ```
/// use emmu::{Machine, MachineConfig, Mm, PAGE_SIZE, mm::MmapArgs};
/// use emmu::extmmu::vm_memory::{GuestRegion, ProcessAddressSpace};
/// use vm_memory::{Bytes, GuestAddress, GuestAddressSpace};
///
/// let machine = Machine::new(MachineConfig::default());
/// let mm = Mm::new(&machine);
/// let len = 16 * PAGE_SIZE;
/// let process = machine.with_current(|cx| mm.mmap(cx, &MmapArgs::anonymous(len)))??;
/// let guest = GuestAddress(0x1000_0000);
/// let space = ProcessAddressSpace::new(&mm, &[GuestRegion { guest, len, process }]);
///
/// let at = GuestAddress(guest.0 + PAGE_SIZE - 2); // across two pages
/// space.memory().write_obj(0x1122_3344_u32, at)?;
/// assert_eq!(space.memory().read_obj::<u32>(at)?, 0x1122_3344);
/// assert_eq!(machine.with_current(|cx| mm.load(cx, process + PAGE_SIZE))??, 0x22);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct ProcessAddressSpace {
    mm: Arc<Mm>,
    regions: Arc<[GuestRegion]>,
}

/// Guest memory of a process for a time.
///
/// Guarantee: a slice that was given out is never the memory of another process, also after its
/// page was moved, copied, merged or unmapped: its frame is pinned until this value is dropped
/// ([`Mm::pin`]). A slice of private memory is the guest's own memory as long as the guest maps it
/// there. But a page that was never written takes no frame for a slice for reading: that shows
/// zeros of this value's own.
///
/// `VolatileSlice` has no type for reading alone. A store to a slice that was asked for reading
/// reaches no other process by private memory. It does by the page of a file, and may be lost
/// there.
pub struct ProcessMemory {
    space: ProcessAddressSpace,
    /// The pages that were given out, by frame and by the right to write.
    held: Mutex<HashMap<(Pfn, bool), HeldPages>>,
    /// Shown in place of the zero page, which all processes have.
    zeros: OnceLock<Box<Zeros>>,
}

/// The distance of two pages in memory behind an IOTLB, by the addresses that this has. The gap
/// after each page keeps the IOTLB of `vm_memory` from joining pages that lie apart in the host.
pub(super) const STRIDE: u64 = 2 * PAGE_SIZE;

/// A page of zeros.
#[repr(align(4096))]
pub(super) struct Zeros([AtomicU8; PAGE_SIZE as usize]);

impl Zeros {
    pub(super) fn new() -> Box<Self> {
        Box::new(Self([const { AtomicU8::new(0) }; PAGE_SIZE as usize]))
    }
    /// Returns the address of the byte at an offset within the page.
    pub(super) fn address(&self, offset: u64) -> *mut u8 {
        let offset = usize::try_from(offset).expect("within a page");
        self.0.as_ptr().cast_mut().cast::<u8>().wrapping_add(offset)
    }
    /// Makes it a page of zeros again.
    pub(super) fn clear(&self) {
        for byte in &self.0 {
            byte.store(0, Relaxed);
        }
    }
}

impl ProcessAddressSpace {
    /// Makes guest memory of parts of a process. Of regions that overlap, the first one counts.
    pub fn new(mm: &Arc<Mm>, regions: &[GuestRegion]) -> Self {
        Self {
            mm: Arc::clone(mm),
            regions: regions.into(),
        }
    }
    /// Returns true if the process allows the access to all of the bytes.
    fn allows(&self, cx: &mut CallCx<'_>, (at, len): (u64, u64), needs: VmFlags) -> bool {
        let Some(end) = at.checked_add(len).filter(|&end| end <= TASK_SIZE) else {
            return false;
        };
        let guard = self.mm.lock_shared(cx);
        let mut from = Vpn::containing(at);
        while from.addr() < end {
            match guard.vma_at(from) {
                Some(vma) if vma.flags.contains(needs) => from = vma.range.end(),
                _ => return false,
            }
        }
        true
    }
}

impl GuestAddressSpace for ProcessAddressSpace {
    type M = ProcessMemory;
    type T = Arc<ProcessMemory>;

    fn memory(&self) -> Self::T {
        Arc::new(ProcessMemory {
            space: self.clone(),
            held: Mutex::default(),
            zeros: OnceLock::new(),
        })
    }
}

impl ProcessMemory {
    /// Holds the page of a part of the memory, and returns the address of the part.
    fn hold(&self, (at, len): (u64, usize), access: Access) -> io::Result<*mut u8> {
        let mm = &self.space.mm;
        let held = mm
            .machine()
            .with_current(|cx| mm.pin(cx, at, len, access, PinKind::Short));
        let held = held.map_err(io::Error::other)?;
        let mut held = held.map_err(|why| why.errno())?;
        if held.pfns()[0].is_zero() {
            return Ok(self.zeros.get_or_init(Zeros::new).address(at % PAGE_SIZE));
        }
        let parts = held.addresses();
        let first = parts.and_then(|parts| parts.first().copied());
        let (address, _len) = first.ok_or(io::ErrorKind::Unsupported)?;
        let key = (held.pfns()[0], access == Access::Write);
        // A page that is held already is not held again; dropped without the lock.
        let again = self.held.lock().insert(key, held);
        drop(again);
        Ok(address.as_ptr())
    }
}

pub(super) fn access_of(permissions: Permissions) -> Option<Access> {
    match permissions {
        Permissions::No => None,
        Permissions::Read => Some(Access::Read),
        Permissions::Write | Permissions::ReadWrite => Some(Access::Write),
    }
}

impl GuestMemory for ProcessMemory {
    type PhysicalMemory = GuestRegionCollection<NoRegion>;
    type Bitmap = ();

    fn check_range(&self, addr: GuestAddress, count: usize, access: Permissions) -> bool {
        let needs = match access_of(access) {
            None => VmFlags::empty(),
            Some(Access::Read) => VmFlags::READ,
            Some(Access::Write) => VmFlags::READ | VmFlags::WRITE,
        };
        let (mut at, mut left) = (addr, count as u64);
        let mut all = |cx: &mut CallCx<'_>| {
            while left > 0 {
                let Some((from, here)) = locate(&self.space.regions, at) else {
                    return false;
                };
                let len = here.min(left);
                if !self.space.allows(cx, (from, len), needs) {
                    return false;
                }
                (at, left) = (GuestAddress(at.0.wrapping_add(len)), left - len);
            }
            true
        };
        let machine = self.space.mm.machine();
        machine.with_current(|cx| all(cx)).unwrap_or(false)
    }

    fn get_slices<'a>(
        &'a self,
        addr: GuestAddress,
        count: usize,
        access: Permissions,
    ) -> GuestMemoryResult<impl GuestMemorySliceIterator<'a, BS<'a, ()>>> {
        let access = access_of(access).ok_or(GuestMemoryError::InvalidGuestAddress(addr))?;
        Ok(Slices {
            memory: self,
            at: Some(addr),
            left: count,
            access,
        })
    }
}

/// Slices of guest memory, one for the part in each page.
struct Slices<'a> {
    memory: &'a ProcessMemory,
    /// The next address; `None` after the last one of all.
    at: Option<GuestAddress>,
    left: usize,
    access: Access,
}

impl<'a> Slices<'a> {
    fn part(&mut self) -> GuestMemoryResult<VolatileSlice<'a>> {
        let at = self.at.ok_or(GuestMemoryError::GuestAddressOverflow)?;
        let found = locate(&self.memory.space.regions, at);
        let (from, here) = found.ok_or(GuestMemoryError::InvalidGuestAddress(at))?;
        let in_page = PAGE_SIZE - from % PAGE_SIZE;
        let len = usize::try_from(in_page.min(here)).map_or(self.left, |len| len.min(self.left));
        let held = self.memory.hold((from, len), self.access);
        let address = held.map_err(GuestMemoryError::IOError)?;
        self.at = at.0.checked_add(len as u64).map(GuestAddress);
        self.left -= len;
        // SAFETY: the bytes are a part of a page that `memory` holds, or of its zeros, as long as
        // it lives, which is longer than the slice. The bytes of a frame that has an address are
        // accessed by this crate with atomics alone, and the zeros are not accessed.
        Ok(unsafe { VolatileSlice::new(address, len) })
    }
}

impl<'a> Iterator for Slices<'a> {
    type Item = GuestMemoryResult<VolatileSlice<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        Some(self.part().inspect_err(|_| self.left = 0))
    }
}
impl FusedIterator for Slices<'_> {}
impl<'a> GuestMemorySliceIterator<'a, ()> for Slices<'a> {}

/// A region of memory that lies in one piece in the host, which the memory of a process has none
/// of.
#[derive(Clone, Copy, Debug)]
pub enum NoRegion {}

impl GuestMemoryRegion for NoRegion {
    type B = ();
    fn len(&self) -> GuestUsize {
        match *self {}
    }
    fn start_addr(&self) -> GuestAddress {
        match *self {}
    }
    fn bitmap(&self) -> BS<'_, ()> {
        match *self {}
    }
}
impl GuestMemoryRegionBytes for NoRegion {}

impl std::fmt::Debug for ProcessMemory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProcessMemory")
            .field("space", &self.space)
            .field("held", &self.held.lock().len())
            .finish()
    }
}
