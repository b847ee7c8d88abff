//! The external MMUs of one address space.

use super::{
    board::Board,
    epoch_list::{EpochList, Lazy},
    ops::{AgeKind, Event, ExternalMmu, demand},
};
use crate::{
    addr::VpnRange,
    ctx::{Atomic, Below, Context, Cx, Rank, Sleepable, rank},
    frame::PhysMem,
    sync::{AtomicBool, Condvar, Mutex, Ordering, Serial},
};
use smallvec::SmallVec;
use std::{convert::Infallible, sync::Arc};

/// Identity of a registration, never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RegId(u64);

static NEXT: Serial = Serial::starting_at(0);

/// One registered driver.
pub(super) struct Entry {
    pub(super) reg: RegId,
    pub(super) ext: Arc<dyn ExternalMmu>,
    /// Permits are given out while this is set.
    alive: Arc<AtomicBool>,
    visits: Mutex<Visits>,
    left: Condvar,
}

#[derive(Default)]
struct Visits {
    /// Windows and callers that hold the driver now.
    now: usize,
    /// Nobody may come any more.
    closed: bool,
    /// `release` was called, or is being called.
    released: bool,
}

/// The right to call a driver; unregistration waits until every visit has ended.
pub(super) struct Visit(Arc<Entry>);

impl Visit {
    fn begin(entry: &Arc<Entry>) -> Option<Self> {
        let mut v = entry.visits.lock();
        if v.closed {
            return None;
        }
        v.now += 1;
        drop(v);
        Some(Self(Arc::clone(entry)))
    }
    pub(super) fn entry(&self) -> &Entry {
        &self.0
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let mut v = self.0.visits.lock();
        v.now -= 1;
        if v.now == 0 {
            drop(v);
            self.0.left.notify_all();
        }
    }
}

impl Entry {
    /// Calls `release` unless it has been called.
    fn release(&self, cx: Cx<'_, rank::Callback, Sleepable>) {
        let first = !std::mem::replace(&mut self.visits.lock().released, true);
        if first {
            self.ext.release(cx);
        }
    }
    /// Lets nobody in any more and waits until everybody is out.
    fn close(&self) {
        let mut v = self.visits.lock();
        v.closed = true;
        while v.now > 0 {
            self.left.wait(&mut v);
        }
    }
    /// Forbids permits, then passes the gate once: permits given before are gone, and the store is empty.
    fn exclude_all<R: Below<rank::Callback>>(&self, cx: &mut Cx<'_, R, Sleepable>) {
        self.alive.store(false, Ordering::SeqCst);
        let Ok(()) = demand(VpnRange::ALL, Event::Unmap, self.reg, |inv| {
            Ok::<_, Infallible>(self.ext.invalidate_start(cx.descend(), inv))
        });
        self.ext.invalidate_end(cx.descend(), VpnRange::ALL);
    }
}

/// Unforgeable right to build the one gate of a registration.
pub struct Seat {
    pub(super) reg: RegId,
    pub(super) board: Arc<Board>,
    pub(super) alive: Arc<AtomicBool>,
    pub(super) mem: Arc<PhysMem>,
}

/// Names a registered driver, for taking it off the chain.
///
/// Merely dropping this leaves the driver where it is: safe, never stale, until the address space ends.
#[must_use]
pub struct Registration {
    entry: Arc<Entry>,
}

/// Board and list of one address space that has, or had, an external MMU.
pub(super) struct Chain {
    pub(super) board: Arc<Board>,
    list: EpochList<Arc<Entry>>,
}

impl Chain {
    /// Those who are registered, each kept until the visit ends. The pin ends before this returns, so callbacks may
    /// sleep.
    pub(super) fn present<R: Rank, C: Context>(
        &self,
        cx: &mut Cx<'_, R, C>,
    ) -> SmallVec<[Visit; 4]> {
        let pinned = cx.pin();
        let mut out = SmallVec::new();
        self.list
            .for_each(pinned.guard(), |entry| out.extend(Visit::begin(entry)));
        out
    }
    fn remove<R: Rank, C: Context>(&self, cx: &mut Cx<'_, R, C>, reg: RegId) {
        let pinned = cx.pin();
        self.list.remove(pinned.guard(), |entry| entry.reg == reg);
    }
}

/// What an address space embeds: one pointer, null until the first registration.
pub(crate) struct Notifiers(Lazy<Chain>);

impl Notifiers {
    pub(crate) fn new() -> Self {
        Self(Lazy::new())
    }
    pub(super) fn chain(&self) -> Option<&Chain> {
        self.0.get()
    }
    /// Makes the board, so that windows are written on it from now on; says whether there was none.
    pub(crate) fn prepare(&self, cx: &Cx<'_, rank::Mmap, Sleepable>) -> bool {
        let fresh = self.chain().is_none();
        if fresh {
            let _chain = self.make(cx);
        }
        fresh
    }
    fn make(&self, cx: &Cx<'_, rank::Mmap, Sleepable>) -> &Chain {
        self.0.get_or_make(|| Chain {
            board: Arc::default(),
            list: EpochList::new(cx.epoch()),
        })
    }
    /// Puts a driver on the chain. The token is that of the mmap lock, which the caller holds exclusively.
    pub(crate) fn register<E: ExternalMmu + 'static>(
        &self,
        cx: &mut Cx<'_, rank::Mmap, Sleepable>,
        mem: &Arc<PhysMem>,
        build: impl FnOnce(Seat) -> Arc<E>,
    ) -> (Arc<E>, Registration) {
        let chain = self.make(cx);
        let reg = RegId(NEXT.next());
        let alive = Arc::new(AtomicBool::new(true));
        let ext = build(Seat {
            reg,
            board: Arc::clone(&chain.board),
            alive: Arc::clone(&alive),
            mem: Arc::clone(mem),
        });
        let entry = Arc::new(Entry {
            reg,
            ext: Arc::clone(&ext) as Arc<dyn ExternalMmu>,
            alive,
            visits: Mutex::default(),
            left: Condvar::new(),
        });
        let pinned = cx.pin();
        chain.list.push(Arc::clone(&entry), pinned.guard());
        (ext, Registration { entry })
    }
    /// Takes a driver off. When this returns, none of its callbacks runs or will run, and `release` has been called.
    pub(crate) fn unregister(
        &self,
        cx: &mut Cx<'_, rank::Mmap, Sleepable>,
        registration: Registration,
    ) {
        let entry = registration.entry;
        // Until it is off the chain it is told of windows like everybody else: no zap can be missed.
        entry.exclude_all(cx);
        if let Some(chain) = self.chain() {
            chain.remove(cx, entry.reg);
        }
        entry.close();
        entry.release(cx.descend());
    }
    /// The address space ends: each driver is released while still on the chain, then the chain is emptied.
    pub(crate) fn release_all(&self, cx: &mut Cx<'_, rank::Mmap, Sleepable>) {
        let Some(chain) = self.chain() else { return };
        for visit in chain.present(cx) {
            let entry = Arc::clone(&visit.0);
            entry.exclude_all(cx);
            entry.release(cx.descend());
            chain.remove(cx, entry.reg);
            drop(visit);
            entry.close();
        }
    }
    /// Nobody is registered.
    pub(crate) fn is_empty(&self, epoch: &crate::ctx::Epoch) -> bool {
        self.chain().is_none_or(|chain| {
            let local = epoch.register();
            let mut empty = true;
            chain.list.for_each(&local.pin(), |_| empty = false);
            empty
        })
    }
    /// Asks every driver whether a page of the range was used: all of them, whatever the first says, so that all clear
    /// their state.
    pub(crate) fn age<R: Below<rank::Callback>>(
        &self,
        cx: &mut Cx<'_, R, Atomic>,
        range: VpnRange,
        kind: AgeKind,
    ) -> bool {
        let Some(chain) = self.chain() else {
            return false;
        };
        chain.present(cx).iter().fold(false, |young, visit| {
            visit.entry().ext.age(cx.descend(), range, kind) | young
        })
    }
    /// Has an oracle look on, if anybody ever registered.
    pub(crate) fn watch(&self, watch: Arc<dyn super::WindowWatch>) {
        if let Some(chain) = self.chain() {
            chain.board.set_watch(watch);
        }
    }
    /// Nobody had a window over `range` since `since`, which is now if none is given; how many have closed so far.
    pub(crate) fn quiet(&self, range: VpnRange, since: Option<u64>) -> (bool, u64) {
        let Some(chain) = self.chain() else {
            return (true, 0);
        };
        let now = chain.board.snapshot();
        let verdict = chain.board.validate(range, since.unwrap_or(now));
        (verdict == super::board::Verdict::Current, now)
    }
    /// Windows open now.
    pub(crate) fn windows_open(&self) -> usize {
        self.chain().map_or(0, |chain| chain.board.open())
    }
}

impl std::fmt::Debug for Seat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Seat({:?})", self.reg)
    }
}

impl std::fmt::Debug for Registration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Registration({:?})", self.entry.reg)
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn an_address_space_pays_one_pointer() {
        assert_eq!(size_of::<super::Notifiers>(), size_of::<usize>());
    }
}
