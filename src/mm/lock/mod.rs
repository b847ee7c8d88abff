//! The mmap lock: a reader-writer lock for many readers at once. A reader writes only to its
//! thread's lane, a cache line of its own, so that faults of different threads do not slow each
//! other down.
//!
//! Guarantee: that of a reader-writer lock. While a writer waits, no new reader enters; a reader
//! that waited for a writer enters before the next writer. Beyond that, a thread that sleeps need
//! not delay more than the pages that it works on: a writer can give exclusivity up for a time and
//! keep a [`Claim`], a reader can leave and keep a [`SharedClaim`]
//! (`docs/adr/0009-the-mmap-lock-has-lanes.md`).
//!
//! How: a reader counts itself in on its lane and then reads the state; a writer sets the state and
//! then reads the counts of all lanes. Both sequences are sequentially consistent, so at least one
//! sees the other, and the reader gives way. Acquire and release would not do: each side stores to
//! one place and loads from another. Claims change only while their writer is alone, so a reader
//! that is counted in reads them without a lock. Only a reader that is counted in claims a range,
//! so a writer that is alone sees every claim.
//!
//! | file | holds |
//! | --- | --- |
//! | this one | [`MmapLock`] and its guards |
//! | `claim` | [`Claim`]: the pages that a yielding writer keeps |
//! | `lane` | the readers of a group of threads, and their shared claims |
//! | `shared_claim` | [`SharedClaim`]: pages that a reader keeps when it leaves |
//! | `changes` | waiting for a claim to go |
//! | `models` | loom models of claims, each with a mistake that fails |
//! | `tests` | tests with real threads |
#![allow(unsafe_code)]

mod changes;
mod claim;
mod lane;
#[cfg(all(test, loom))]
mod models;
mod shared_claim;
#[cfg(all(test, not(loom)))]
mod tests;

pub(super) use claim::{Claim, Ranges};
pub(super) use shared_claim::SharedClaim;

use crate::{
    addr::VpnRange,
    sync::{
        AtomicUsize, Condvar, IdSource, Mutex, MutexGuard, Ordering::SeqCst, Sharded, sequential,
    },
};
use changes::Changes;
use claim::overlap;
use lane::Lane;
use std::{
    cell::UnsafeCell,
    hint::spin_loop,
    ops::{Deref, DerefMut},
};

/// How often a writer reads the lanes before it sleeps: a fault takes less time.
const SPINS: u32 = if cfg!(loom) { 0 } else { 64 };

/// A writer is at work, or waits for readers to leave.
const WRITING: usize = 1;
/// No writer is at work, but there are claims.
const CLAIMED: usize = 2;

/// A value behind the mmap lock, on lines of its own: accesses that hit do not take the lock, and
/// do not meet with those that do.
#[repr(align(128))]
pub(super) struct MmapLock<T> {
    lanes: Sharded<Lane>,
    /// [`WRITING`], [`CLAIMED`] or 0.
    state: AtomicUsize,
    /// Held by the writer.
    turn: Mutex<()>,
    /// Where a writer sleeps until readers have left.
    asleep: Mutex<()>,
    left: Condvar,
    changes: Changes,
    claims: UnsafeCell<Vec<(u64, Claim)>>,
    /// The numbers of the claims.
    ids: IdSource,
    value: UnsafeCell<T>,
}

// SAFETY: as for a reader-writer lock: readers in several threads share the value, and a writer may
// move it out.
unsafe impl<T: Send + Sync> Sync for MmapLock<T> {}

/// The lock held shared.
#[must_use]
pub(super) struct ReadGuard<'l, T> {
    lock: &'l MmapLock<T>,
    /// Lane that counts this reader; it leaves there, whichever thread drops the guard.
    lane: &'l Lane,
}

/// The lock held exclusively.
#[must_use]
pub(super) struct WriteGuard<'l, T> {
    lock: &'l MmapLock<T>,
    /// `None` only while others are let in ([`yield_while`](Self::yield_while)).
    turn: Option<Turn<'l>>,
}

/// The time in which a writer is alone.
struct Turn<'l> {
    _held: MutexGuard<'l, ()>,
    /// Readers had claims when it began. They may go meanwhile, and no other can come.
    shared_claims: bool,
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
            ids: IdSource::starting_at(0),
            value: UnsafeCell::new(value),
        }
    }
    /// Takes the lock shared for work on the pages of `range`, or with `None` for reading the value
    /// alone. Waits for a writer, and for claims on these pages.
    #[inline]
    pub(super) fn read(&self, range: Option<VpnRange>) -> ReadGuard<'_, T> {
        let lane = self.lanes.mine();
        match self.count_in(lane) {
            0 => ReadGuard { lock: self, lane },
            state => self.wait_to_read(lane, state, range),
        }
    }
    /// Takes the lock shared without waiting: `None` if there is a writer or any claim.
    #[inline]
    pub(super) fn try_read(&self) -> Option<ReadGuard<'_, T>> {
        let lane = self.lanes.mine();
        let state = self.count_in(lane);
        let guard = ReadGuard { lock: self, lane };
        (state == 0).then_some(guard)
    }
    /// Counts a reader in and returns the state that it finds.
    #[inline]
    fn count_in(&self, lane: &Lane) -> usize {
        lane.readers.fetch_add(1, SeqCst);
        sequential();
        self.state.load(SeqCst)
    }
    #[cold]
    fn wait_to_read<'l>(
        &'l self,
        lane: &'l Lane,
        mut state: usize,
        range: Option<VpnRange>,
    ) -> ReadGuard<'l, T> {
        loop {
            if state == WRITING {
                self.leave(lane);
                // No writer is at work while this holds the turn, so the next one finds this reader
                // counted in.
                let turn = self.turn.lock();
                lane.readers.fetch_add(1, SeqCst);
                drop(turn);
            }
            let guard = ReadGuard { lock: self, lane };
            let claims = guard.claims();
            if !claims
                .iter()
                .any(|(_, c)| overlap(&c.no_readers, range.as_slice()))
            {
                return guard;
            }
            // Still counted in, so the claim cannot go before this waits for its end.
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
        // A writer reads the lanes and falls asleep under this mutex: either it saw this reader
        // leave, or it sleeps by now and is woken.
        drop(self.asleep.lock());
        self.left.notify_all();
    }
    /// Takes the lock exclusively. Other writers may have claims, and readers that left may have
    /// shared claims.
    #[inline]
    pub(super) fn write(&self) -> WriteGuard<'_, T> {
        let turn = Some(self.be_alone());
        WriteGuard { lock: self, turn }
    }
    /// Waits for the turn, then for the readers to leave.
    #[inline]
    fn be_alone(&self) -> Turn<'_> {
        let _held = self.turn.lock();
        self.state.store(WRITING, SeqCst);
        sequential();
        let shared_claims = self.drained().unwrap_or_else(|| self.wait_for_readers());
        Turn {
            _held,
            shared_claims,
        }
    }
    /// Returns true if readers that have left have claims; `None` if a reader is there.
    ///
    /// A reader claims in the lane in which it is counted, so a lane without readers gets no more
    /// claims.
    #[inline]
    fn drained(&self) -> Option<bool> {
        let mut claims = false;
        for lane in self.lanes.iter() {
            if lane.readers.load(SeqCst) != 0 {
                return None;
            }
            claims |= lane.has_claims();
        }
        Some(claims)
    }
    #[cold]
    fn wait_for_readers(&self) -> bool {
        for _ in 0..SPINS {
            if let Some(claims) = self.drained() {
                return claims;
            }
            spin_loop();
        }
        let mut held = self.asleep.lock();
        loop {
            if let Some(claims) = self.drained() {
                return claims;
            }
            self.left.wait(&mut held);
        }
    }
    /// The value of a lock that no other thread has.
    pub(super) fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }
}

impl<T> ReadGuard<'_, T> {
    fn claims(&self) -> &[(u64, Claim)] {
        // SAFETY: this reader is counted in, so no writer is alone, and only a writer that is alone
        // changes the claims.
        unsafe { &*self.lock.claims.get() }
    }
}

impl<T> Deref for ReadGuard<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: this reader was counted in while there was no writer; each writer since waits
        // until it is counted out.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T> Drop for ReadGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.lock.leave(self.lane);
    }
}

impl<T> WriteGuard<'_, T> {
    /// Claims of other writers.
    #[inline]
    pub(super) fn claims(&self) -> impl Iterator<Item = &Claim> {
        // SAFETY: only the writer whose turn it is changes the claims, and it is this writer's
        // turn.
        let claims: &[(u64, Claim)] = unsafe { &*self.lock.claims.get() };
        claims.iter().map(|(_, claim)| claim)
    }
    /// Returns true if there is no claim of either kind.
    #[inline]
    pub(super) fn is_only_one(&self) -> bool {
        let shared = self.turn.as_ref().is_none_or(|turn| turn.shared_claims);
        !shared && self.claims().next().is_none()
    }
    /// Returns true if a reader claims any of `pages` or another writer claims any of
    /// `extent`.
    fn conflicts(&self, pages: &[VpnRange], extent: &[VpnRange]) -> bool {
        let claimed = |lane: &Lane| lane.has_claim_in(pages);
        self.claims().any(|c| overlap(&c.no_writers, extent)) || self.lock.lanes.iter().any(claimed)
    }
    /// Returns true if no reader claims any of `pages` and no other writer claims any of
    /// `extent`.
    ///
    /// Otherwise waits for a claim to go and returns false; others may have changed the
    /// value meanwhile.
    pub(super) fn wait_for_conflicts(&mut self, pages: &[VpnRange], extent: &[VpnRange]) -> bool {
        if !self.conflicts(pages, extent) {
            return true;
        }
        let seen = self.lock.changes.expect();
        // A second look: a claim may have gone before this writer was counted as waiting.
        if !self.conflicts(pages, extent) {
            self.lock.changes.expect_no_more();
            return true;
        }
        self.give_up();
        self.lock.changes.wait_beyond(seen);
        self.turn = Some(self.lock.be_alone());
        false
    }
    /// Runs `f` while others may enter, except those that want the claimed pages.
    pub(super) fn yield_while<R>(&mut self, claim: Claim, f: impl FnOnce() -> R) -> R {
        let out = Outside::go(self, claim);
        let done = f();
        drop(out);
        done
    }
    /// Runs `f`, which reads the value, while other readers may enter. Other writers wait until `f`
    /// has returned.
    pub(super) fn yield_while_shared<R>(&mut self, claim: Claim, f: impl FnOnce(&T) -> R) -> R {
        let (lock, lane) = (self.lock, self.lock.lanes.mine());
        lane.readers.fetch_add(1, SeqCst);
        let out = Outside::go(self, claim);
        let reader = ReadGuard { lock, lane };
        let done = f(&reader);
        drop(reader);
        drop(out);
        done
    }
    /// Lets others in.
    #[inline]
    fn give_up(&mut self) {
        let claimed = self.claims().next().is_some();
        let state = if claimed { CLAIMED } else { 0 };
        // Before the turn passes on: a reader that takes the turn must find no writer.
        self.lock.state.store(state, SeqCst);
        self.turn = None;
    }
}

/// The time in which a writer lets others in. Dropping it, also by a panic, makes the writer alone
/// again.
struct Outside<'g, 'l, T> {
    guard: &'g mut WriteGuard<'l, T>,
    id: u64,
}

impl<'g, 'l, T> Outside<'g, 'l, T> {
    fn go(guard: &'g mut WriteGuard<'l, T>, claim: Claim) -> Self {
        let id = guard.lock.ids.next();
        // SAFETY: it is this writer's turn, and no reader is counted in but perhaps itself, which
        // does not read the claims.
        unsafe { &mut *guard.lock.claims.get() }.push((id, claim));
        guard.give_up();
        Self { guard, id }
    }
}

impl<T> Drop for Outside<'_, '_, T> {
    fn drop(&mut self) {
        let lock = self.guard.lock;
        self.guard.turn = Some(lock.be_alone());
        // SAFETY: as in `go`.
        let claims = unsafe { &mut *lock.claims.get() };
        claims.retain(|(id, _)| *id != self.id);
        lock.changes.note();
    }
}

impl<T> Deref for WriteGuard<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: it is this writer's turn, and no reader is counted in; readers that come
        // meanwhile give way.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T> DerefMut for WriteGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as in `deref`, and the guard itself is borrowed exclusively.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T> Drop for WriteGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.give_up();
    }
}
