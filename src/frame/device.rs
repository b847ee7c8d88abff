//! Memory of a device: frames that a driver brings along (`struct dev_pagemap`).
//!
//! Guarantee: a frame of a device has counts, owner, lock, generation and bytes like every other
//! frame, and goes back to its device when its last reference goes. It is on no list of reclaim
//! (docs/adr/0034-a-page-of-a-device-is-an-entry.md).

use super::{
    device_frames::{DeviceArea, DeviceFrames, DeviceId, DeviceKind},
    flags::FrameFlags,
    mem::{Frame, PhysMem},
};
use crate::addr::Pfn;
use std::{fmt, sync::Arc};

/// Memory that lies on a device.
///
/// [`Machine::add_device`](crate::Machine::add_device) makes one, for the driver. It is the
/// driver's right to have pages migrate to the device and back, and to keep translations of pages
/// that stay there: it cannot be cloned, so no other driver has it.
///
/// ```compile_fail,E0308
/// use emmu::frame::DeviceMemory;
///
/// fn two_owners(memory: &DeviceMemory) -> DeviceMemory {
///     memory.clone()
/// }
/// ```
pub struct DeviceMemory {
    mem: Arc<PhysMem>,
    area: Arc<DeviceArea>,
}

impl DeviceMemory {
    /// Gives frame numbers to a memory of so many frames. `None`: not so many are left.
    pub(crate) fn new(mem: &Arc<PhysMem>, kind: DeviceKind, frames: u32) -> Option<Self> {
        let area = mem.devices.add(kind, frames)?;
        let mem = Arc::clone(mem);
        Some(Self { mem, area })
    }
    /// Returns the identity of the memory, as a window shows its owner.
    pub fn id(&self) -> DeviceId {
        self.area.id
    }
    /// Returns the access that processors have.
    pub fn kind(&self) -> DeviceKind {
        self.area.kind
    }
    /// Returns the number of frames.
    pub fn capacity(&self) -> u32 {
        self.area.len()
    }
    /// Returns the number of frames in use.
    pub fn in_use(&self) -> u32 {
        self.area.in_use()
    }
    /// Returns true if the frame lies in this memory.
    pub fn has(&self, pfn: Pfn) -> bool {
        self.area.has(pfn)
    }
    /// Returns true if this is memory of the machine with this physical memory.
    pub(crate) fn is_of(&self, mem: &Arc<PhysMem>) -> bool {
        Arc::ptr_eq(&self.mem, mem)
    }
}

impl fmt::Debug for DeviceMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceMemory")
            .field("id", &self.id())
            .field("in_use", &self.in_use())
            .finish_non_exhaustive()
    }
}

impl Drop for DeviceMemory {
    fn drop(&mut self) {
        self.area.leave();
    }
}

impl PhysMem {
    /// Sets so many frame numbers aside for devices.
    #[must_use]
    pub(crate) fn with_devices(mut self, frames: u32) -> Self {
        let first = self.first_device();
        self.devices = DeviceFrames::new(first..first + frames);
        self.extend_to(first + frames);
        self
    }
    /// Returns true if the frame lies on a device.
    #[inline]
    pub(crate) fn is_device(&self, pfn: Pfn) -> bool {
        self.devices.has(pfn)
    }
    /// Returns true if the frame lies on a device, beyond the reach of processors.
    #[inline]
    pub(crate) fn is_private(&self, pfn: Pfn) -> bool {
        self.is_device(pfn) && self.kind_of(pfn) == Some(DeviceKind::Private)
    }
    #[cold]
    fn kind_of(&self, pfn: Pfn) -> Option<DeviceKind> {
        Some(self.devices.area_of(pfn)?.kind)
    }
    /// Returns the identity of the device memory that has the frame.
    pub(crate) fn device_of(&self, pfn: Pfn) -> Option<DeviceId> {
        Some(self.devices.area_of(pfn)?.id)
    }
    /// Allocates a frame of a device that reads as zero, with one reference. `None`: all are in
    /// use, or the device was removed.
    pub(crate) fn alloc_on(&self, device: &DeviceMemory) -> Option<Frame<'_>> {
        debug_assert!(std::ptr::eq(self, &raw const *device.mem), "its machine");
        let pfn = device.area.take()?;
        self.init_allocated(pfn, FrameFlags::empty(), None);
        Some(self.adopt(pfn))
    }
    /// Returns the frames of a device that were ever used, ascending.
    pub(crate) fn frames_on(&self, device: DeviceId) -> impl Iterator<Item = Pfn> {
        let area = self.devices.area(device);
        area.map_or(0..0, |area| area.touched()).map(Pfn)
    }
    /// Lets no frame of a device be allocated from now on, or again.
    pub(crate) fn close_device(&self, device: DeviceId, closed: bool) {
        if let Some(area) = self.devices.area(device) {
            area.close(closed);
        }
    }
    /// Returns the number of frames of a device that are in use.
    pub(crate) fn in_use_on(&self, device: DeviceId) -> u32 {
        self.devices.area(device).map_or(0, |area| area.in_use())
    }
    /// Puts a frame without references back to its device. Returns false if it is none of a
    /// device.
    #[inline]
    pub(super) fn return_to_device(&self, pfn: Pfn) -> bool {
        self.is_device(pfn) && self.put_on_device(pfn)
    }
    /// Apart, so that a frame of memory pays for one comparison.
    #[cold]
    #[inline(never)]
    fn put_on_device(&self, pfn: Pfn) -> bool {
        let area = self.devices.area_of(pfn);
        area.expect("its memory has frames in use").put(pfn);
        true
    }
}
