//! One registered driver: who may call it, and how its registration ends.

use super::{
    driver::{Event, ExternalMmu, FirstPass, demand},
    registration_phase::RegistrationPhase,
    subscription::Subscription,
    translation::RegId,
};
use crate::ctx::CallbackCx;

use crate::{
    addr::VpnRange,
    ctx::{Below, Cx, Sleepable, rank},
    sync::{Condvar, Mutex, TakenAddress},
};
use smallvec::SmallVec;
use std::{convert::Infallible, sync::Arc};

/// One registered driver.
pub(super) struct DriverEntry {
    pub(super) reg: RegId,
    pub(super) ext: Arc<dyn ExternalMmu>,
    pub(super) phase: Arc<RegistrationPhase>,
    /// The part of the address space that it is about; `None`: all of it.
    pub(super) sub: Option<Arc<Subscription>>,
    /// While it is on the chain, it can be put on no other.
    pub(super) address: TakenAddress,
    visits: Mutex<Visiting>,
    left: Condvar,
}

#[derive(Default)]
struct Visiting {
    /// Windows that a subscription counts, and other callers.
    now: usize,
    /// Nobody may come any more.
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

/// The right to call a driver; unregistration waits until every visit has ended. Windows have it of those who subscribed;
/// the others they keep by their place on the chain.
pub(super) struct Visit {
    entry: Arc<DriverEntry>,
    /// A window over its subscription is counted there.
    counted: bool,
}

/// Several of them.
pub(super) type Visits = SmallVec<[Visit; 2]>;

impl Visit {
    /// `None` once the driver's registration ends.
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
    /// The visit of a window, which the subscription counts as open from before the driver is called.
    pub(super) fn of_window(entry: &Arc<DriverEntry>) -> Option<Self> {
        let mut visit = Self::begin(entry)?;
        if let Some(sub) = &entry.sub {
            sub.enter();
            visit.counted = true;
        }
        Some(visit)
    }
    /// The window has ended: the subscription's sequence goes on.
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
    /// Forbids permits, then passes the gate once: permits given before are gone, and the store is empty.
    pub(super) fn exclude_all<R: Below<rank::Callback>>(&self, cx: &mut Cx<'_, R, Sleepable>) {
        self.phase.forbid_permits();
        let Ok(None::<Infallible>) = demand(VpnRange::ALL, Event::Unmap, self.reg, |inv| {
            let ack = self.ext.invalidate_start(cx.descend(), inv);
            Ok::<_, Infallible>(FirstPass::Done(ack))
        });
        self.ext.invalidate_end(cx.descend(), VpnRange::ALL);
    }
    /// Lets nobody in any more and waits until everybody is out, windows among them.
    pub(super) fn close(&self) {
        let mut v = self.visits.lock();
        v.closed = true;
        while v.now > 0 {
            self.left.wait(&mut v);
        }
    }
    /// The right to take the driver off, given once. `None`: somebody has; he is done when this returns.
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

/// A driver is being taken off. Given up half-way, by a panic of the driver, it is due again.
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
