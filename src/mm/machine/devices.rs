//! The devices of a machine that have memory of their own, and how a page comes home from one.

use crate::{
    frame::{DeviceId, FrameLock, PhysMem},
    sync::RwLock,
};
use std::{fmt, sync::Arc};

/// The driver of a device with memory of its own (`struct dev_pagemap_ops`).
pub trait DevicePages: Send + Sync {
    /// Copies the bytes of a page from the device to memory, since a processor wants it or the
    /// device gives its memory up (`migrate_to_ram`). The default copies them as they are.
    ///
    /// No processor and no device has the page by now: the entries are marks, and the driver
    /// dropped its translations in the windows before. Both frames are locked, and the
    /// mmap lock is held shared: the driver must not call the address space.
    ///
    /// # Errors
    ///
    /// [`DeviceLost`]: the bytes cannot be had. The page stays on the device, and the access is
    /// SIGBUS.
    fn migrate_to_ram(&self, page: &HomePage<'_>) -> Result<(), DeviceLost> {
        page.copy();
        Ok(())
    }
}

/// A page on its way from a device to memory.
#[derive(Debug)]
pub struct HomePage<'p> {
    mem: &'p PhysMem,
    from: &'p FrameLock<'p>,
    to: &'p FrameLock<'p>,
}

impl<'p> HomePage<'p> {
    pub(in crate::mm) fn new(
        mem: &'p PhysMem,
        from: &'p FrameLock<'p>,
        to: &'p FrameLock<'p>,
    ) -> Self {
        Self { mem, from, to }
    }
    /// Copies the bytes.
    pub fn copy(&self) {
        self.mem.copy(self.from.pfn(), self.to.pfn());
    }
    /// Returns the frame of the device.
    pub fn from(&self) -> &FrameLock<'p> {
        self.from
    }
    /// Returns the frame of memory, which is zero.
    pub fn to(&self) -> &FrameLock<'p> {
        self.to
    }
}

/// The bytes of a page cannot be had from its device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the device has lost the page")]
pub struct DeviceLost;

/// The registration of a device's memory.
#[derive(Debug)]
#[must_use = "the machine keeps the device until `Machine::remove_device`"]
pub struct DeviceRegistration {
    pub(in crate::mm) id: DeviceId,
}

/// The drivers of device memory, by its identity.
#[derive(Default)]
pub(in crate::mm) struct Devices(RwLock<Vec<(DeviceId, Arc<dyn DevicePages>)>>);

impl Devices {
    /// Adds the driver of a memory.
    pub(in crate::mm) fn add(&self, id: DeviceId, driver: Arc<dyn DevicePages>) {
        self.0.write().push((id, driver));
    }
    /// Returns the driver of a memory; it stays as long as one of its frames is in use.
    pub(in crate::mm) fn find(&self, id: DeviceId) -> Option<Arc<dyn DevicePages>> {
        let devices = self.0.read();
        let found = devices.iter().find(|(known, _)| *known == id);
        found.map(|(_, driver)| Arc::clone(driver))
    }
    /// Forgets a driver, and returns it: the caller drops it with no lock held.
    pub(in crate::mm) fn remove(&self, id: DeviceId) -> Option<Arc<dyn DevicePages>> {
        let mut devices = self.0.write();
        let nth = devices.iter().position(|(known, _)| *known == id)?;
        Some(devices.remove(nth).1)
    }
}

impl fmt::Debug for Devices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().finish_non_exhaustive()
    }
}
