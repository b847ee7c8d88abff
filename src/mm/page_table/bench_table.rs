//! The page table alone, without VMAs, frames and windows, for benchmarks against other page
//! tables. Not a stable API.

use super::table::PageTable;
use crate::mm::entry::pte::{Pte, RawPte, Rights};
use crate::{
    addr::{Pfn, Vpn, VpnRange},
    ctx::Epoch,
    error::NoMemory,
    frame::{MemConfig, PhysMem},
};
use crossbeam_epoch::{Guard, LocalHandle};
use std::sync::Arc;

/// A page table without an address space around it.
pub struct RawTable {
    table: PageTable,
    local: LocalHandle,
    _epoch: Epoch,
}

/// A [`RawTable`] under an epoch pin: lookups one after another, as a hardware walker does them.
pub struct RawWalk<'t> {
    table: &'t PageTable,
    guard: Guard,
}

impl Default for RawTable {
    fn default() -> Self {
        let epoch = Epoch::new();
        let mem = Arc::new(PhysMem::new(MemConfig::default()));
        Self {
            table: PageTable::new(&mem, &epoch),
            local: epoch.register(),
            _epoch: epoch,
        }
    }
}

impl RawTable {
    /// Maps `range` to the frames from number `first` on; entries that are not empty stay.
    ///
    /// # Errors
    ///
    /// [`NoMemory`]: a table was refused.
    pub fn map(&self, range: VpnRange, first: u32) -> Result<(), NoMemory> {
        let rights = Rights {
            read: true,
            write: true,
        };
        let guard = self.local.pin();
        let pin = self.table.pin(&guard);
        let (mut at, mut number) = (range.start(), first);
        while at < range.end() {
            let end = VpnRange::block_of(at).end().min(range.end());
            let leaf = self.table.make_leaf(at, pin)?.lock();
            let leaf = leaf.expect("nobody else sees this table");
            while at < end {
                if leaf.get(at).is_none() {
                    leaf.set(at, RawPte::frame(Pfn(number), rights));
                }
                at = at.plus(1);
                number += 1;
            }
        }
        Ok(())
    }
    /// Clears the entries of `range` and returns how many there were. Tables stay.
    pub fn unmap(&self, range: VpnRange) -> usize {
        let guard = self.local.pin();
        let mut cleared = 0;
        let pin = self.table.pin(&guard);
        self.table.for_each_locked_leaf(range, pin, |part, leaf| {
            for at in part.iter() {
                if !leaf.get(at).is_none() {
                    leaf.set(at, RawPte::NONE);
                    cleared += 1;
                }
            }
        });
        cleared
    }
    /// Pins the table for lookups.
    pub fn walk(&self) -> RawWalk<'_> {
        let guard = self.local.pin();
        let _checked = self.table.pin(&guard);
        RawWalk {
            table: &self.table,
            guard,
        }
    }
}

impl RawWalk<'_> {
    /// The content of the entry of `at`.
    #[inline]
    pub fn pte(&self, at: Vpn) -> Pte {
        let leaf = self.table.leaf(at, self.table.checked(&self.guard));
        leaf.map_or(Pte::None, |leaf| leaf.peek(at).into())
    }
}

impl std::fmt::Debug for RawTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RawTable").finish_non_exhaustive()
    }
}
impl std::fmt::Debug for RawWalk<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RawWalk").finish_non_exhaustive()
    }
}
