//! The lock of an address space, made for many readers at once: a reader writes to its thread's lane and to no other
//! line, so that faults of different threads do not slow each other down.
//!
//! Guarantee: that of a reader-writer lock. While a writer waits, no reader comes in; a reader that waited for one
//! comes in before the next.
//!
//! How: a reader counts itself in on its lane, then looks whether somebody writes; a writer says that it does, then
//! looks whether anybody is counted in. Both orders are sequentially consistent, so at least one sees the other, and
//! the reader gives way.
#![allow(unsafe_code)]

use crate::sync::{AtomicBool, AtomicUsize, Condvar, Lanes, Mutex, MutexGuard, Ordering};
use std::{
    cell::UnsafeCell,
    hint::spin_loop,
    ops::{Deref, DerefMut},
};

/// How often a writer looks before it sleeps: a fault takes less.
const SPINS: u32 = 64;

/// A value behind the lock.
pub(super) struct MmapLock<T> {
    /// Readers counted in.
    readers: Lanes<AtomicUsize>,
    /// Somebody writes, or waits for readers to leave.
    writing: AtomicBool,
    /// Held by whoever writes.
    turn: Mutex<()>,
    /// Where a writer sleeps until readers have left.
    asleep: Mutex<()>,
    left: Condvar,
    value: UnsafeCell<T>,
}

// SAFETY: as of a reader-writer lock: readers in several threads share the value, and a writer may send it away.
unsafe impl<T: Send + Sync> Sync for MmapLock<T> {}

/// Held shared.
#[must_use]
pub(super) struct ReadGuard<'l, T> {
    lock: &'l MmapLock<T>,
    /// Where this reader is counted: it leaves there, whichever thread drops it.
    lane: &'l AtomicUsize,
}

/// Held exclusively.
#[must_use]
pub(super) struct WriteGuard<'l, T> {
    lock: &'l MmapLock<T>,
    _turn: MutexGuard<'l, ()>,
}

impl<T> MmapLock<T> {
    pub(super) fn new(value: T) -> Self {
        Self {
            readers: Lanes::new(),
            writing: AtomicBool::new(false),
            turn: Mutex::new(()),
            asleep: Mutex::new(()),
            left: Condvar::new(),
            value: UnsafeCell::new(value),
        }
    }
    /// Takes it shared.
    #[inline]
    pub(super) fn read(&self) -> ReadGuard<'_, T> {
        let lane = self.readers.mine();
        lane.fetch_add(1, Ordering::SeqCst);
        if self.writing.load(Ordering::SeqCst) {
            return self.read_later(lane);
        }
        ReadGuard { lock: self, lane }
    }
    #[cold]
    fn read_later<'l>(&'l self, lane: &'l AtomicUsize) -> ReadGuard<'l, T> {
        self.leave(lane);
        // Nobody else writes while the turn is held, so the next writer finds this reader counted in.
        let turn = self.turn.lock();
        lane.fetch_add(1, Ordering::SeqCst);
        drop(turn);
        ReadGuard { lock: self, lane }
    }
    #[inline]
    fn leave(&self, lane: &AtomicUsize) {
        lane.fetch_sub(1, Ordering::SeqCst);
        if self.writing.load(Ordering::SeqCst) {
            self.wake_writer();
        }
    }
    #[cold]
    fn wake_writer(&self) {
        // A writer looks and falls asleep under this mutex: it has seen that this reader left, or sleeps already.
        drop(self.asleep.lock());
        self.left.notify_all();
    }
    /// Takes it exclusively.
    pub(super) fn write(&self) -> WriteGuard<'_, T> {
        let turn = self.turn.lock();
        self.writing.store(true, Ordering::SeqCst);
        if !self.drained() {
            self.wait_for_readers();
        }
        WriteGuard {
            lock: self,
            _turn: turn,
        }
    }
    fn drained(&self) -> bool {
        self.readers
            .iter()
            .all(|lane| lane.load(Ordering::SeqCst) == 0)
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
    /// The value, where nobody else has it.
    pub(super) fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
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
        // Before the turn passes on: a reader that takes it finds that nobody writes.
        self.lock.writing.store(false, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::MmapLock;
    use std::sync::{
        Barrier,
        atomic::{AtomicBool, AtomicU32, Ordering::SeqCst},
    };

    const ROUNDS: u64 = if cfg!(miri) { 20 } else { 5000 };

    #[test]
    fn writers_exclude_each_other_and_readers() {
        let lock = MmapLock::new((0_u64, 0_u64));
        std::thread::scope(|s| {
            for _ in 0..2 {
                s.spawn(|| {
                    for _ in 0..ROUNDS {
                        let mut pair = lock.write();
                        pair.0 += 1;
                        pair.1 += 1;
                    }
                });
                s.spawn(|| {
                    for _ in 0..ROUNDS {
                        let pair = lock.read();
                        assert_eq!(pair.0, pair.1);
                    }
                });
            }
        });
        assert_eq!(*lock.write(), (2 * ROUNDS, 2 * ROUNDS));
    }

    #[test]
    fn readers_are_in_at_once() {
        let lock = MmapLock::new(());
        let both = Barrier::new(2);
        std::thread::scope(|s| {
            for _ in 0..2 {
                s.spawn(|| {
                    let _held = lock.read();
                    both.wait();
                });
            }
        });
    }

    #[test]
    fn a_writer_sleeps_until_the_last_reader_has_left() {
        let lock = MmapLock::new(());
        let (left, seen) = (AtomicBool::new(false), AtomicU32::new(0));
        let held = lock.read();
        std::thread::scope(|s| {
            s.spawn(|| {
                let _held = lock.write();
                assert!(left.load(SeqCst));
                seen.fetch_add(1, SeqCst);
            });
            std::thread::sleep(std::time::Duration::from_millis(20));
            left.store(true, SeqCst);
            drop(held);
        });
        assert_eq!(seen.load(SeqCst), 1);
    }

    #[test]
    fn a_reader_that_waited_comes_in_before_the_next_writer_is_done() {
        let mut lock = MmapLock::new(0);
        let held = lock.write();
        std::thread::scope(|s| {
            let reader = s.spawn(|| *lock.read());
            std::thread::sleep(std::time::Duration::from_millis(5));
            drop(held);
            assert!(reader.join().unwrap() <= 1);
            *lock.write() += 1;
        });
        assert_eq!(*lock.get_mut(), 1);
    }
}
