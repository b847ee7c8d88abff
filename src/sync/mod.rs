//! The only module that names a lock, an atomic or a thread.
//!
//! All other modules import from here, so that the primitives of a model checker can replace these
//! under `--cfg loom` and `--cfg shuttle`. `docs/evidence.md` lists the properties that are checked
//! so.
//!
//! | file | holds |
//! | --- | --- |
//! | `real` | the primitives of users: locks of `parking_lot`, atomics of the standard library |
//! | `checked` | the primitives of loom and shuttle, with equal interfaces |
//! | `sharded` | a value for each of several groups of threads |
//! | `sharded_rwlock` | a reader-writer lock whose readers do not meet |
//! | `spin_lock` | a lock of one locked operation, for what is held briefly |
//! | `pauses` | the pauses of a thread that looks again until another has done something |
//! | `addresses` | addresses, each of which can be taken once at a time |
//! | `id_source` | numbers that are given out once |
//! | `despite` | calls that are made even if one before them panics |

mod addresses;
#[cfg(any(loom, shuttle))]
mod checked;
mod despite;
mod id_source;
mod pauses;
#[cfg(not(any(loom, shuttle)))]
mod real;
mod sharded;
mod sharded_rwlock;
// Under a checker its model alone has it. All else has a lock that blocks, since each look of a
// thread that waits would be a branch more.
#[cfg(any(not(any(loom, shuttle)), all(test, loom)))]
pub(crate) mod spin_lock;

pub(crate) use addresses::{Addresses, TakenAddress};
#[cfg(any(loom, shuttle))]
pub(crate) use checked::*;
pub(crate) use despite::{Despite, panicking};
pub(crate) use id_source::IdSource;
pub(crate) use pauses::{Bell, Pauses};
#[cfg(not(any(loom, shuttle)))]
pub(crate) use real::*;
pub(crate) use sharded::{CachePadded, Sharded};
pub(crate) use sharded_rwlock::ShardedRwLock;
#[cfg(not(any(loom, shuttle)))]
pub(crate) use spin_lock::{SpinGuard, SpinLock};

/// Atomics of the processor, also under a model checker: for memory that code outside of this crate
/// accesses at the same time.
pub(crate) mod hardware {
    pub(crate) use std::sync::atomic::{
        AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering, fence,
    };
}
