//! Exported frames: drivers that keep a reverse map of their own (the rmap notifier of the "EMMU notifiers V5" proposal).
//!
//! A driver that must sleep to drop a page, and knows by itself where it is used, has the frame flagged as exported. It
//! is then told by frame, not by address: with the frame locked and no spin lock held, whenever all mappings of the frame
//! go or lose the right to write. The proposal's texts disagree whether that comes before or after the mappings
//! themselves are dealt with, so the machine says which.

use crate::{
    addr::Pfn,
    ctx::{Cx, Sleepable, rank},
    frame::{FrameFlags, FrameLock, PhysMem},
    sync::RwLock,
};
use std::{fmt, sync::Arc};

/// A driver that is told by frame.
pub trait RmapNotifier: Send + Sync {
    /// Drops every use of the frame, which is locked; may sleep. The frame is exported no more when this returns.
    fn invalidate_frame(&self, cx: Cx<'_, rank::Folio, Sleepable>, pfn: Pfn);
}

/// When the drivers of exported frames are told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExportOrder {
    /// After the mappings were dealt with (V5, patch 4).
    #[default]
    AfterRmaps,
    /// Before (the README of V6 and V7).
    BeforeRmaps,
}

/// Names a registered driver, for taking it off again.
#[must_use]
pub struct ExportRegistration(Arc<dyn RmapNotifier>);

/// The drivers of a machine that are told by frame.
#[derive(Default)]
pub(crate) struct Exports {
    order: ExportOrder,
    drivers: RwLock<Vec<Arc<dyn RmapNotifier>>>,
}

impl Exports {
    pub(crate) fn new(order: ExportOrder) -> Self {
        Self {
            order,
            drivers: RwLock::default(),
        }
    }
    pub(crate) fn add(&self, driver: Arc<dyn RmapNotifier>) -> ExportRegistration {
        self.drivers.write().push(Arc::clone(&driver));
        ExportRegistration(driver)
    }
    /// Calls in flight go on: a driver's memory lives as long as they do.
    pub(crate) fn remove(&self, registration: &ExportRegistration) {
        let same = |d: &Arc<dyn RmapNotifier>| Arc::ptr_eq(d, &registration.0);
        self.drivers.write().retain(|d| !same(d));
    }
    /// Tells every driver if the frame is exported and it is their turn.
    pub(super) fn tell(
        &self,
        mem: &PhysMem,
        cx: &mut Cx<'_, rank::Folio, Sleepable>,
        pfn: Pfn,
        turn: ExportOrder,
    ) {
        if turn != self.order || !mem.flags(pfn).contains(FrameFlags::EXPORTED) {
            return;
        }
        // A copy, so that no lock is held while a driver sleeps.
        let drivers = self.drivers.read().clone();
        for driver in drivers {
            driver.invalidate_frame(cx.reborrow(), pfn);
        }
        mem.clear_flags(pfn, FrameFlags::EXPORTED);
    }
}

impl FrameLock<'_> {
    /// Flags the frame as used by a driver with a reverse map of its own. To be done before the driver enters it there
    /// (`mmu_rmap_export_page`).
    pub fn export(&self) {
        self.set_flags(FrameFlags::EXPORTED);
    }
}

impl fmt::Debug for Exports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exports")
            .field("order", &self.order)
            .field("drivers", &self.drivers.read().len())
            .finish()
    }
}

impl fmt::Debug for ExportRegistration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ExportRegistration")
    }
}
