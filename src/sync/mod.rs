//! The one place that names a lock, an atomic or a thread.
//!
//! Everything else imports from here, so that a model checker's primitives can take the place of these: `real` is what
//! users get, `checked` is what `--cfg loom` and `--cfg shuttle` get. `docs/evidence.md` says what is checked with them.

mod addresses;
#[cfg(any(loom, shuttle))]
mod checked;
mod despite;
mod id_source;
#[cfg(not(any(loom, shuttle)))]
mod real;
mod sharded;
mod sharded_rwlock;

pub(crate) use addresses::{Addresses, TakenAddress};
#[cfg(any(loom, shuttle))]
pub(crate) use checked::*;
pub(crate) use despite::{Despite, panicking};
pub(crate) use id_source::IdSource;
#[cfg(not(any(loom, shuttle)))]
pub(crate) use real::*;
pub(crate) use sharded::{CachePadded, Sharded};
pub(crate) use sharded_rwlock::ShardedRwLock;
