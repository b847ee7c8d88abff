//! Shared memory that stays in memory: `shmctl(SHM_LOCK)` (`shmem_lock`).
//!
//! The object is locked, not its mappings: its pages are on no list of reclaim, those that come in
//! later included, whether something maps them or not.

use super::PageCache;
use crate::sync::{AtomicU64, Mutex, Ordering};
use std::sync::Arc;

/// The number of pages of all locked objects of a machine. Linux counts by user
/// (`user_shm_lock`); all processes of a machine are of one.
#[derive(Debug, Default)]
pub(crate) struct LockedPages(AtomicU64);

/// The pages of one object, counted until this is dropped.
#[derive(Debug)]
struct Counted {
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

/// The lock of one object.
#[derive(Debug, Default)]
pub(super) struct MemoryLock(Mutex<Option<Counted>>);

impl MemoryLock {
    /// Locks the object of `pages` with this cache, if no more than `most` pages of `all` are
    /// locked then. Returns true if it is locked. Pages that are on a list stay there until reclaim
    /// looks at them.
    pub(super) fn lock(
        &self,
        cache: &PageCache,
        (pages, most): (u64, u64),
        all: &Arc<LockedPages>,
    ) -> bool {
        let mut locked = self.0.lock();
        if locked.is_none() {
            *locked = all.count(pages, most);
        }
        if locked.is_some() {
            cache.mapping().set_unevictable(true);
        }
        locked.is_some()
    }
    /// Unlocks the object: its pages return to the lists (`shmem_unlock_mapping`). A page of locked
    /// memory leaves them again when reclaim finds that out.
    pub(super) fn unlock(&self, cache: &PageCache) {
        let mut locked = self.0.lock();
        if locked.take().is_none() {
            return;
        }
        cache.mapping().set_unevictable(false);
        let mut at = 0;
        while let Some((index, frame)) = cache.next(at, u64::MAX) {
            cache.host().mem.lru_unlock(frame.pfn());
            at = index + 1;
        }
    }
}
