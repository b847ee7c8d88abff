//! One lease: the right of a thread to access a part of a page by its host address, until a window
//! revokes it.

use super::slots::SlotId;
use crate::{addr::Vpn, notifier::Access};
use std::cell::Cell;

/// The part of a transfer that lies in one page.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    pub(super) iova: u64,
    pub(super) page: Vpn,
    pub(super) offset: usize,
    pub(super) len: usize,
}

/// A lease. The iterator that it was given to and its slices share it, and stay with their thread.
#[derive(Debug)]
pub(super) struct Lease {
    /// The place among the leases of its thread.
    pub(super) seat: usize,
    /// Grows from lease to lease of a thread.
    pub(super) number: u64,
    /// The number of the IOMMU.
    pub(super) of: u64,
    pub(super) slot: SlotId,
    pub(super) part: Part,
    pub(super) access: Access,
    /// The host address of the first byte, which stays the frame's as long as the machine lives.
    pub(super) address: *mut u8,
    /// Set while windows wait for it: the slot counts it so.
    pub(super) awaited: Cell<bool>,
    /// Set while the iterator lives that gives out the slices.
    pub(super) iterated: Cell<bool>,
}

impl Lease {
    pub(super) fn has(&self, iova: u64) -> bool {
        let offset = iova.checked_sub(self.part.iova);
        offset.is_some_and(|offset| offset < self.part.len as u64)
    }
}
