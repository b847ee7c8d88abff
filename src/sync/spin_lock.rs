//! A lock of one locked operation.
//!
//! Guarantee: a guard has the value alone from [`SpinLock::lock`] until it is dropped.
//!
//! How: a thread takes the lock by an exchange, and gives it back by a store. It wakes no other: to
//! know of sleepers would take a second exchange, and the holders of this lock have done before a
//! thread could fall asleep. So a thread that finds the lock taken looks again, and sleeps for a
//! millisecond at most (docs/adr/0043-a-hit-is-one-locked-operation.md).
#![allow(unsafe_code)]

#[cfg(not(any(loom, shuttle)))]
use super::Pauses;
use super::{AtomicBool, Ordering, RaceProbe};
use std::{
    cell::UnsafeCell,
    fmt,
    marker::PhantomData,
    ops::{Deref, DerefMut},
};

/// A value under a lock that is held as long as an instruction of a device takes.
pub(crate) struct SpinLock<T> {
    taken: AtomicBool,
    race_probe: RaceProbe,
    value: UnsafeCell<T>,
}

/// The right to use the value; a panic gives it back as well, and the value is as it was left.
#[must_use = "the lock is held only while this lives"]
pub(crate) struct SpinGuard<'l, T> {
    lock: &'l SpinLock<T>,
    /// A guard may be sent or shared if a `&mut T` may.
    value: PhantomData<&'l mut T>,
}

// SAFETY: one thread at a time has the value, so it is passed between threads and not shared.
unsafe impl<T: Send> Sync for SpinLock<T> {}

impl<T> SpinLock<T> {
    pub(crate) fn new(value: T) -> Self {
        Self {
            taken: AtomicBool::new(false),
            race_probe: RaceProbe::new(),
            value: UnsafeCell::new(value),
        }
    }
    /// Takes the lock.
    #[cfg(not(any(loom, shuttle)))]
    #[inline(always)]
    pub(crate) fn lock(&self) -> SpinGuard<'_, T> {
        if !self.take() {
            self.wait();
        }
        SpinGuard {
            lock: self,
            value: PhantomData,
        }
    }
    /// Takes the lock if no other thread has it.
    #[inline(always)]
    fn take(&self) -> bool {
        // Acquire, with the release of the guard before: this thread finds the value as it was
        // left.
        !self.taken.swap(true, Ordering::Acquire)
    }
    #[inline(always)]
    fn give_back(&self, order: Ordering) {
        if cfg!(loom) {
            // Loom has an exchange that failed, and comes before a store, be the last that is seen.
            self.taken.swap(false, order);
        } else {
            self.taken.store(false, order);
        }
    }
    /// Waits for the lock, and takes it.
    #[cfg(not(any(loom, shuttle)))]
    #[cold]
    #[inline(never)]
    fn wait(&self) {
        let mut pauses = Pauses::default();
        loop {
            pauses.pause();
            // A load first: the exchange takes the line from the holder.
            if !self.taken.load(Ordering::Relaxed) && self.take() {
                return;
            }
        }
    }
}

impl<T> Deref for SpinGuard<'_, T> {
    type Target = T;
    #[inline(always)]
    fn deref(&self) -> &T {
        self.lock.race_probe.read();
        // SAFETY: this guard has the value alone.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T> DerefMut for SpinGuard<'_, T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        self.lock.race_probe.write();
        // SAFETY: this guard has the value alone, and is borrowed exclusively.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T> Drop for SpinGuard<'_, T> {
    #[inline(always)]
    fn drop(&mut self) {
        self.lock.give_back(Ordering::Release);
    }
}

impl<T: Default> Default for SpinLock<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T> fmt::Debug for SpinLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SpinLock")
    }
}

#[cfg(all(test, loom))]
impl<T> SpinLock<T> {
    /// Tries once, for a model: each further look would be a branch more.
    pub(crate) fn try_lock(&self) -> Option<SpinGuard<'_, T>> {
        self.take().then(|| SpinGuard {
            lock: self,
            value: PhantomData,
        })
    }
}

#[cfg(all(test, loom))]
impl<T> SpinGuard<'_, T> {
    /// Gives the lock back by a store that orders nothing: the mistake that a model must find.
    pub(crate) fn give_back_unordered(self) {
        self.lock.give_back(Ordering::Relaxed);
        std::mem::forget(self);
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::SpinLock;
    use std::{panic, thread};

    #[test]
    fn holders_take_turns_and_a_panic_gives_the_lock_back() {
        const TIMES: u32 = if cfg!(miri) { 20 } else { 2000 };
        let lock = SpinLock::new(0);
        thread::scope(|s| {
            for _ in 0..4 {
                s.spawn(|| {
                    for n in 0..TIMES {
                        let mut value = lock.lock();
                        *value += 1;
                        if n == 7 {
                            let caught = panic::catch_unwind(panic::AssertUnwindSafe(move || {
                                let _held = value;
                                panic::resume_unwind(Box::new(()));
                            }));
                            assert!(caught.is_err());
                        }
                    }
                });
            }
        });
        assert_eq!(*lock.lock(), 4 * TIMES);
    }
}
