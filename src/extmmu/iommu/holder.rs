//! A holder of a lease: an iterator, or a slice.

use super::{lease::Lease, leases::Leases, stale_use::SliceUse};
use std::rc::Rc;

/// A holder of a lease. The lease ends with the last one.
#[derive(Clone)]
pub(super) struct Holder<'l> {
    leases: &'l Leases,
    /// Shared with its other holders, and with nothing else.
    lease: Rc<Lease>,
}

impl<'l> Holder<'l> {
    #[inline]
    pub(super) fn new(leases: &'l Leases, lease: Rc<Lease>) -> Self {
        Self { leases, lease }
    }
    #[inline]
    pub(super) fn lease(&self) -> &Lease {
        &self.lease
    }
    /// Drops the holder that is an iterator.
    #[inline]
    pub(super) fn end_iteration(self) {
        if Rc::strong_count(&self.lease) > 1 {
            self.leases.end_iteration(&self.lease);
        }
    }
    /// Notes a use of a slice.
    ///
    /// # Panics
    ///
    /// If the IOMMU is strict, and the slice was revoked or is not for this use.
    #[track_caller]
    #[inline]
    pub(super) fn note_use(&self, used: SliceUse) {
        self.leases.note_use(&self.lease, used);
    }
}

impl Drop for Holder<'_> {
    #[inline]
    fn drop(&mut self) {
        if Rc::strong_count(&self.lease) == 1 {
            self.leases.end(&self.lease);
        }
    }
}

impl std::fmt::Debug for Holder<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let part = self.lease.part;
        write!(f, "[{:#x}, +{:#x})", part.iova, part.len)
    }
}
