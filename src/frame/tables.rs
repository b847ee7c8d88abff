//! Taking and giving back the memory of page tables, within the limit of the machine; the limit of
//! all memory.

use super::{alloc::OutOfFrames, mem::PhysMem, quota::RefusedAllocations};
use crate::{
    error::NoMemory,
    sync::{MutexGuard, Ordering},
};

impl PhysMem {
    /// Sets the limit of table pages.
    #[must_use]
    pub(crate) fn with_tables(mut self, most: u64) -> Self {
        self.quota.most = most;
        self
    }
    /// Counts one more table page in use, or one more address space that shares a page.
    ///
    /// # Errors
    ///
    /// [`NoMemory::Table`] at the limit.
    pub(crate) fn take_table(&self) -> Result<(), NoMemory> {
        let quota = &self.quota;
        if quota.tables.0.fetch_add(1, Ordering::Relaxed) < quota.most {
            return Ok(());
        }
        self.give_tables(1);
        quota.no_table.fetch_add(1, Ordering::Relaxed);
        Err(NoMemory::Table)
    }
    /// Gives back as many table pages.
    pub(crate) fn give_tables(&self, count: u64) {
        self.quota.tables.0.fetch_sub(count, Ordering::Relaxed);
    }
    /// Counts a request for a frame that found none free.
    #[cold]
    pub(super) fn note_no_frame(&self) {
        self.quota.no_frame.fetch_add(1, Ordering::Relaxed);
    }
    /// Sets the limit of memory, in pages; `u64::MAX`: none. Returns false, and leaves it as it
    /// was, if more are in use (`page_counter_set_max`).
    pub(crate) fn try_set_limit(&self, pages: u64) -> bool {
        let _alone = self.quota.charging.lock();
        let fits = self.pages_charged() <= pages;
        if fits {
            self.quota.limit.store(pages, Ordering::Relaxed);
        }
        fits
    }
    /// Returns the number of pages that the limit of memory counts. Huge pages of pools are none of
    /// them: a control group limits those apart (`hugetlb_cgroup`).
    pub(crate) fn pages_charged(&self) -> u64 {
        let frames = u64::from(self.in_use()).saturating_sub(self.pools.frames());
        frames + self.tables_in_use()
    }
    /// Returns true if the limit of memory allows no more frame.
    pub(crate) fn is_at_limit(&self) -> bool {
        self.charge(1).is_err()
    }
    /// Checks that the limit of memory allows so many more frames. While the lock that it returns
    /// is held, no other thread takes frames below the limit.
    ///
    /// # Errors
    ///
    /// [`OutOfFrames::Limit`].
    #[inline]
    pub(super) fn charge(&self, frames: u64) -> Result<Option<MutexGuard<'_, ()>>, OutOfFrames> {
        match self.has_limit() {
            false => Ok(None),
            true => self.charge_below(frames).map(Some),
        }
    }
    #[cold]
    fn charge_below(&self, frames: u64) -> Result<MutexGuard<'_, ()>, OutOfFrames> {
        let alone = self.quota.charging.lock();
        let limit = self.quota.limit.load(Ordering::Relaxed);
        match self.pages_charged().saturating_add(frames) <= limit {
            true => Ok(alone),
            false => Err(OutOfFrames::Limit(limit)),
        }
    }
    /// Returns true if there is a limit of memory.
    pub(super) fn has_limit(&self) -> bool {
        self.quota.limit.load(Ordering::Relaxed) != u64::MAX
    }
    /// Returns the number of page-table pages in use, of all address spaces; a table that several
    /// share counts in each.
    pub fn tables_in_use(&self) -> u64 {
        self.quota.tables.0.load(Ordering::Relaxed)
    }
    /// Returns how many allocations failed because no memory was left.
    pub fn refused(&self) -> RefusedAllocations {
        RefusedAllocations {
            frames: self.quota.no_frame.load(Ordering::Relaxed),
            tables: self.quota.no_table.load(Ordering::Relaxed),
        }
    }
}
