//! The memory behind the IOTLB of a back-end (`vm_memory::GuestMemoryBackend`): frames of the
//! machine, of which the IOTLB must map the page.
//!
//! Frame n lies at n times [`STRIDE`].
#![allow(unsafe_code)]

use crate::{
    addr::{PAGE_SIZE, Pfn},
    extmmu::vm_memory::{STRIDE, Zeros},
    frame::PhysMem,
    sync::Mutex,
};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};
use vm_memory::{
    GuestAddress, GuestMemoryBackend, GuestMemoryError, GuestMemoryRegion, GuestMemoryRegionBytes,
    GuestMemoryResult, GuestUsize, MemoryRegionAddress, VolatileSlice,
};

/// Returns the address of a frame.
pub(super) fn address_of(pfn: Pfn) -> u64 {
    u64::from(pfn.number()) * STRIDE
}

/// The frames that an IOTLB maps.
#[derive(Default)]
struct Mapped {
    /// By I/O address of the page.
    frames: BTreeMap<u64, u64>,
    /// How many pages lead to a frame.
    counts: HashMap<u64, u64>,
}

impl Mapped {
    fn remove(&mut self, iova: u64) {
        let Some(frame) = self.frames.remove(&iova) else {
            return;
        };
        let count = self.counts.get_mut(&frame).expect("it was counted");
        *count -= 1;
        if *count == 0 {
            self.counts.remove(&frame);
        }
    }
}

/// Frames of a machine, as a back-end reaches them.
#[derive(Clone, Debug)]
pub struct FrameMemory {
    pub(super) region: FrameRegion,
}

/// The only region of a [`FrameMemory`].
#[derive(Clone)]
pub struct FrameRegion(Arc<Frames>);

struct Frames {
    mem: Arc<PhysMem>,
    mapped: Mutex<Mapped>,
    /// Shown in place of the zero page, which all processes have.
    zeros: Box<Zeros>,
}

impl FrameRegion {
    pub(super) fn new(mem: &Arc<PhysMem>) -> Self {
        Self(Arc::new(Frames {
            mem: Arc::clone(mem),
            mapped: Mutex::default(),
            zeros: Zeros::new(),
        }))
    }
    /// Allows accesses to the frame at an address, as the IOTLB maps a page to it.
    pub(super) fn map(&self, iova: u64, address: u64) {
        let mut mapped = self.0.mapped.lock();
        mapped.remove(iova);
        mapped.frames.insert(iova, address / STRIDE);
        *mapped.counts.entry(address / STRIDE).or_default() += 1;
    }
    /// Ends the accesses by pages of a range.
    pub(super) fn unmap(&self, iova: u64, size: u64) {
        let mut mapped = self.0.mapped.lock();
        let pages = mapped.frames.range(iova..iova.saturating_add(size));
        let pages: Vec<u64> = pages.map(|(page, _)| *page).collect();
        pages.into_iter().for_each(|page| mapped.remove(page));
    }
    fn address(&self, frame: u64) -> Option<*mut u8> {
        if !self.0.mapped.lock().counts.contains_key(&frame) {
            return None;
        }
        let pfn = Pfn(u32::try_from(frame).ok()?);
        if pfn.is_zero() {
            return Some(self.0.zeros.address(0));
        }
        Some(self.0.mem.address(pfn)?.as_ptr())
    }
}

impl GuestMemoryBackend for FrameMemory {
    type R = FrameRegion;

    fn iter(&self) -> impl Iterator<Item = &FrameRegion> {
        std::iter::once(&self.region)
    }
}

impl GuestMemoryRegion for FrameRegion {
    type B = ();

    fn len(&self) -> GuestUsize {
        1 << 63
    }
    fn start_addr(&self) -> GuestAddress {
        GuestAddress(0)
    }
    fn bitmap(&self) {}
    fn get_slice(
        &self,
        at: MemoryRegionAddress,
        count: usize,
    ) -> GuestMemoryResult<VolatileSlice<'_>> {
        let nothing = || GuestMemoryError::InvalidGuestAddress(GuestAddress(at.0));
        let offset = at.0 % STRIDE;
        if count as u64 > PAGE_SIZE.saturating_sub(offset) {
            return Err(nothing());
        }
        let page = self.address(at.0 / STRIDE).ok_or_else(nothing)?;
        let offset = usize::try_from(offset).map_err(|_| nothing())?;
        // SAFETY: the bytes are a part of a frame, or of zeros. Both keep their address as long as
        // `self` lives, which has the physical memory. This crate accesses the bytes of a frame
        // that has an address with atomics alone, and the zeros not at all.
        Ok(unsafe { VolatileSlice::new(page.wrapping_add(offset), count) })
    }
}
impl GuestMemoryRegionBytes for FrameRegion {}

impl std::fmt::Debug for FrameRegion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FrameRegion")
            .field("mapped", &self.0.mapped.lock().frames.len())
            .finish()
    }
}
