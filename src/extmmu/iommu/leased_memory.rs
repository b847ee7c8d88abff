//! Leased pages as the memory behind an `IommuMemory` (`vm_memory::GuestMemoryBackend`).
//!
//! Its addresses are those of leases of the thread that asks: the page of the lease on seat n lies
//! at n times [`STRIDE`].
#![allow(unsafe_code)]

use super::{
    holder::Holder,
    iova_bitmap::{IovaBitmap, LeasedSlice},
    lease::Lease,
    leases::Leases,
};
use crate::extmmu::vm_memory::STRIDE;
use std::sync::Arc;
use vm_memory::{
    Address, GuestAddress, GuestMemoryBackend, GuestMemoryError, GuestMemoryRegion,
    GuestMemoryRegionBytes, GuestMemoryResult, GuestUsize, MemoryRegionAddress, VolatileSlice,
};

/// Returns the address of the first byte of a lease.
pub(super) fn address_of(lease: &Lease) -> GuestAddress {
    GuestAddress(lease.seat as u64 * STRIDE + lease.part.offset as u64)
}

/// The pages that an IOMMU has leased to the thread that asks. An access that passes the IOMMU by
/// finds nothing else here.
#[derive(Clone, Debug)]
pub struct LeasedMemory {
    pub(super) region: LeasedRegion,
}

/// The only region of a [`LeasedMemory`].
#[derive(Clone)]
pub struct LeasedRegion {
    pub(super) leases: Arc<Leases>,
}

impl GuestMemoryBackend for LeasedMemory {
    type R = LeasedRegion;

    fn iter(&self) -> impl Iterator<Item = &LeasedRegion> {
        std::iter::once(&self.region)
    }
}

impl GuestMemoryRegion for LeasedRegion {
    type B = IovaBitmap;

    fn len(&self) -> GuestUsize {
        1 << 63
    }
    fn start_addr(&self) -> GuestAddress {
        GuestAddress(0)
    }
    fn bitmap(&self) -> LeasedSlice<'_> {
        LeasedSlice::new(&self.leases, None, 0)
    }
    #[inline]
    fn get_slice(
        &self,
        at: MemoryRegionAddress,
        count: usize,
    ) -> GuestMemoryResult<VolatileSlice<'_, LeasedSlice<'_>>> {
        let nothing = || GuestMemoryError::InvalidGuestAddress(GuestAddress(at.raw_value()));
        let seat = usize::try_from(at.0 / STRIDE).map_err(|_| nothing())?;
        let lease = self.leases.for_slice(seat).ok_or_else(nothing)?;
        let holder = Holder::new(&self.leases, lease);
        let lease = holder.lease();
        let first = at.0.checked_sub(address_of(lease).0);
        let first = first.and_then(|first| usize::try_from(first).ok());
        let first = first.filter(|first| *first <= lease.part.len);
        let first = first.ok_or_else(nothing)?;
        if count > lease.part.len - first {
            return Err(nothing());
        }
        let address = lease.address.wrapping_add(first);
        let iova = lease.part.iova + first as u64;
        let slice = LeasedSlice::new(&self.leases, Some(holder), iova);
        // SAFETY: the bytes are a part of a frame, or of zeros of the leases. Both keep their
        // address as long as the leases live, which have the physical memory, and `self` has the
        // leases. This crate accesses the bytes of a frame that has an address with atomics alone,
        // and the zeros as well.
        Ok(unsafe { VolatileSlice::with_bitmap(address, count, slice, None) })
    }
}
impl GuestMemoryRegionBytes for LeasedRegion {}

impl std::fmt::Debug for LeasedRegion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LeasedRegion")
            .field("leases", &self.leases.len())
            .finish()
    }
}
