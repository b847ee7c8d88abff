//! Regions of guest memory that lie in one piece in the host, for rust-vmm's crates.
#![allow(unsafe_code)]

use super::HostMapping;
use std::{ptr::NonNull, sync::Arc};
use vm_memory::{
    GuestAddress, GuestMemoryError, GuestMemoryRegion, GuestMemoryRegionBytes, GuestMemoryResult,
    GuestUsize, MemoryRegionAddress, VolatileSlice,
    bitmap::{BS, Bitmap},
};

/// A region of guest memory that is memory of a process, in one piece in the host.
///
/// A [`GuestRegionCollection`](vm_memory::GuestRegionCollection) of these is a
/// `GuestMemoryBackend`, and so a `GuestMemory`. `B` notes the pages that are written, if it is not
/// `()`.
///
/// A slice of it is an address in the [mapping](HostMapping), so it has that guarantee: each access
/// goes to the page that the process has there at that moment. No slice is the memory of another
/// process, however long it is kept. Accesses must not be made where those of the mapping must not.
///
/// # Examples
///
/// ```
/// use emmu::{Machine, MachineConfig, Mm, PAGE_SIZE, mm::MmapArgs};
/// use emmu::extmmu::{HostMapping, HostMappingError, HostRegion};
/// use std::sync::Arc;
/// use vm_memory::{Bytes, GuestAddress, GuestRegionCollection};
///
/// let machine = Machine::new(MachineConfig::default());
/// let mm = Mm::new(&machine);
/// let len = 16 * PAGE_SIZE;
/// let at = machine.with_current(|cx| mm.mmap(cx, &MmapArgs::anonymous(len)))??;
/// let mapping = machine.with_current(|cx| HostMapping::new(cx, &mm, (at, len as usize)))?;
/// let mapping = match mapping {
///     Err(HostMappingError::NoUserfaultfd(_)) => return Ok(()),
///     other => Arc::new(other?),
/// };
/// let region: HostRegion = HostRegion::new(mapping, GuestAddress(0x1000_0000), ())?;
/// let memory = GuestRegionCollection::from_regions(vec![region])?;
///
/// let across = GuestAddress(0x1000_0000 + PAGE_SIZE - 2);
/// memory.write_obj(0x1122_3344_u32, across)?;
/// assert_eq!(machine.with_current(|cx| mm.load(cx, at + PAGE_SIZE))??, 0x22);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct HostRegion<B = ()> {
    /// Addresses and length of the mapping: an access looks no further.
    at: Addresses,
    guest: GuestAddress,
    bitmap: B,
    mapping: Arc<HostMapping>,
}

/// The addresses of a mapping, which it keeps as long as it lives.
#[derive(Clone, Copy, Debug)]
struct Addresses {
    first: NonNull<u8>,
    len: usize,
}

// SAFETY: an address is a number here; accesses at it are made through slices.
unsafe impl Send for Addresses {}
// SAFETY: as above.
unsafe impl Sync for Addresses {}

impl Addresses {
    /// Returns the offset and the address of a byte, from which on there are `len` bytes.
    #[inline]
    fn part(self, at: MemoryRegionAddress, len: usize) -> GuestMemoryResult<(usize, *mut u8)> {
        let offset = at.0 as usize;
        let left = self.len.checked_sub(len);
        match left {
            Some(left) if at.0 <= left as u64 => {
                Ok((offset, self.first.as_ptr().wrapping_add(offset)))
            }
            _ => Err(GuestMemoryError::InvalidBackendAddress),
        }
    }
}

impl<B> HostRegion<B> {
    /// Puts a mapping at a guest-physical address. `bitmap` has a bit for each of its pages, or is
    /// `()`.
    ///
    /// # Errors
    ///
    /// `GuestAddressOverflow`: the region leaves the 64-bit addresses of a guest.
    pub fn new(
        mapping: Arc<HostMapping>,
        guest: GuestAddress,
        bitmap: B,
    ) -> GuestMemoryResult<Self> {
        let last = guest.0.checked_add(mapping.size() as u64 - 1);
        last.ok_or(GuestMemoryError::GuestAddressOverflow)?;
        let at = Addresses {
            first: mapping.as_ptr(),
            len: mapping.size(),
        };
        Ok(Self {
            at,
            guest,
            bitmap,
            mapping,
        })
    }
    /// Returns the mapping.
    pub fn mapping(&self) -> &Arc<HostMapping> {
        &self.mapping
    }
}

impl<B: Bitmap> GuestMemoryRegion for HostRegion<B> {
    type B = B;

    #[inline]
    fn len(&self) -> GuestUsize {
        self.at.len as u64
    }
    #[inline]
    fn start_addr(&self) -> GuestAddress {
        self.guest
    }
    fn bitmap(&self) -> BS<'_, B> {
        self.bitmap.slice_at(0)
    }
    #[inline]
    fn get_host_address(&self, at: MemoryRegionAddress) -> GuestMemoryResult<*mut u8> {
        Ok(self.at.part(at, 1)?.1)
    }
    #[inline]
    fn get_slice(
        &self,
        at: MemoryRegionAddress,
        len: usize,
    ) -> GuestMemoryResult<VolatileSlice<'_, BS<'_, B>>> {
        let (offset, first) = self.at.part(at, len)?;
        let bitmap = self.bitmap.slice_at(offset);
        // SAFETY: the bytes are a part of the mapping, which lives as long as this value, longer
        // than the slice. This crate accesses the pages there at other addresses, with atomics.
        Ok(unsafe { VolatileSlice::with_bitmap(first, len, bitmap, None) })
    }
}

impl<B: Bitmap> GuestMemoryRegionBytes for HostRegion<B> {}
