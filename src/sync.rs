//! The one place that names a lock, an atomic or a thread.
//!
//! Everything else imports from here, so that a model checker's primitives can take the place of these.

pub(crate) use parking_lot::{
    Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard,
};
pub(crate) use std::sync::{
    OnceLock,
    atomic::{
        AtomicBool, AtomicI64, AtomicPtr, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize,
        Ordering,
    },
};

/// Keeps its value on cache lines of its own; two of them, as processors fetch lines in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Apart<T>(pub(crate) T);

/// A value for each of several groups of threads, so that threads which run at the same time seldom meet.
#[derive(Debug)]
pub(crate) struct Lanes<T>(Box<[Apart<T>]>);

impl<T: Default> Lanes<T> {
    pub(crate) fn new() -> Self {
        Self((0..lanes()).map(|_| Apart(T::default())).collect())
    }
}

impl<T> Lanes<T> {
    /// The value of this thread's group: always the same.
    #[inline]
    pub(crate) fn mine(&self) -> &T {
        &self.0[lane() & (self.0.len() - 1)].0
    }
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|lane| &lane.0)
    }
}

/// Twice as many as there are processors, as threads are dealt out in turn; a power of two.
fn lanes() -> usize {
    static LANES: OnceLock<usize> = OnceLock::new();
    *LANES.get_or_init(|| {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        (2 * processors).next_power_of_two().clamp(4, 64)
    })
}

/// The number of this thread, in the order in which threads first asked.
#[inline]
fn lane() -> usize {
    // Not the model checkers' business: any number would do.
    static NEXT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    thread_local!(static LANE: usize = NEXT.fetch_add(1, Ordering::Relaxed));
    LANE.with(|lane| *lane)
}
