//! Devices with memory of their own: added (`memremap_pages`), emptied (`migrate_device_range`) and
//! removed.

use crate::mm::machine::{DevicePages, DeviceRegistration, HomePage, Machine};
use crate::{
    ctx::{CallCx, FolioCx},
    error::NoDeviceFrames,
    frame::{DeviceId, DeviceKind, DeviceMemory, FrameLock, PhysMem},
};
use std::sync::Arc;

impl Machine {
    /// Adds a device with memory of so many frames, of this kind (`memremap_pages`). `build` makes
    /// the driver of the memory, which alone may have pages migrate there
    /// ([`Mm::migrate_vma`](crate::Mm::migrate_vma)).
    ///
    /// The machine keeps the driver until [`remove_device`](Self::remove_device), so that every
    /// page can come home. Before `build` returns, the memory has no frame to give.
    ///
    /// # Errors
    ///
    /// [`NoDeviceFrames`]: the frame numbers that are set aside
    /// ([`MachineConfig::device_frames`](crate::MachineConfig::device_frames)) are given away.
    pub fn add_device<D: DevicePages + 'static>(
        &self,
        kind: DeviceKind,
        frames: u32,
        build: impl FnOnce(DeviceMemory) -> Arc<D>,
    ) -> Result<(Arc<D>, DeviceRegistration), NoDeviceFrames> {
        let memory = DeviceMemory::new(self.mem(), kind, frames).ok_or(NoDeviceFrames(frames))?;
        let id = memory.id();
        let driver = build(memory);
        self.devices.add(id, driver.clone());
        // Last: a page that goes there finds the driver when it comes home.
        self.mem().close_device(id, false);
        Ok((driver, DeviceRegistration { id }))
    }
    /// Brings the pages of a device home, wherever they are mapped, so that the device can use its
    /// memory otherwise. Returns the number of pages that are left: those that are locked or
    /// referenced, or that the driver or memory has no room for. A later call may bring these home.
    ///
    /// Each mapping of a page sees a window without an owner.
    ///
    /// # Panics
    ///
    /// If the token is of a thread that entered another machine.
    pub fn evict_device(&self, cx: &mut CallCx<'_>, memory: &DeviceMemory) -> u32 {
        self.check_token(cx);
        self.evict(cx, memory.id())
    }
    /// Brings every page of a device home, and forgets the device and its driver. No page goes to
    /// its memory after that.
    ///
    /// # Errors
    ///
    /// The registration, if pages are left there ([`evict_device`](Self::evict_device)), or if it
    /// is of another machine: the device stays.
    ///
    /// # Panics
    ///
    /// If the token is of a thread that entered another machine. A panic of the driver goes on; the
    /// device stays then, for good.
    pub fn remove_device(
        &self,
        cx: &mut CallCx<'_>,
        registration: DeviceRegistration,
    ) -> Result<(), DeviceRegistration> {
        self.check_token(cx);
        let id = registration.id;
        if self.devices.find(id).is_none() {
            return Err(registration);
        }
        // First: no page may go there once none is left.
        let closed = Closed::new(self.mem(), id);
        if self.evict(cx, id) > 0 {
            return Err(registration);
        }
        closed.for_good();
        drop(self.devices.remove(id));
        Ok(())
    }
    fn evict(&self, cx: &mut CallCx<'_>, device: DeviceId) -> u32 {
        let mem = self.mem();
        for pfn in mem.frames_on(device) {
            if let Some(frame) = mem.try_get(pfn)
                && let Ok(locked) = mem.try_lock(frame)
            {
                self.bring_frame_home(cx.descend(), device, &locked);
            }
        }
        mem.in_use_on(device)
    }
    /// Brings the page of a locked frame home, if nothing but its mappings refers to it.
    fn bring_frame_home(&self, cx: FolioCx<'_>, device: DeviceId, old: &FrameLock<'_>) {
        let mem = self.mem();
        let Some(Ok(new)) = mem.alloc().ok().map(|new| mem.try_lock(new)) else {
            return;
        };
        let driver = self.devices.find(device);
        self.migrate_locked(cx, old, &new, || {
            let page = HomePage::new(mem, old, &new);
            driver.is_some_and(|driver| driver.migrate_to_ram(&page).is_ok())
        });
    }
}

/// A device that gives no frame, until this is dropped.
struct Closed<'m> {
    mem: &'m PhysMem,
    id: DeviceId,
}

impl<'m> Closed<'m> {
    fn new(mem: &'m PhysMem, id: DeviceId) -> Self {
        mem.close_device(id, true);
        Self { mem, id }
    }
    fn for_good(self) {
        std::mem::forget(self);
    }
}

impl Drop for Closed<'_> {
    fn drop(&mut self) {
        self.mem.close_device(self.id, false);
    }
}
