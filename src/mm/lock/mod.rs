//! The lock of an address space, made for many readers at once: a reader writes to its thread's lane and to no other
//! line, so that faults of different threads do not slow each other down.
//!
//! Guarantee: that of a reader-writer lock. While a writer waits, no reader comes in; a reader that waited for one
//! comes in before the next. And nobody who sleeps must hold up more than the pages he works on: a writer can give
//! exclusivity up for a time and keep a [`Claim`], a reader can leave and keep a [`Pinned`] range.
//!
//! How: a reader counts itself in on its lane, then looks whether somebody writes; a writer says that it does, then
//! looks whether anybody is counted in. Both orders are sequentially consistent, so at least one sees the other, and
//! the reader gives way. Claims come and go only while their writer is alone, so whoever is counted in reads them
//! without a lock. A range is pinned only by who is counted in, so a writer that is alone sees every pin.
#![allow(unsafe_code)]

use crate::{
    addr::VpnRange,
    sync::{
        AtomicUsize, Condvar, IdSource, Mutex, MutexGuard, Ordering::SeqCst, Sharded, sequential,
    },
};
use changes::Changes;
use smallvec::SmallVec;
use std::{
    cell::UnsafeCell,
    hint::spin_loop,
    ops::{Deref, DerefMut},
};

mod changes;
#[cfg(all(test, loom))]
mod models;
#[cfg(all(test, not(loom)))]
mod tests;

/// How often a writer looks before it sleeps: a fault takes less.
const SPINS: u32 = if cfg!(loom) { 0 } else { 64 };

/// Somebody writes, or waits for readers to leave.
const WRITING: usize = 1;
/// Nobody writes, but there are claims.
const CLAIMED: usize = 2;

static NEXT: IdSource = IdSource::starting_at(0);

/// A few ranges of pages.
pub(super) type Ranges = SmallVec<[VpnRange; 3]>;

/// Whether any of these overlaps any of those.
fn meet(these: &[VpnRange], those: &[VpnRange]) -> bool {
    these.iter().any(|a| those.iter().any(|b| a.overlaps(*b)))
}

/// What a writer keeps while it lets others in.
#[derive(Clone, Debug, Default)]
pub(super) struct Claim {
    /// Readers of these pages wait.
    pub(super) quiet: Ranges,
    /// Writers that would reach into these wait; `quiet` among them.
    pub(super) held: Ranges,
}

#[derive(Default)]
struct Lane {
    /// Readers counted in.
    readers: AtomicUsize,
    /// Ranges in `pins`.
    pinned: AtomicUsize,
    pins: Mutex<Vec<VpnRange>>,
}

/// A value behind the lock.
pub(super) struct MmapLock<T> {
    lanes: Sharded<Lane>,
    /// [`WRITING`], [`CLAIMED`] or 0.
    state: AtomicUsize,
    /// Held by whoever writes.
    turn: Mutex<()>,
    /// Where a writer sleeps until readers have left.
    asleep: Mutex<()>,
    left: Condvar,
    changes: Changes,
    claims: UnsafeCell<Vec<(u64, Claim)>>,
    value: UnsafeCell<T>,
}

// SAFETY: as of a reader-writer lock: readers in several threads share the value, and a writer may send it away.
unsafe impl<T: Send + Sync> Sync for MmapLock<T> {}

/// Held shared.
#[must_use]
pub(super) struct ReadGuard<'l, T> {
    lock: &'l MmapLock<T>,
    /// Where this reader is counted: it leaves there, whichever thread drops it.
    lane: &'l Lane,
}

/// Held exclusively.
#[must_use]
pub(super) struct WriteGuard<'l, T> {
    lock: &'l MmapLock<T>,
    /// Away only in [`yield_while`](Self::yield_while).
    turn: Option<MutexGuard<'l, ()>>,
}

/// Writers of this range wait until it is dropped.
#[must_use]
pub(super) struct Pinned<'l, T> {
    lock: &'l MmapLock<T>,
    lane: &'l Lane,
    range: VpnRange,
}

impl<T> MmapLock<T> {
    pub(super) fn new(value: T) -> Self {
        Self {
            lanes: Sharded::new(),
            state: AtomicUsize::new(0),
            turn: Mutex::new(()),
            asleep: Mutex::new(()),
            left: Condvar::new(),
            changes: Changes::default(),
            claims: UnsafeCell::new(Vec::new()),
            value: UnsafeCell::new(value),
        }
    }
    /// Takes it shared, to work on the pages of `range`, or to look at the value alone: waits for a writer, and for claims on
    /// these pages.
    #[inline]
    pub(super) fn read(&self, range: Option<VpnRange>) -> ReadGuard<'_, T> {
        let lane = self.lanes.mine();
        match self.count_in(lane) {
            0 => ReadGuard { lock: self, lane },
            state => self.read_later(lane, state, range),
        }
    }
    /// The same for who must not wait: `None` if somebody writes, or there are claims on whatever pages.
    #[inline]
    pub(super) fn try_read(&self) -> Option<ReadGuard<'_, T>> {
        let lane = self.lanes.mine();
        let state = self.count_in(lane);
        let guard = ReadGuard { lock: self, lane };
        (state == 0).then_some(guard)
    }
    #[inline]
    fn count_in(&self, lane: &Lane) -> usize {
        lane.readers.fetch_add(1, SeqCst);
        sequential();
        self.state.load(SeqCst)
    }
    #[cold]
    fn read_later<'l>(
        &'l self,
        lane: &'l Lane,
        mut state: usize,
        range: Option<VpnRange>,
    ) -> ReadGuard<'l, T> {
        loop {
            if state == WRITING {
                self.leave(lane);
                // Nobody else writes while the turn is held, so the next writer finds this reader counted in.
                let turn = self.turn.lock();
                lane.readers.fetch_add(1, SeqCst);
                drop(turn);
            }
            let guard = ReadGuard { lock: self, lane };
            let claims = guard.claims();
            if !claims.iter().any(|(_, c)| meet(&c.quiet, range.as_slice())) {
                return guard;
            }
            // Counted in still: the claim goes later.
            let seen = self.changes.expect();
            drop(guard);
            self.changes.wait_beyond(seen);
            state = self.count_in(lane);
        }
    }
    #[inline]
    fn leave(&self, lane: &Lane) {
        lane.readers.fetch_sub(1, SeqCst);
        sequential();
        if self.state.load(SeqCst) == WRITING {
            self.wake_writer();
        }
    }
    #[cold]
    fn wake_writer(&self) {
        // A writer looks and falls asleep under this mutex: it has seen that this reader left, or sleeps already.
        drop(self.asleep.lock());
        self.left.notify_all();
    }
    /// Takes it exclusively; there may be claims and pins.
    pub(super) fn write(&self) -> WriteGuard<'_, T> {
        let turn = Some(self.be_alone());
        WriteGuard { lock: self, turn }
    }
    fn be_alone(&self) -> MutexGuard<'_, ()> {
        let turn = self.turn.lock();
        self.state.store(WRITING, SeqCst);
        sequential();
        if !self.drained() {
            self.wait_for_readers();
        }
        turn
    }
    fn drained(&self) -> bool {
        self.lanes.iter().all(|lane| lane.readers.load(SeqCst) == 0)
    }
    #[cold]
    fn wait_for_readers(&self) {
        for _ in 0..SPINS {
            if self.drained() {
                return;
            }
            spin_loop();
        }
        let mut held = self.asleep.lock();
        while !self.drained() {
            self.left.wait(&mut held);
        }
    }
    /// Keeps writers off `range` also when the guard is gone.
    pub(super) fn pin(&self, held: &ReadGuard<'_, T>, range: VpnRange) -> Pinned<'_, T> {
        debug_assert!(std::ptr::eq(held.lock, self), "another lock's guard");
        let lane = self.lanes.mine();
        let mut pins = lane.pins.lock();
        pins.push(range);
        lane.pinned.fetch_add(1, SeqCst);
        drop(pins);
        Pinned {
            lock: self,
            lane,
            range,
        }
    }
    /// The value, where nobody else has it.
    pub(super) fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }
}

impl<T> ReadGuard<'_, T> {
    fn claims(&self) -> &[(u64, Claim)] {
        // SAFETY: counted in, so nobody is alone, and only who is alone changes them.
        unsafe { &*self.lock.claims.get() }
    }
}

impl<T> Deref for ReadGuard<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: counted in, and no writer was there then: each writer since waits until this guard is counted out.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T> Drop for ReadGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.lock.leave(self.lane);
    }
}

impl<T> Drop for Pinned<'_, T> {
    fn drop(&mut self) {
        let mut pins = self.lane.pins.lock();
        let at = pins.iter().position(|range| *range == self.range);
        pins.swap_remove(at.expect("pinned until now"));
        self.lane.pinned.fetch_sub(1, SeqCst);
        drop(pins);
        self.lock.changes.note();
    }
}

impl<T> WriteGuard<'_, T> {
    /// What other writers have claimed.
    pub(super) fn claims(&self) -> impl Iterator<Item = &Claim> {
        // SAFETY: it is this writer's turn, and whoever else reads them is counted in.
        let claims: &[(u64, Claim)] = unsafe { &*self.lock.claims.get() };
        claims.iter().map(|(_, claim)| claim)
    }
    fn pinned(&self) -> bool {
        let mut lanes = self.lock.lanes.iter();
        lanes.any(|lane| lane.pinned.load(SeqCst) != 0)
    }
    /// There is no claim and no pin.
    pub(super) fn is_only_one(&self) -> bool {
        self.claims().next().is_none() && !self.pinned()
    }
    fn clashes(&self, own: &[VpnRange], reach: &[VpnRange]) -> bool {
        self.claims().any(|c| meet(&c.held, reach))
            || self
                .lock
                .lanes
                .iter()
                .any(|lane| lane.pinned.load(SeqCst) != 0 && meet(lane.pins.lock().as_slice(), own))
    }
    /// Whether nobody has pinned any of `own` or claimed any of `reach`. If somebody has, waits for a change, during which
    /// anything may become other than it was.
    pub(super) fn settle(&mut self, own: &[VpnRange], reach: &[VpnRange]) -> bool {
        if !self.clashes(own, reach) {
            return true;
        }
        let seen = self.lock.changes.expect();
        // Looked at again: a pin may have gone before this was counted among those who wait.
        if !self.clashes(own, reach) {
            self.lock.changes.expect_no_more();
            return true;
        }
        self.give_up();
        self.lock.changes.wait_beyond(seen);
        self.turn = Some(self.lock.be_alone());
        false
    }
    /// Runs `f` while others come in, but to what is claimed.
    pub(super) fn yield_while<R>(&mut self, claim: Claim, f: impl FnOnce() -> R) -> R {
        let out = Outside::go(self, claim);
        let done = f();
        drop(out);
        done
    }
    /// The same of something that looks at the value: others write only when it is over.
    pub(super) fn during_shared<R>(&mut self, claim: Claim, f: impl FnOnce(&T) -> R) -> R {
        let (lock, lane) = (self.lock, self.lock.lanes.mine());
        lane.readers.fetch_add(1, SeqCst);
        let out = Outside::go(self, claim);
        let reader = ReadGuard { lock, lane };
        let done = f(&reader);
        drop(reader);
        drop(out);
        done
    }
    fn give_up(&mut self) {
        let claimed = self.claims().next().is_some();
        let state = if claimed { CLAIMED } else { 0 };
        // Before the turn passes on: a reader that takes it finds that nobody writes.
        self.lock.state.store(state, SeqCst);
        self.turn = None;
    }
}

/// A writer has let others in; it is alone again when this is dropped, also by a panic.
struct Outside<'g, 'l, T> {
    guard: &'g mut WriteGuard<'l, T>,
    id: u64,
}

impl<'g, 'l, T> Outside<'g, 'l, T> {
    fn go(guard: &'g mut WriteGuard<'l, T>, claim: Claim) -> Self {
        let id = NEXT.next();
        // SAFETY: it is this writer's turn, and nobody is counted in but itself, which does not look at them.
        unsafe { &mut *guard.lock.claims.get() }.push((id, claim));
        guard.give_up();
        Self { guard, id }
    }
}

impl<T> Drop for Outside<'_, '_, T> {
    fn drop(&mut self) {
        let lock = self.guard.lock;
        self.guard.turn = Some(lock.be_alone());
        // SAFETY: as above.
        let claims = unsafe { &mut *lock.claims.get() };
        claims.retain(|(id, _)| *id != self.id);
        lock.changes.note();
    }
}

impl<T> Deref for WriteGuard<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: it is this writer's turn, and no reader is counted in: those who come meanwhile give way.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T> DerefMut for WriteGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above, and the guard itself is borrowed exclusively.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T> Drop for WriteGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.give_up();
    }
}
