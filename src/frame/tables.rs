//! Taking and giving back the memory of page tables.

use super::{mem::PhysMem, quota::Refused};
use crate::{error::NoMemory, sync::Ordering};

impl PhysMem {
    /// There shall be at most so many table pages.
    #[must_use]
    pub(crate) fn with_tables(mut self, most: u64) -> Self {
        self.quota.most = most;
        self
    }
    /// One more table page, or a place in one more for a page that is there.
    ///
    /// # Errors
    ///
    /// [`NoMemory::Table`].
    pub(crate) fn take_table(&self) -> Result<(), NoMemory> {
        let quota = &self.quota;
        if quota.tables.fetch_add(1, Ordering::Relaxed) < quota.most {
            return Ok(());
        }
        self.give_tables(1);
        quota.no_table.fetch_add(1, Ordering::Relaxed);
        Err(NoMemory::Table)
    }
    /// Gives as many back.
    pub(crate) fn give_tables(&self, count: u64) {
        self.quota.tables.fetch_sub(count, Ordering::Relaxed);
    }
    /// A frame was asked for, and none was free.
    #[cold]
    pub(super) fn note_no_frame(&self) {
        self.quota.no_frame.fetch_add(1, Ordering::Relaxed);
    }
    /// Page-table pages in use, of all address spaces; one that several share counts in each.
    pub fn tables_in_use(&self) -> u64 {
        self.quota.tables.load(Ordering::Relaxed)
    }
    /// How often there was no more memory to give.
    pub fn refused(&self) -> Refused {
        Refused {
            frames: self.quota.no_frame.load(Ordering::Relaxed),
            tables: self.quota.no_table.load(Ordering::Relaxed),
        }
    }
}
