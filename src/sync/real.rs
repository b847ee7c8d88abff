//! The primitives of users: locks of `parking_lot`, atomics and threads of the standard library.

pub(crate) use parking_lot::{
    Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard,
};
pub(crate) use std::{
    sync::{
        OnceLock,
        atomic::{
            AtomicBool, AtomicI64, AtomicPtr, AtomicU8, AtomicU16, AtomicU32, AtomicU64,
            AtomicUsize, Ordering, fence,
        },
        mpsc,
    },
    thread, thread_local,
};

/// Lets shuttle switch threads beside an access of `crossbeam-epoch`, which it does not see. Does
/// nothing otherwise.
#[inline]
pub(crate) const fn switch_point() {}

/// Tells loom that the accesses around it are sequentially consistent, by a fence: loom takes such
/// accesses for acquire and release. Does nothing otherwise.
#[inline]
pub(crate) const fn sequential() {}

/// Stands beside data that raw pointers lead to, so that loom can report accesses to them at the
/// same time.
#[derive(Debug)]
pub(crate) struct RaceProbe;

impl RaceProbe {
    #[inline]
    pub(crate) const fn new() -> Self {
        Self
    }
    /// Notes that the data are read.
    #[inline]
    pub(crate) const fn read(&self) {}
    /// Notes that the data are written, or destroyed.
    #[inline]
    pub(crate) const fn write(&self) {}
}

/// Reads a pointer that no other thread can access.
#[inline]
pub(crate) fn atomic_get_mut<T>(at: &mut AtomicPtr<T>) -> *mut T {
    *at.get_mut()
}
/// Makes the entries of a table page, all zero.
#[inline]
pub(crate) const fn zeros<const N: usize>() -> [AtomicU64; N] {
    [const { AtomicU64::new(0) }; N]
}
/// Makes the slots of a directory page, all null.
#[inline]
pub(crate) const fn nulls<T, const N: usize>() -> [AtomicPtr<T>; N] {
    [const { AtomicPtr::new(std::ptr::null_mut()) }; N]
}
/// Returns the number of this thread; threads are numbered in the order in which they first ask.
#[inline]
pub(super) fn shard_index() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static LANE: usize = NEXT.fetch_add(1, Ordering::Relaxed));
    LANE.with(|lane| *lane)
}
/// Returns the number of shards, a power of two: twice the number of processors, because threads
/// are dealt out in turn.
pub(super) fn shard_count() -> usize {
    static LANES: OnceLock<usize> = OnceLock::new();
    *LANES.get_or_init(|| {
        let processors = thread::available_parallelism().map_or(1, usize::from);
        (2 * processors).next_power_of_two().clamp(4, 64)
    })
}
