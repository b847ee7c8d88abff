//! Shared memory that stays in memory: `shmctl(SHM_LOCK)` (`shmem_lock`).
//!
//! The object is locked, not its mappings: its pages are on no list of reclaim, those that come in
//! later included, whether something maps them or not.

use super::{MemoryObject, PageCache, Shmem};
use crate::sync::{AtomicU64, Ordering};
use std::sync::Arc;

/// The number of pages of all locked objects of a machine. Linux counts by user
/// (`user_shm_lock`); all processes of a machine are of one.
#[derive(Debug, Default)]
pub(crate) struct LockedPages(AtomicU64);

/// The pages of one object, counted until this is dropped.
#[derive(Debug)]
pub(super) struct Counted {
    all: Arc<LockedPages>,
    pages: u64,
}

impl LockedPages {
    /// Counts `pages` unless there are more than `most` then.
    fn count(self: &Arc<Self>, pages: u64, most: u64) -> Option<Counted> {
        let add = |now: u64| now.checked_add(pages).filter(|&sum| sum <= most);
        let counted = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
        let all = Arc::clone(self);
        counted.is_ok().then(|| Counted { all, pages })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.all.0.fetch_sub(self.pages, Ordering::Relaxed);
    }
}

impl Shmem {
    /// Locks the object, if no more than `most` pages of `all` are locked then. Returns true if it
    /// is locked. Pages that are on a list stay there until reclaim looks at them.
    pub(crate) fn lock(&self, all: &Arc<LockedPages>, most: u64) -> bool {
        let mut locked = self.locked.lock();
        if locked.is_none() {
            *locked = all.count(self.pages(), most);
        }
        if locked.is_some() {
            self.mapping().set_unevictable(true);
        }
        locked.is_some()
    }
    /// Unlocks the object: its pages return to the lists (`shmem_unlock_mapping`).
    pub(crate) fn unlock(&self) {
        let mut locked = self.locked.lock();
        if locked.take().is_some() {
            self.mapping().set_unevictable(false);
            self.cache.return_to_lists();
        }
    }
}

impl PageCache {
    /// Puts every page that is kept from reclaim on its list. A page of locked memory leaves it
    /// again when reclaim finds that out.
    fn return_to_lists(&self) {
        let mut at = 0;
        while let Some((index, frame)) = self.next(at, u64::MAX) {
            self.host().mem.lru_unlock(frame.pfn());
            at = index + 1;
        }
    }
}
