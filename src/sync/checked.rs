//! The primitives of a model checker, with the interfaces of those in `real`.
//!
//! Both checkers have the interface of the standard library. That of `parking_lot` differs: `lock`
//! returns a guard and nothing else, a condition variable borrows the guard, and a panic under a
//! lock does not poison it (guards repair the data).
#![allow(unsafe_code)]

#[cfg(loom)]
use loom as checker;
#[cfg(shuttle)]
use shuttle as checker;

pub(crate) use checker::{
    sync::{
        atomic::{
            AtomicBool, AtomicI64, AtomicPtr, AtomicU8, AtomicU16, AtomicU32, AtomicU64,
            AtomicUsize, Ordering, fence,
        },
        mpsc,
    },
    thread_local,
};
use std::{
    fmt,
    ops::{Deref, DerefMut},
    sync::{PoisonError, TryLockError},
    time::{Duration, Instant},
};

pub(crate) mod thread {
    pub(crate) use super::checker::thread::{spawn, yield_now};

    /// Yields: no time passes under a checker.
    pub(crate) fn sleep(_time: std::time::Duration) {
        yield_now();
    }
}

#[derive(Default)]
pub(crate) struct Mutex<T>(checker::sync::Mutex<T>);

/// The inner guard is absent only while a condition variable has it.
pub(crate) struct MutexGuard<'l, T>(Option<checker::sync::MutexGuard<'l, T>>);

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(checker::sync::Mutex::new(value))
    }
    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        MutexGuard(Some(self.0.lock().unwrap_or_else(PoisonError::into_inner)))
    }
    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        let guard = match self.0.try_lock() {
            Err(TryLockError::WouldBlock) => return None,
            Err(TryLockError::Poisoned(guard)) => guard.into_inner(),
            Ok(guard) => guard,
        };
        Some(MutexGuard(Some(guard)))
    }
    /// Tries 200 times, because no time passes.
    pub(crate) fn try_lock_for(&self, _time: Duration) -> Option<MutexGuard<'_, T>> {
        (0..200).find_map(|_| {
            let guard = self.try_lock();
            if guard.is_none() {
                thread::yield_now();
            }
            guard
        })
    }
    pub(crate) fn get_mut(&mut self) -> &mut T {
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The lock that stands for `spin_lock`, which has a model of its own.
pub(crate) type SpinLock<T> = Mutex<T>;
pub(crate) type SpinGuard<'l, T> = MutexGuard<'l, T>;

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        self.0.as_ref().expect("held")
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0.as_mut().expect("held")
    }
}

#[derive(Default)]
pub(crate) struct Condvar(checker::sync::Condvar);

/// The outcome of a wait with a deadline.
#[derive(Debug)]
pub(crate) struct TimedOut(bool);

impl TimedOut {
    pub(crate) fn timed_out(&self) -> bool {
        self.0
    }
}

impl Condvar {
    pub(crate) fn new() -> Self {
        Self(checker::sync::Condvar::new())
    }
    pub(crate) fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
        let held = guard.0.take().expect("held");
        guard.0 = Some(self.0.wait(held).unwrap_or_else(PoisonError::into_inner));
    }
    /// Waits without a deadline: no time passes.
    pub(crate) fn wait_until<T>(&self, guard: &mut MutexGuard<'_, T>, _end: Instant) -> TimedOut {
        self.wait(guard);
        TimedOut(false)
    }
    pub(crate) fn notify_all(&self) {
        self.0.notify_all();
    }
}

#[derive(Default)]
pub(crate) struct RwLock<T>(checker::sync::RwLock<T>);
pub(crate) use checker::sync::{RwLockReadGuard, RwLockWriteGuard};

impl<T> RwLock<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(checker::sync::RwLock::new(value))
    }
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, T> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }
    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, T> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A cell that is set once. Unlike that of the standard library it makes a value outside of any
/// lock, and drops the value if another thread has set one.
pub(crate) struct OnceLock<T> {
    cell: std::sync::OnceLock<T>,
    /// The state that the checker sees.
    ready: AtomicBool,
}

impl<T> OnceLock<T> {
    pub(crate) fn new() -> Self {
        Self {
            cell: std::sync::OnceLock::new(),
            ready: AtomicBool::new(false),
        }
    }
    pub(crate) fn get(&self) -> Option<&T> {
        let ready = self.ready.load(Ordering::Acquire);
        self.cell.get().filter(|_| ready)
    }
    pub(crate) fn set(&self, value: T) -> Result<(), T> {
        self.cell.set(value)?;
        self.ready.store(true, Ordering::Release);
        Ok(())
    }
    pub(crate) fn get_or_init(&self, make: impl FnOnce() -> T) -> &T {
        if let Some(value) = self.get() {
            return value;
        }
        if self.set(make()).is_err() {
            // The thread that was first may not have set the flag yet.
            self.ready.store(true, Ordering::Release);
        }
        self.cell.get().expect("set by this thread or another")
    }
    pub(crate) fn get_mut(&mut self) -> Option<&mut T> {
        self.cell.get_mut()
    }
    pub(crate) fn take(&mut self) -> Option<T> {
        let value = self.cell.take();
        *self = Self::new();
        value
    }
}

impl<T> Default for OnceLock<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// See `real`.
#[inline]
pub(crate) fn switch_point() {
    #[cfg(shuttle)]
    AtomicBool::new(false).load(Ordering::Relaxed);
}

/// See `real`.
#[inline]
pub(crate) fn sequential() {
    #[cfg(loom)]
    checker::sync::atomic::fence(Ordering::SeqCst);
}

/// See `real`.
#[derive(Debug)]
pub(crate) struct RaceProbe {
    #[cfg(loom)]
    cell: loom::cell::UnsafeCell<()>,
}

// SAFETY: the cell is empty; loom reports accesses at the same time.
#[cfg(loom)]
unsafe impl Sync for RaceProbe {}

impl RaceProbe {
    pub(crate) fn new() -> Self {
        Self {
            #[cfg(loom)]
            cell: loom::cell::UnsafeCell::new(()),
        }
    }
    pub(crate) fn read(&self) {
        #[cfg(loom)]
        self.cell.with(|_| ());
    }
    pub(crate) fn write(&self) {
        #[cfg(loom)]
        self.cell.with_mut(|_| ());
    }
}

/// See `real`.
pub(crate) fn atomic_get_mut<T>(at: &mut AtomicPtr<T>) -> *mut T {
    #[cfg(loom)]
    return at.with_mut(|at| *at);
    #[cfg(shuttle)]
    *at.get_mut()
}
/// See `real`.
pub(crate) fn zeros<const N: usize>() -> [AtomicU64; N] {
    std::array::from_fn(|_| AtomicU64::new(0))
}
/// See `real`.
pub(crate) fn nulls<T, const N: usize>() -> [AtomicPtr<T>; N] {
    std::array::from_fn(|_| AtomicPtr::new(std::ptr::null_mut()))
}
/// Returns the number of this thread: the last digit of its name, which is equal in each execution.
pub(super) fn shard_index() -> usize {
    let name = format!("{:?}", checker::thread::current().id());
    let digit = |c: char| c.to_digit(10).and_then(|d| usize::try_from(d).ok());
    name.chars().rev().find_map(digit).unwrap_or(0)
}
pub(super) const fn shard_count() -> usize {
    2
}

macro_rules! opaque {
    ($($name:ident<$($p:tt),*>)*) => {$(
        impl<$($p),*> fmt::Debug for $name<$($p),*> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(stringify!($name))
            }
        }
    )*};
}
opaque!(Mutex<T> RwLock<T> OnceLock<T> MutexGuard<'l, T>);

impl fmt::Debug for Condvar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Condvar")
    }
}
