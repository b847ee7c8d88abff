//! Tracking of the pages that a device has written (`IOMMU_HWPT_GET_DIRTY_BITMAP`).
//!
//! A bit that was reported stands for at least one write since the bit was last cleared; no write
//! goes unreported, but for those after the last report and before an unmapping.

use super::{
    domain::Domain, error::IoasError, ioas::Ioas, mistake::PinMistake, tracking::Tracking,
};
use crate::addr::PAGE_SIZE;
/// The fate of dirty bits that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DirtyRead {
    /// The bits are cleared, and the IOTLB is flushed: later writes set them again.
    Clear,
    /// The bits stay (`IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR`).
    Keep,
}

/// The dirty pages of a range of I/O addresses, a bit for each page of a size that the caller has
/// chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirtyBitmap {
    iova: u64,
    page_size: u64,
    bits: Vec<bool>,
}

impl DirtyBitmap {
    /// Returns the address of the first byte of each dirty page, in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = u64> {
        let dirty = self.bits.iter().enumerate().filter(|(_, dirty)| **dirty);
        dirty.map(|(nth, _)| self.iova + nth as u64 * self.page_size)
    }
    /// Returns true if no page is dirty.
    pub fn is_clean(&self) -> bool {
        !self.bits.contains(&true)
    }
    /// Returns the bits, in the order of the addresses.
    pub fn bits(&self) -> &[bool] {
        &self.bits
    }
}

impl Domain {
    /// Begins to track the pages that the device writes, all clean, or ends it
    /// (`IOMMU_HWPT_SET_DIRTY_TRACKING`).
    ///
    /// # Errors
    ///
    /// [`IoasError::CannotTrack`].
    pub fn track_dirty(&self, enable: bool) -> Result<(), IoasError> {
        if !self.config.dirty {
            return Err(IoasError::CannotTrack);
        }
        let mut state = self.state.lock();
        state.tracking = enable.then(Tracking::default);
        // Cached entries that are dirty would set no bit.
        state.iotlb.clear();
        Ok(())
    }
}

impl Ioas {
    /// Returns the pages of `[iova, iova + len)` that the device has written since their bits were
    /// last cleared.
    ///
    /// `page_size` is a power of two from 4096 on; a page is dirty if any part of it is. The device
    /// sets one bit for all of a leaf: of a 2-MiB leaf every page is dirty, or none.
    ///
    /// # Errors
    ///
    /// [`IoasError::CannotTrack`]; [`IoasError::NotTracked`], also if the domain is not attached
    /// here; [`IoasError::Unaligned`]: the range is no multiple of the page size, or not mapped
    /// without holes; [`IoasError::Overflow`].
    pub fn dirty_bitmap(
        &self,
        domain: &Domain,
        (iova, len): (u64, u64),
        page_size: u64,
        read: DirtyRead,
    ) -> Result<DirtyBitmap, IoasError> {
        if !domain.config.dirty {
            return Err(IoasError::CannotTrack);
        }
        // Pages that are mapped are pinned for an attached domain only, which bounds the range.
        if !self.has(domain) {
            return Err(IoasError::NotTracked);
        }
        let unaligned = IoasError::Unaligned { iova, len };
        let aligned = |n: u64| n.is_multiple_of(page_size);
        let known_size = page_size.is_power_of_two() && page_size >= PAGE_SIZE;
        if !known_size || !aligned(iova) || !aligned(len) {
            return Err(unaligned);
        }
        self.check_covered(iova, len).map_err(|why| match why {
            IoasError::NotMapped(_) => unaligned,
            other => other,
        })?;
        let pages = iova / PAGE_SIZE..(iova + (len - 1)) / PAGE_SIZE + 1;
        let mut state = domain.state.lock();
        let tracking = state.tracking.as_mut().ok_or(IoasError::NotTracked)?;
        let dirty: Vec<u64> = tracking.pages(pages.clone()).collect();
        if read == DirtyRead::Clear {
            tracking.clear(pages.clone());
            if domain.config.mistake != Some(PinMistake::DirtyNotFlushed) {
                state.iotlb.remove_in(0, pages.start, pages.end);
            }
        }
        drop(state);
        let of = page_size / PAGE_SIZE;
        let mut parts = vec![0; usize::try_from(len / page_size).expect("pages that are mapped")];
        for page in dirty {
            let nth = (page - pages.start) / of;
            parts[usize::try_from(nth).expect("in the range")] += 1;
        }
        let least = match domain.config.mistake {
            Some(PinMistake::DirtyRoundsInward) => of,
            _ => 1,
        };
        Ok(DirtyBitmap {
            iova,
            page_size,
            bits: parts.into_iter().map(|dirty: u64| dirty >= least).collect(),
        })
    }
}
