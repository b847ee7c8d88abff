//! The memory behind the IOTLB of a back-end (`vm_memory::GuestMemoryBackend`): frames of the
//! machine that the front-end shows, and no others, whatever the messages say.
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
    GuestMemoryResult, GuestUsize, MemoryRegionAddress, Permissions, VolatileSlice,
};

/// Returns the address of a frame.
pub(super) fn address_of(pfn: Pfn) -> u64 {
    u64::from(pfn.number()) * STRIDE
}

/// The frames that a front-end shows.
#[derive(Default)]
struct Shown {
    /// The address of the frame, and the rights to it, by I/O address of the page.
    frames: BTreeMap<u64, (u64, Permissions)>,
    /// How many pages lead to a frame.
    counts: HashMap<u64, u64>,
}

impl Shown {
    fn remove(&mut self, iova: u64) {
        let Some((address, _)) = self.frames.remove(&iova) else {
            return;
        };
        let frame = address / STRIDE;
        let count = self.counts.get_mut(&frame).expect("it was counted");
        *count -= 1;
        if *count == 0 {
            self.counts.remove(&frame);
        }
    }
}

/// Frames of a machine, as a back-end reaches them: those that its front-end shows.
#[derive(Clone, Debug)]
pub struct FrameMemory {
    pub(super) region: FrameRegion,
}

/// The only region of a [`FrameMemory`].
#[derive(Clone)]
pub struct FrameRegion(Arc<Frames>);

struct Frames {
    mem: Arc<PhysMem>,
    shown: Mutex<Shown>,
    /// Shown in place of the zero page, which all processes have.
    zeros: Box<Zeros>,
}

impl FrameRegion {
    pub(super) fn new(mem: &Arc<PhysMem>) -> Self {
        Self(Arc::new(Frames {
            mem: Arc::clone(mem),
            shown: Mutex::default(),
            zeros: Zeros::new(),
        }))
    }
    /// Shows the frame at an address as a page, with these rights. The front-end has the gate
    /// locked, and an entry for it.
    pub(super) fn show(&self, iova: u64, address: u64, perm: Permissions) {
        let mut shown = self.0.shown.lock();
        shown.remove(iova);
        shown.frames.insert(iova, (address, perm));
        *shown.counts.entry(address / STRIDE).or_default() += 1;
    }
    /// Returns true if the page is shown as the frame at that address, with no fewer rights.
    pub(super) fn shows(&self, iova: u64, address: u64, perm: Permissions) -> bool {
        let shown = self.0.shown.lock();
        let page = shown.frames.get(&iova);
        page.is_some_and(|(at, rights)| *at == address && rights.allow(perm))
    }
    /// Shows the pages of a range no more.
    pub(super) fn hide(&self, iova: u64, size: u64) {
        let mut shown = self.0.shown.lock();
        let pages = shown.frames.range(iova..iova.saturating_add(size));
        let pages: Vec<u64> = pages.map(|(page, _)| *page).collect();
        pages.into_iter().for_each(|page| shown.remove(page));
    }
    /// Returns the number of frames of the machine.
    pub(super) fn capacity(&self) -> u32 {
        self.0.mem.capacity()
    }
    fn address(&self, frame: u64) -> Option<*mut u8> {
        if !self.0.shown.lock().counts.contains_key(&frame) {
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
            .field("shown", &self.0.shown.lock().frames.len())
            .finish()
    }
}
