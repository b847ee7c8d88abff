//! The dirty bitmap of I/O addresses. A slice of it holds the lease of its page: it is the part of
//! a `VolatileSlice` that is dropped with it.

use super::{
    holder::Holder,
    leases::Leases,
    stale_use::SliceUse::{self, Part, Store},
};
use std::sync::Arc;
use vm_memory::bitmap::{Bitmap, BitmapSlice, WithBitmapSlice};

/// The dirty bitmap of an `IommuMemory` over a [`ProcessIommu`](super::ProcessIommu), by I/O
/// address ([`ProcessIommu::dirty_pages`](super::ProcessIommu::dirty_pages)).
pub struct IovaBitmap {
    pub(super) leases: Arc<Leases>,
}

/// The part of a slice that holds the lease of its page, and marks pages dirty. It stays with its
/// thread, as the slice does.
#[derive(Clone)]
pub struct LeasedSlice<'l> {
    leases: &'l Leases,
    /// `None` if this thread has no lease at the address: then the slice is one of the bitmap
    /// alone.
    holder: Option<Holder<'l>>,
    iova: u64,
}

impl<'l> LeasedSlice<'l> {
    #[inline]
    pub(super) fn new(leases: &'l Leases, holder: Option<Holder<'l>>, iova: u64) -> Self {
        Self {
            leases,
            holder,
            iova,
        }
    }
    #[track_caller]
    fn note(&self, used: SliceUse) {
        if let Some(holder) = &self.holder {
            holder.note_use(used);
        }
    }
    fn at(&self, offset: usize) -> u64 {
        self.iova.wrapping_add(offset as u64)
    }
}

impl<'l> WithBitmapSlice<'l> for IovaBitmap {
    type S = LeasedSlice<'l>;
}
impl Bitmap for IovaBitmap {
    fn mark_dirty(&self, offset: usize, len: usize) {
        self.leases.dirty.mark_dirty(offset, len);
    }
    fn dirty_at(&self, offset: usize) -> bool {
        self.leases.dirty.dirty_at(offset)
    }
    #[inline]
    fn slice_at(&self, offset: usize) -> LeasedSlice<'_> {
        let (leases, iova) = (&*self.leases, offset as u64);
        let holder = leases.at(iova).map(|lease| Holder::new(leases, lease));
        LeasedSlice::new(leases, holder, iova)
    }
}

impl WithBitmapSlice<'_> for LeasedSlice<'_> {
    type S = Self;
}
impl BitmapSlice for LeasedSlice<'_> {}
impl Bitmap for LeasedSlice<'_> {
    fn mark_dirty(&self, offset: usize, len: usize) {
        let iova = self.at(offset);
        self.leases.dirty.mark(iova, len as u64);
        self.note(Store { iova, len });
    }
    fn dirty_at(&self, offset: usize) -> bool {
        self.leases.dirty.is_marked(self.at(offset))
    }
    fn slice_at(&self, offset: usize) -> Self {
        let iova = self.at(offset);
        self.note(Part { iova });
        Self::new(self.leases, self.holder.clone(), iova)
    }
}

impl std::fmt::Debug for IovaBitmap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IovaBitmap").finish_non_exhaustive()
    }
}
impl std::fmt::Debug for LeasedSlice<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LeasedSlice")
            .field("iova", &self.iova)
            .finish_non_exhaustive()
    }
}
