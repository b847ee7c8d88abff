//! The registered drivers of one address space, and how a registration ends.
//!
//! Guarantee: when [`Registration::unregister`] returns, no callback of the driver runs or will
//! run, and the driver has been released, once.
//!
//! How: unregistration forbids permits, empties the driver's store through its gate, takes the
//! driver off the chain, waits for the windows and visits that still have it, and calls `release`.
//! Until the driver is off the chain it gets every window, so no invalidation can be missed.

use super::{
    board::Board,
    callees::{Callees, DriverList},
    driver_entry::{DriverEntry, Visit, Visits},
    subscriptions::Subscriptions,
    unregistrations::{Space, Unregistrations},
};
use crate::{
    addr::VpnRange,
    ctx::{Below, Context, Cx, Epoch, Outside, Rank, Sleepable, rank},
    sync::{AtomicBool, Despite},
};
use std::sync::{Arc, Weak};

/// A driver's registration on an address space, or on a range of it.
///
/// [`unregister`](Self::unregister) ends it, from anywhere but a window or a callback. Dropping the
/// value leaves the driver registered, which is safe and never stale, until the address space ends.
///
/// In a window it would wait for that window:
///
/// ```compile_fail,E0277
/// use emmu::{ctx::Sleepable, mm::InvalidationWindow, notifier::Registration};
///
/// fn leave(window: &mut InvalidationWindow<'_, Sleepable>, registration: Registration) {
///     registration.unregister(&mut window.cx());
/// }
/// ```
#[must_use = "dropping it leaves the driver registered until the address space ends"]
pub struct Registration {
    pub(super) chain: Arc<Chain>,
    pub(super) entry: Arc<DriverEntry>,
}

impl Registration {
    /// Ends the registration. When this returns, none of the driver's callbacks runs or will run,
    /// no window waits for the driver, its store is empty, and `release` has been called
    /// (`mmu_notifier_unregister`, `mmu_interval_notifier_remove`).
    ///
    /// Needs no lock of the address space, which may have ended. Waits for windows that have called
    /// the driver: they notify it of their end first.
    ///
    /// # Panics
    ///
    /// If the token belongs to a thread that entered another machine; the driver stays registered.
    /// If the driver panics: a driver that panics while its store is emptied stays on the chain. It
    /// gets no permit any more, still gets every window, and is released when the address space
    /// ends.
    pub fn unregister<R: Outside>(self, cx: &mut Cx<'_, R, Sleepable>) {
        self.chain.list.check_token(cx);
        let _leaving = self.chain.unregistrations.begin();
        self.chain.unregister(cx, &self.entry);
    }
    /// Takes the driver off the chain and does nothing else: the mistake that a model must find.
    #[cfg(all(test, loom))]
    pub(super) fn vanish<R: Rank>(&self, cx: &mut Cx<'_, R, Sleepable>) {
        let entry = &self.entry;
        let unlinked = self
            .chain
            .list
            .unlink(cx.pin().guard(), |e| e.reg == entry.reg);
        match unlinked {
            Some(unlinked) => unlinked.without_waiting().retire(cx.pin().guard()),
            None => self.chain.remove(cx, entry),
        }
    }
    /// Returns the pages that the driver is notified of.
    pub fn range(&self) -> VpnRange {
        self.entry
            .sub
            .as_ref()
            .map_or(VpnRange::ALL, |sub| sub.range)
    }
}

/// Board and drivers of one address space that has, or had, an external MMU.
pub(super) struct Chain {
    pub(super) board: Arc<Board>,
    pub(super) list: DriverList,
    pub(super) subscriptions: Subscriptions,
    pub(super) unregistrations: Unregistrations,
    /// Set when every open window began after the board was made, and so is written on it.
    pub(super) ready: AtomicBool,
}

impl Chain {
    pub(super) fn new(epoch: Epoch, space: Weak<Space>) -> Self {
        let board = Arc::<Board>::default();
        Self {
            list: DriverList::new(epoch, Arc::clone(&board)),
            board,
            subscriptions: Subscriptions::default(),
            unregistrations: Unregistrations::new(space),
            ready: AtomicBool::new(false),
        }
    }
    /// Collects the drivers that a window over `range` has to call, and calls none. Epoch pin and
    /// lock end before this returns, so callbacks may sleep.
    #[inline]
    pub(super) fn callees<R: Rank, C: Context>(
        &self,
        cx: &mut Cx<'_, R, C>,
        range: VpnRange,
        (id, buckets): (u64, Option<u64>),
    ) -> Callees<'_> {
        let collected = self.list.try_collect();
        let collected = collected.unwrap_or_else(|| self.list.collect(cx.pin().guard()));
        Callees::new(collected, (id, buckets), |subs| {
            self.subscriptions.visit(range, Visit::of_window, subs);
        })
    }
    /// Begins a visit to each driver that `range` concerns; none of them is released before its
    /// visit ends.
    pub(super) fn visit<R: Rank, C: Context>(
        &self,
        cx: &mut Cx<'_, R, C>,
        range: VpnRange,
    ) -> Visits {
        let mut out = Visits::new();
        self.subscriptions.visit(range, Visit::begin, &mut out);
        let pinned = cx.pin();
        self.list
            .for_each(pinned.guard(), |entry| out.extend(Visit::begin(entry)));
        out
    }
    pub(super) fn insert<R: Rank, C: Context>(
        &self,
        cx: &mut Cx<'_, R, C>,
        entry: &Arc<DriverEntry>,
    ) {
        match &entry.sub {
            Some(sub) => self.subscriptions.insert(sub.range, entry),
            None => self.list.push(Arc::clone(entry), cx.pin().guard()),
        }
        entry.phase.mark_listed();
    }
    fn remove<R: Rank, C: Context>(&self, cx: &mut Cx<'_, R, C>, entry: &DriverEntry) {
        match &entry.sub {
            Some(sub) => self.subscriptions.remove(sub.range, entry.reg),
            None => {
                // Without a pin: a window may need one to come to its end.
                let unlinked = self.list.unlink(cx.pin().guard(), |e| e.reg == entry.reg);
                if let Some(drained) = unlinked.map(|unlinked| unlinked.wait()) {
                    drained.retire(cx.pin().guard());
                }
            }
        }
    }
    /// Ends a registration once.
    ///
    /// The driver is on the chain until its store is empty and permits are forbidden, so it can
    /// miss no invalidation. `release` comes when no call to the driver is under way or can begin.
    fn unregister<R: Below<rank::Callback>>(
        &self,
        cx: &mut Cx<'_, R, Sleepable>,
        entry: &DriverEntry,
    ) {
        let Some(leave) = entry.begin_unregistering() else {
            return;
        };
        entry.exclude_all(cx);
        self.unlist(cx, entry);
        leave.release(cx.descend());
        entry.address.give_back();
    }
    /// Takes the driver off the chain and waits until no call to it is under way.
    fn unlist<R: Rank, C: Context>(&self, cx: &mut Cx<'_, R, C>, entry: &DriverEntry) {
        self.remove(cx, entry);
        entry.close();
    }
    /// Ends a registration as [`unregister`](Self::unregister) does, for an address space that
    /// ends: a driver that panics is taken off the chain and released like the others.
    pub(super) fn unregister_despite_panics<R: Below<rank::Callback>>(
        &self,
        cx: &mut Cx<'_, R, Sleepable>,
        entry: &DriverEntry,
        despite: &mut Despite,
    ) {
        let Some(leave) = entry.begin_unregistering() else {
            return;
        };
        despite.call(|| entry.exclude_all(cx));
        self.unlist(cx, entry);
        despite.call(|| leave.release(cx.descend()));
        entry.address.give_back();
    }
    pub(super) fn all<R: Rank, C: Context>(&self, cx: &mut Cx<'_, R, C>) -> Vec<Arc<DriverEntry>> {
        let mut all = self.subscriptions.all();
        let pinned = cx.pin();
        self.list
            .for_each(pinned.guard(), |entry| all.push(Arc::clone(entry)));
        all
    }
}

impl std::fmt::Debug for Registration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Registration({:?})", self.entry.reg)
    }
}
