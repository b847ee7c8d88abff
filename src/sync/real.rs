//! What users get: `parking_lot`'s locks, the standard library's atomics and threads.

pub(crate) use parking_lot::{
    Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard,
};
pub(crate) use std::{
    sync::{
        OnceLock,
        atomic::{
            AtomicBool, AtomicI64, AtomicPtr, AtomicU8, AtomicU16, AtomicU32, AtomicU64,
            AtomicUsize, Ordering,
        },
        mpsc,
    },
    thread, thread_local,
};

/// Beside each access of `crossbeam-epoch`, which shuttle does not see: a place where it may switch. Nothing otherwise.
#[inline]
pub(crate) const fn switch_point() {}

/// Stands between accesses whose order is sequentially consistent: loom takes them for acquire and release, and is told by a
/// fence. Nothing otherwise.
#[inline]
pub(crate) const fn sequential() {}

/// Stands beside data that raw pointers lead to, so that loom can say who accesses them at the same time.
#[derive(Debug)]
pub(crate) struct RaceProbe;

impl RaceProbe {
    #[inline]
    pub(crate) const fn new() -> Self {
        Self
    }
    /// The data are read.
    #[inline]
    pub(crate) const fn read(&self) {}
    /// The data are written, or go.
    #[inline]
    pub(crate) const fn write(&self) {}
}

/// The pointer, where nobody else has the atomic.
#[inline]
pub(crate) fn atomic_get_mut<T>(at: &mut AtomicPtr<T>) -> *mut T {
    *at.get_mut()
}
/// Entries of a table page.
#[inline]
pub(crate) const fn zeros<const N: usize>() -> [AtomicU64; N] {
    [const { AtomicU64::new(0) }; N]
}
/// Slots of a directory page.
#[inline]
pub(crate) const fn nulls<T, const N: usize>() -> [AtomicPtr<T>; N] {
    [const { AtomicPtr::new(std::ptr::null_mut()) }; N]
}
/// The number of this thread, in the order in which threads first asked.
#[inline]
pub(super) fn shard_index() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static LANE: usize = NEXT.fetch_add(1, Ordering::Relaxed));
    LANE.with(|lane| *lane)
}
/// Twice as many as there are processors, as threads are dealt out in turn; a power of two.
pub(super) fn shard_count() -> usize {
    static LANES: OnceLock<usize> = OnceLock::new();
    *LANES.get_or_init(|| {
        let processors = thread::available_parallelism().map_or(1, usize::from);
        (2 * processors).next_power_of_two().clamp(4, 64)
    })
}
