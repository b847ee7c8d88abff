//! IOTLBs of one page each, which a thread has made and uses again: to make one takes longer than
//! to take the lease that it is for.

use super::lease::Lease;
use crate::{addr::PAGE_SIZE, extmmu::vm_memory::STRIDE, sync::thread_local};
use std::cell::RefCell;
use vm_memory::{GuestAddress, Permissions, iommu::Iotlb};

/// The number of IOTLBs that a thread keeps.
const KEPT: usize = 64;

/// An IOTLB that leads from a page of I/O addresses to a seat, whichever lease is on it.
struct PageIotlb {
    key: Key,
    iotlb: Iotlb,
}

/// The first I/O address of a page, and the seat of its lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    first: u64,
    seat: usize,
}

// The macro of loom accepts no constants.
#[allow(clippy::missing_const_for_thread_local, reason = "loom")]
mod local {
    use super::{PageIotlb, RefCell, thread_local};
    thread_local!(pub(super) static MADE: RefCell<Vec<Option<PageIotlb>>> = RefCell::default());
}

impl Key {
    /// Returns the key of a lease, unless its page leaves the I/O addresses.
    #[inline]
    pub(super) fn of(lease: &Lease) -> Option<Self> {
        let first = lease.part.iova.checked_sub(lease.part.offset as u64)?;
        first.checked_add(PAGE_SIZE)?;
        let seat = lease.seat;
        Some(Self { first, seat })
    }
    fn place(self) -> usize {
        (self.first / PAGE_SIZE) as usize % KEPT
    }
}

/// Takes an IOTLB that has the whole page, for any access: the caller has asked for the right.
#[inline]
pub(super) fn take(key: Key) -> Iotlb {
    let kept = local::MADE.try_with(|made| {
        let mut made = made.borrow_mut();
        let place = made.get_mut(key.place())?;
        place.take_if(|made| made.key == key)
    });
    let kept = kept.ok().flatten().map(|made| made.iotlb);
    kept.unwrap_or_else(|| {
        let (at, len) = (GuestAddress(key.first), PAGE_SIZE as usize);
        let to = GuestAddress(key.seat as u64 * STRIDE);
        let mut iotlb = Iotlb::new();
        let mapped = iotlb.set_mapping(at, to, len, Permissions::ReadWrite);
        mapped.expect("an IOTLB takes any page");
        iotlb
    })
}
/// Keeps an IOTLB that was taken, for the next time.
#[inline]
pub(super) fn put_back(key: Key, iotlb: Iotlb) {
    let kept = local::MADE.try_with(|made| {
        let mut made = made.borrow_mut();
        if made.is_empty() {
            made.resize_with(KEPT, || None);
        }
        made[key.place()].replace(PageIotlb { key, iotlb })
    });
    drop(kept);
}
