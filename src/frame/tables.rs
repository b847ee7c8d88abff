//! Taking and giving back the memory of page tables, within the limit of the machine.

use super::{mem::PhysMem, quota::Refused};
use crate::{error::NoMemory, sync::Ordering};

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
        if quota.tables.fetch_add(1, Ordering::Relaxed) < quota.most {
            return Ok(());
        }
        self.give_tables(1);
        quota.no_table.fetch_add(1, Ordering::Relaxed);
        Err(NoMemory::Table)
    }
    /// Gives back as many table pages.
    pub(crate) fn give_tables(&self, count: u64) {
        self.quota.tables.fetch_sub(count, Ordering::Relaxed);
    }
    /// Counts a request for a frame that found none free.
    #[cold]
    pub(super) fn note_no_frame(&self) {
        self.quota.no_frame.fetch_add(1, Ordering::Relaxed);
    }
    /// Returns the number of page-table pages in use, of all address spaces; a table that several
    /// share counts in each.
    pub fn tables_in_use(&self) -> u64 {
        self.quota.tables.load(Ordering::Relaxed)
    }
    /// Returns how many allocations failed because no memory was left.
    pub fn refused(&self) -> Refused {
        Refused {
            frames: self.quota.no_frame.load(Ordering::Relaxed),
            tables: self.quota.no_table.load(Ordering::Relaxed),
        }
    }
}
