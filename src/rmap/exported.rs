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
    ctx::{Below, Cx, FolioCx, Outside, Sleepable, rank},
    frame::{FrameFlags, FrameLock, Lost, PhysMem},
    sync::{Condvar, Despite, Mutex, RwLock},
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
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum ExportOrder {
    /// After the mappings (V5, patch 4).
    #[default]
    AfterRmaps,
    /// Before the mappings (the README of V6 and V7).
    BeforeRmaps,
}

/// The registration of a driver that is notified by frame; it is needed to end it.
#[must_use]
pub struct ExportRegistration(Arc<Listed>);

/// A registered driver.
struct Listed {
    driver: Arc<dyn RmapNotifier>,
    /// The number of calls under way.
    calls: Mutex<usize>,
    returned: Condvar,
}

/// A call that unregistration waits for.
struct Call(Arc<Listed>);

impl Call {
    fn begin(listed: &Arc<Listed>) -> Self {
        *listed.calls.lock() += 1;
        Self(Arc::clone(listed))
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        *self.0.calls.lock() -= 1;
        self.0.returned.notify_all();
    }
}

/// The drivers of a machine that are notified by frame.
#[derive(Default)]
pub(crate) struct Exports {
    order: ExportOrder,
    drivers: RwLock<Vec<Arc<Listed>>>,
}

impl Exports {
    pub(crate) fn new(order: ExportOrder) -> Self {
        Self {
            order,
            drivers: RwLock::default(),
        }
    }
    pub(crate) fn add(&self, driver: Arc<dyn RmapNotifier>) -> ExportRegistration {
        let listed = Arc::new(Listed {
            driver,
            calls: Mutex::new(0),
            returned: Condvar::new(),
        });
        self.drivers.write().push(Arc::clone(&listed));
        ExportRegistration(listed)
    }
    /// Ends a registration, and waits for calls under way.
    ///
    /// # Panics
    ///
    /// If it is of another machine.
    pub(crate) fn remove<R: Outside>(
        &self,
        cx: &mut Cx<'_, R, Sleepable>,
        registration: ExportRegistration,
    ) {
        let _unused = cx;
        let ExportRegistration(listed) = registration;
        let mut drivers = self.drivers.write();
        let nth = drivers.iter().position(|d| Arc::ptr_eq(d, &listed));
        drivers.swap_remove(nth.expect("a registration of this machine"));
        drop(drivers);
        let mut calls = listed.calls.lock();
        while *calls > 0 {
            listed.returned.wait(&mut calls);
        }
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
        let calls: Vec<Call> = self.drivers.read().iter().map(Call::begin).collect();
        let mut despite = Despite::default();
        for call in calls {
            despite.call(|| call.0.driver.invalidate_frame(cx.reborrow(), pfn));
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
