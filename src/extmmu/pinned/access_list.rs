//! The accesses of an I/O address space, to be called before an area goes.

use crate::sync::{AtomicU64, Mutex, Ordering};
use std::{fmt, sync::Arc};

/// The function of an access: it is given the first byte address and the length.
pub(super) type Unmap = dyn Fn(u64, u64) + Send + Sync;

/// The accesses of an I/O address space.
#[derive(Default)]
pub(super) struct AccessList {
    known: Mutex<Vec<(u64, Arc<Unmap>)>>,
    next_id: AtomicU64,
}

impl AccessList {
    /// Adds an access, and returns its number.
    pub(super) fn add(&self, unmap: Arc<Unmap>) -> u64 {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        self.known.lock().push((id, unmap));
        id
    }
    /// Removes the access with a number.
    pub(super) fn remove(&self, id: u64) {
        self.known.lock().retain(|(known, _)| *known != id);
    }
    /// Asks each to give up the pages of a range. No lock is held.
    pub(super) fn notify(&self, iova: u64, len: u64) {
        let known: Vec<_> = self
            .known
            .lock()
            .iter()
            .map(|(_, f)| Arc::clone(f))
            .collect();
        for unmap in known {
            unmap(iova, len);
        }
    }
}

impl fmt::Debug for AccessList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.known.lock().iter().map(|(id, _)| id))
            .finish()
    }
}
