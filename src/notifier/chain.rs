//! The external MMUs of one address space.

use super::{
    board::Board,
    callees::{Callees, DriverList},
    driver_entry::{DriverEntry, Visit, Visits},
    subscriptions::Subscriptions,
};
use crate::{
    addr::VpnRange,
    ctx::{Below, Context, Cx, Epoch, Outside, Rank, Sleepable, rank},
    sync::{AtomicBool, Condvar, Despite, Mutex},
};
use std::sync::Arc;

/// A driver's registration: of the whole address space, or of a range of it. Taking it off is done by
/// [`unregister`](Self::unregister), from anywhere but a window or a callback.
///
/// Merely dropping this leaves the driver where it is: safe, never stale, until the address space ends.
#[must_use = "dropping it leaves the driver registered until the address space ends"]
pub struct Registration {
    pub(super) chain: Arc<Chain>,
    pub(super) entry: Arc<DriverEntry>,
}

impl Registration {
    /// Takes the driver off. When this returns, none of its callbacks runs or will run, no window waits for it, its store is
    /// empty, and `release` has been called. Needs no lock of the address space, which may have ended
    /// (`mmu_notifier_unregister`, `mmu_interval_notifier_remove`).
    ///
    /// Waits for windows that have called the driver: they tell it their end first.
    ///
    /// # Panics
    ///
    /// If the token is of a thread that entered another machine; the driver stays where it is. If the driver panics. One
    /// that panics when it is asked for all it has stays on the chain: it gets no permit any more, is told of windows like
    /// everybody else, and is released when the address space ends.
    pub fn unregister<R: Outside>(self, cx: &mut Cx<'_, R, Sleepable>) {
        self.chain.list.check_token(cx);
        let _leaving = self.chain.unregistrations.begin();
        self.chain.unregister(cx, &self.entry);
    }
    /// Gone from the chain, and nothing else: what unregistration must not be.
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
    /// The pages that the driver is told of.
    pub fn range(&self) -> VpnRange {
        self.entry
            .sub
            .as_ref()
            .map_or(VpnRange::ALL, |sub| sub.range)
    }
}

/// Registrations that are ending.
#[derive(Default)]
pub(super) struct Unregistrations {
    now: Mutex<usize>,
    none: Condvar,
}

struct UnregistrationGuard<'l>(&'l Unregistrations);

impl Unregistrations {
    fn begin(&self) -> UnregistrationGuard<'_> {
        *self.now.lock() += 1;
        UnregistrationGuard(self)
    }
    pub(super) fn wait(&self) {
        let mut now = self.now.lock();
        while *now > 0 {
            self.none.wait(&mut now);
        }
    }
}

impl Drop for UnregistrationGuard<'_> {
    fn drop(&mut self) {
        let mut now = self.0.now.lock();
        *now -= 1;
        drop(now);
        self.0.none.notify_all();
    }
}

/// Board and drivers of one address space that has, or had, an external MMU.
pub(super) struct Chain {
    pub(super) board: Arc<Board>,
    pub(super) list: DriverList,
    pub(super) subscriptions: Subscriptions,
    pub(super) unregistrations: Unregistrations,
    /// No window is open any more that began before there was a board.
    pub(super) ready: AtomicBool,
}

impl Chain {
    pub(super) fn new(epoch: Epoch) -> Self {
        let board = Arc::<Board>::default();
        Self {
            list: DriverList::new(epoch, Arc::clone(&board)),
            board,
            subscriptions: Subscriptions::default(),
            unregistrations: Unregistrations::default(),
            ready: AtomicBool::new(false),
        }
    }
    /// Those whom a window over `range` has to collected. Pin and lock end before this returns, so callbacks may sleep.
    #[inline]
    pub(super) fn ask<R: Rank, C: Context>(
        &self,
        cx: &mut Cx<'_, R, C>,
        range: VpnRange,
        id: u64,
    ) -> Callees<'_> {
        let collected = self.list.try_collect();
        let collected = collected.unwrap_or_else(|| self.list.collect(cx.pin().guard()));
        Callees::new(collected, id, |subs| {
            self.subscriptions.visit(range, Visit::of_window, subs);
        })
    }
    /// Those whom `range` is about, each kept until the visit ends.
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
                // Not pinned while it waits.
                let unlinked = self.list.unlink(cx.pin().guard(), |e| e.reg == entry.reg);
                if let Some(drained) = unlinked.map(|unlinked| unlinked.wait()) {
                    drained.retire(cx.pin().guard());
                }
            }
        }
    }
    /// Until it is off the chain a driver is told of windows like everybody else, and then it has nothing any more and can
    /// get nothing: no zap can be missed. `release` comes when nobody can collected it.
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
    /// Nobody finds the driver any more, and nobody is calling it.
    fn unlist<R: Rank, C: Context>(&self, cx: &mut Cx<'_, R, C>, entry: &DriverEntry) {
        self.remove(cx, entry);
        entry.close();
    }
    /// [`unregister`](Self::unregister) where the address space ends: a driver that panics is off the chain and released like
    /// the others.
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
