//! Exported frames: frames of drivers that keep a reverse map of their own (the rmap notifier of
//! the "EMMU notifiers V5" proposal).
//!
//! A driver that must sleep to drop a page, and knows by itself where the page is used, flags its
//! frame as exported. The driver is then notified by frame, not by address: with the frame locked
//! and no spin lock held, whenever all mappings of the frame go or lose the right to write.
//!
//! Guarantee: the drivers are notified before the frame is freed, by every path that takes its last
//! mapping. There are two kinds of path (docs/adr/0025-exported-frames-wait.md):
//!
//! * Reclaim, migration, writeback and the removal of a file's page look for the mappings of one
//!   frame. They have the frame locked, and notify at once. The texts of the proposal disagree on
//!   the order of notification and mappings, so the machine is configured with it
//!   ([`ExportOrder`]).
//! * `munmap`, mappings over others, `madvise`, copy-on-write, merging, collapse, `fork`,
//!   `mprotect`, `exit` and truncation drop or protect mappings by address. They meet the frame
//!   under the lock of its leaf, in a window. The frame is kept until the window has ended, and the
//!   drivers are notified before the operation returns. In a window that the user of the library
//!   opened, and where an address space is dropped without [`exit`](crate::Mm::exit), the frame is
//!   kept until the next operation of the machine that notifies.

use crate::{
    addr::Pfn,
    ctx::{Below, Cx, FolioCx, Sleepable, rank},
    frame::{FrameFlags, FrameLock, Lost, PhysMem},
    sync::{Despite, RwLock},
};
use std::{fmt, sync::Arc};

/// A driver that is notified by frame.
pub trait RmapNotifier: Send + Sync {
    /// Drops every use of the frame, which is locked; may sleep. When this returns or panics, the
    /// frame is no longer exported.
    fn invalidate_frame(&self, cx: FolioCx<'_>, pfn: Pfn);
}

/// The moment at which operations that look for the mappings of one frame notify the drivers of
/// exported frames. Operations that drop mappings by address notify after the mappings and before
/// the frame is freed, in either order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExportOrder {
    /// After the mappings (V5, patch 4).
    #[default]
    AfterRmaps,
    /// Before the mappings (the README of V6 and V7).
    BeforeRmaps,
}

/// The registration of a driver that is notified by frame; it is needed to end it.
#[must_use]
pub struct ExportRegistration(Arc<dyn RmapNotifier>);

/// The drivers of a machine that are notified by frame.
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
    /// Ends a registration. Calls in flight continue: they keep the driver's memory.
    pub(crate) fn remove(&self, registration: &ExportRegistration) {
        let same = |d: &Arc<dyn RmapNotifier>| Arc::ptr_eq(d, &registration.0);
        self.drivers.write().retain(|d| !same(d));
    }
    /// Notifies the drivers if the locked frame is exported, and `turn` is the order that the
    /// machine is configured with.
    pub(super) fn notify_in_turn(
        &self,
        mem: &PhysMem,
        cx: &mut FolioCx<'_>,
        pfn: Pfn,
        turn: ExportOrder,
    ) {
        if turn == self.order {
            self.notify(mem, cx, pfn);
        }
    }
    /// Notifies every driver, even if one before it panics, if the locked frame is exported.
    pub(crate) fn notify(&self, mem: &PhysMem, cx: &mut FolioCx<'_>, pfn: Pfn) {
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
    /// Notifies the drivers of frames that lost mappings, or the right to write, at places where no
    /// notification was possible. The frames may be freed after that.
    #[inline]
    pub(crate) fn notify_deferred<R: Below<rank::Folio>>(
        &self,
        mem: &PhysMem,
        cx: &mut Cx<'_, R, Sleepable>,
    ) {
        if mem.has_deferred() {
            self.notify_all_deferred(mem, cx);
        }
    }
    #[cold]
    fn notify_all_deferred<R: Below<rank::Folio>>(
        &self,
        mem: &PhysMem,
        cx: &mut Cx<'_, R, Sleepable>,
    ) {
        let mut despite = Despite::default();
        while let Some((frame, lost)) = mem.next_deferred() {
            let locked = mem.lock(cx, frame);
            let pfn = locked.pfn();
            // Another mapping may still have the frame, or have it again.
            if lost == Lost::Write || mem.mapcount(pfn) == 0 {
                despite.call(|| self.notify(mem, &mut cx.descend(), pfn));
            }
        }
        despite.resume();
    }
}

impl FrameLock<'_> {
    /// Flags the frame as exported. The driver does this before it enters the frame in its own
    /// reverse map (`mmu_rmap_export_page`).
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
