//! Exported frames: drivers that keep a reverse map of their own (the rmap notifier of the "EMMU notifiers V5" proposal).
//!
//! A driver that must sleep to drop a page, and knows by itself where it is used, has the frame flagged as exported. It
//! is then told by frame, not by address: with the frame locked and no spin lock held, whenever all mappings of the frame
//! go or lose the right to write.
//!
//! Guarantee: whatever takes the last mapping, the frame is freed only after the drivers were told. Two ways lead there. Who
//! looks for the mappings of one frame (reclaim, migration, writeback, the removal of a file's page) has it locked and tells
//! at once; the proposal's texts disagree whether that comes before or after the mappings themselves are dealt with, so the
//! machine says which. Who drops or protects mappings by address (`munmap`, what is mapped over, `madvise`, copy-on-write,
//! merging, collapse, `fork`, `mprotect`, `exit`, truncation) meets the frame under a page-table lock, in a window: it is kept
//! until that has ended, and told before the operation is over. In a window that a user opened himself, and where an address
//! space is dropped without [`exit`](crate::Mm::exit), it is kept until the next operation of the machine that tells.

use crate::ctx::FolioCx;
use crate::{
    addr::Pfn,
    ctx::{Below, Cx, Sleepable, rank},
    frame::{FrameFlags, FrameLock, Lost, PhysMem},
    sync::{Despite, RwLock},
};
use std::{fmt, sync::Arc};

/// A driver that is told by frame.
pub trait RmapNotifier: Send + Sync {
    /// Drops every use of the frame, which is locked; may sleep. The frame is exported no more when this returns, or panics.
    fn invalidate_frame(&self, cx: FolioCx<'_>, pfn: Pfn);
}

/// When the drivers of exported frames are told by who looks for the mappings of one. Where mappings are dropped by address
/// it is between the mappings and the frame, in either order.
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
    /// Tells every driver if the locked frame is exported and it is their turn.
    pub(super) fn tell(&self, mem: &PhysMem, cx: &mut FolioCx<'_>, pfn: Pfn, turn: ExportOrder) {
        if turn == self.order {
            self.tell_now(mem, cx, pfn);
        }
    }
    /// The same whoever's turn it is. Each driver is told, also if one before it panics.
    pub(crate) fn tell_now(&self, mem: &PhysMem, cx: &mut FolioCx<'_>, pfn: Pfn) {
        if !mem.flags(pfn).contains(FrameFlags::EXPORTED) {
            return;
        }
        // A copy, so that no lock is held while a driver sleeps.
        let drivers = self.drivers.read().clone();
        let mut despite = Despite::default();
        for driver in drivers {
            despite.call(|| driver.invalidate_frame(cx.reborrow(), pfn));
        }
        mem.unexport(pfn);
        despite.resume();
    }
    /// Tells of those frames that lost mappings, or the right to write, where nobody could be told; they may go after that.
    #[inline]
    pub(crate) fn settle<R: Below<rank::Folio>>(
        &self,
        mem: &PhysMem,
        cx: &mut Cx<'_, R, Sleepable>,
    ) {
        if mem.has_deferred() {
            self.settle_all(mem, cx);
        }
    }
    #[cold]
    fn settle_all<R: Below<rank::Folio>>(&self, mem: &PhysMem, cx: &mut Cx<'_, R, Sleepable>) {
        let mut despite = Despite::default();
        while let Some((frame, lost)) = mem.next_deferred() {
            let locked = mem.lock(cx, frame);
            let pfn = locked.pfn();
            // Another mapping may have it still, or again.
            if lost == Lost::Write || mem.mapcount(pfn) == 0 {
                despite.call(|| self.tell_now(mem, &mut cx.descend(), pfn));
            }
        }
        despite.resume();
    }
}

impl FrameLock<'_> {
    /// Flags the frame as used by a driver with a reverse map of its own. To be done before the driver enters it there
    /// (`mmu_rmap_export_page`).
    pub fn export(&self) {
        self.set_exported();
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
