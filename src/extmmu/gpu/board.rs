//! The memory of a GPU, which pages of any process can migrate to.

use crate::{
    addr::Pfn,
    error::NoDeviceFrames,
    frame::{DeviceKind, DeviceMemory},
    mm::{DeviceLost, DevicePages, DeviceRegistration, HomePage, Machine},
    sync::{AtomicU64, Ordering},
};
use std::sync::Arc;

/// A board with memory.
#[derive(Debug)]
pub struct GpuBoard {
    pub(super) memory: DeviceMemory,
    home: AtomicU64,
}

impl GpuBoard {
    /// Adds a board with memory of so many frames to a machine. The machine keeps the board until
    /// [`Machine::remove_device`].
    ///
    /// # Errors
    ///
    /// [`NoDeviceFrames`].
    pub fn add(
        machine: &Machine,
        kind: DeviceKind,
        frames: u32,
    ) -> Result<(Arc<Self>, DeviceRegistration), NoDeviceFrames> {
        machine.add_device(kind, frames, |memory| {
            let home = AtomicU64::new(0);
            Arc::new(Self { memory, home })
        })
    }
    /// Returns the memory.
    pub fn memory(&self) -> &DeviceMemory {
        &self.memory
    }
    /// Returns the number of pages that were copied home.
    pub fn home(&self) -> u64 {
        self.home.load(Ordering::Relaxed)
    }
    /// Returns true if processors do not reach the frame.
    pub(super) fn has_alone(&self, pfn: Pfn) -> bool {
        self.memory.kind() == DeviceKind::Private && self.memory.has(pfn)
    }
}

impl DevicePages for GpuBoard {
    fn migrate_to_ram(&self, page: &HomePage<'_>) -> Result<(), DeviceLost> {
        self.home.fetch_add(1, Ordering::Relaxed);
        page.copy();
        Ok(())
    }
}
