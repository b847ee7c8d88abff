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
