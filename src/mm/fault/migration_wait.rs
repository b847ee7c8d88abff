//! Waiting for a page that moves to another frame (`migration_entry_wait`).

use crate::mm::{entry::pte::RawPte, guard::FaultScope};

impl FaultScope<'_> {
    /// Waits until the page of a migration entry has arrived; returns at once for other entries.
    ///
    /// A migration holds the lock of the old frame until its entries are mappings again, so the
    /// wait is for that lock.
    pub(in crate::mm) fn wait_for_migration(&mut self, entry: RawPte) {
        let mem = self.lease.mm.machine().mem();
        if let Some(pfn) = entry.migrating() {
            mem.wait_unlocked(&mut self.lease.cx, pfn);
        }
    }
}
