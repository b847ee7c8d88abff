//! One registered driver: visits to it, and the end of its registration.
//!
//! Guarantee: [`DriverEntry::close`] returns when no visit is under way, and none begins after it.
//! The right to unregister the driver is given out once.

use super::{
    driver::{ExternalMmu, FirstPass, demand},
    reason::{Event, Terms},
    registration_phase::RegistrationPhase,
    subscription::Subscription,
    translation::RegId,
};
use crate::{
    addr::VpnRange,
    ctx::{Below, CallbackCx, Cx, Sleepable, rank},
    sync::{Condvar, Mutex, TakenAddress},
};
use smallvec::SmallVec;
use std::{convert::Infallible, sync::Arc};

/// A registered driver, as the chain has it.
pub(super) struct DriverEntry {
    pub(super) reg: RegId,
    pub(super) ext: Arc<dyn ExternalMmu>,
    pub(super) phase: Arc<RegistrationPhase>,
    /// The subscription of a driver of a range; `None` for a driver of the whole address space.
    pub(super) sub: Option<Arc<Subscription>>,
    /// The address of the driver, taken while it is on the chain, so that no second registration
    /// takes it.
    pub(super) address: TakenAddress,
    visits: Mutex<Visiting>,
    left: Condvar,
}

#[derive(Default)]
struct Visiting {
    /// The number of visits: windows that a subscription counts, and other callers.
    now: usize,
    /// Set when no further visit may begin.
    closed: bool,
    unregister: UnregisterState,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum UnregisterState {
    #[default]
    Due,
    Running,
    Done,
}

/// The right to call a driver; unregistration waits until every visit has ended.
///
/// Windows visit the drivers of ranges. The drivers of the whole address space are kept by the
/// window's place in the list (`epoch_list`).
pub(super) struct Visit {
    entry: Arc<DriverEntry>,
    /// Set while the subscription counts the window of this visit.
    counted: bool,
}

/// The visits of one window.
pub(super) type Visits = SmallVec<[Visit; 2]>;

impl Visit {
    /// Begins a visit; `None` once the registration ends.
    pub(super) fn begin(entry: &Arc<DriverEntry>) -> Option<Self> {
        let mut v = entry.visits.lock();
        if v.closed {
            return None;
        }
        v.now += 1;
        drop(v);
        Some(Self {
            entry: Arc::clone(entry),
            counted: false,
        })
    }
    /// Begins the visit of a window. The subscription counts the window before the driver is
    /// called.
    pub(super) fn of_window(entry: &Arc<DriverEntry>) -> Option<Self> {
        let mut visit = Self::begin(entry)?;
        if let Some(sub) = &entry.sub {
            sub.enter();
            visit.counted = true;
        }
        Some(visit)
    }
    /// Notes the end of the window: the sequence of the subscription advances.
    pub(super) fn close_window(&mut self) {
        if std::mem::take(&mut self.counted)
            && let Some(sub) = &self.entry.sub
        {
            sub.leave();
        }
    }
    pub(super) fn entry(&self) -> &DriverEntry {
        &self.entry
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.close_window();
        let mut v = self.entry.visits.lock();
        v.now -= 1;
        if v.now == 0 {
            drop(v);
            self.entry.left.notify_all();
        }
    }
}

impl DriverEntry {
    pub(super) fn new(
        reg: RegId,
        ext: Arc<dyn ExternalMmu>,
        phase: Arc<RegistrationPhase>,
        (sub, address): (Option<Arc<Subscription>>, TakenAddress),
    ) -> Self {
        phase.set_name(ext.name());
        Self {
            reg,
            ext,
            phase,
            sub,
            address,
            visits: Mutex::default(),
            left: Condvar::new(),
        }
    }
    /// Forbids permits and then passes the gate once. Afterwards no permit from before exists, and
    /// the store is empty.
    pub(super) fn exclude_all<R: Below<rank::Callback>>(&self, cx: &mut Cx<'_, R, Sleepable>) {
        self.phase.forbid_permits();
        let terms = Terms::new(VpnRange::ALL, Event::Unmap.into());
        let Ok(None::<Infallible>) = demand(&terms, self.reg, |inv| {
            let ack = self.ext.invalidate_start(cx.descend(), inv);
            Ok::<_, Infallible>(FirstPass::Done(ack))
        });
        self.ext.invalidate_end(cx.descend(), VpnRange::ALL);
    }
    /// Forbids further visits, and waits until all visits, those of windows among them, have ended.
    pub(super) fn close(&self) {
        let mut v = self.visits.lock();
        v.closed = true;
        while v.now > 0 {
            self.left.wait(&mut v);
        }
    }
    /// Begins to unregister the driver; the right is given out once. `None`: another thread had it,
    /// and has unregistered the driver when this returns.
    pub(super) fn begin_unregistering(&self) -> Option<Unregistering<'_>> {
        let mut v = self.visits.lock();
        while v.unregister == UnregisterState::Running {
            self.left.wait(&mut v);
        }
        if v.unregister == UnregisterState::Done {
            return None;
        }
        v.unregister = UnregisterState::Running;
        Some(Unregistering {
            entry: self,
            released: false,
        })
    }
}

/// The right to unregister a driver. If a panic of the driver ends it half-way, the right is due
/// again.
pub(super) struct Unregistering<'e> {
    entry: &'e DriverEntry,
    released: bool,
}

impl Unregistering<'_> {
    pub(super) fn release(mut self, cx: CallbackCx<'_>) {
        self.released = true;
        self.entry.ext.release(cx);
    }
}

impl Drop for Unregistering<'_> {
    fn drop(&mut self) {
        self.entry.visits.lock().unregister = if self.released {
            UnregisterState::Done
        } else {
            UnregisterState::Due
        };
        self.entry.left.notify_all();
    }
}
