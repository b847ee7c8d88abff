//! Sharing leaves between address spaces: fork without copying tables (Zhao et al.,
//! "On-demand-fork", EuroSys 2021).
//!
//! [`PageTable::share`] links a leaf into a second table, [`PageTable::leave`] and
//! [`PageTable::give_up_shared`] take it out of one. Reading and locking a shared leaf is in
//! [`slot`](super::slot), the reasons in `docs/adr/0014-a-shared-table-is-marked-in-its-slots.md`.

use super::{
    index::slot,
    node::{Marks, Pin},
    slot::LeafAt,
    table::PageTable,
};
use crate::{
    addr::{PMD_PAGES, Vpn, VpnRange},
    error::NoMemory,
    mm::entry::{pte::RawPte, release::drop_entry_to},
    notifier::Flushed,
};

impl PageTable {
    /// Links a leaf of another table, found at `at` there, at the same place here, to be shared
    /// from now on.
    ///
    /// Returns false if it cannot be shared: a leaf is here already, the other one maps a huge
    /// page, or it was taken out or changed hands meanwhile.
    pub(in crate::mm) fn share(
        &self,
        at: Vpn,
        leaf: LeafAt<'_>,
        pin: Pin<'_>,
    ) -> Result<bool, NoMemory> {
        let pmd = self.make_pmd(at, pin)?;
        if pmd.has(slot(at, PMD_PAGES)) {
            return Ok(false);
        }
        let mut locked = leaf.seen.leaf.lock();
        if !leaf.is_still_there() || locked.is_huge() {
            return Ok(false);
        }
        self.take_table()?;
        if !leaf.is_shared() && !leaf.pmd.remark(leaf.i, leaf.seen, Marks::SHARED) {
            self.give_tables(1);
            return Ok(false);
        }
        let sharers = locked.sharers();
        sharers.tables += 1;
        sharers.forked = true;
        pmd.join(slot(at, PMD_PAGES), leaf.seen);
        Ok(true)
    }
    /// Takes a shared leaf out of this table; other tables keep it. `flush` flushes the pages of
    /// the leaf once it is out; then `gone` gets each entry that was counted for this table.
    ///
    /// Returns false, and changes nothing, if no other table has the leaf.
    pub(in crate::mm) fn leave<'f>(
        &self,
        leaf: LeafAt<'_>,
        flush: impl FnOnce() -> Flushed<'f>,
        mut gone: impl FnMut(RawPte, Flushed<'f>),
    ) -> bool {
        if !leaf.is_shared() {
            return false;
        }
        let mut locked = leaf.seen.leaf.lock();
        if locked.sharers().tables == 1 || !leaf.pmd.leave(leaf.i, leaf.seen, None) {
            return false;
        }
        let flushed = flush();
        if locked.sharers().counted == locked.sharers().tables {
            locked.change_all(|pte| {
                gone(pte, flushed);
                pte
            });
            locked.sharers().counted -= 1;
        }
        locked.sharers().tables -= 1;
        self.give_tables(1);
        true
    }
    /// Takes a shared leaf out of this table and gives up the contents of its entries, so that it
    /// is not copied only to be emptied.
    ///
    /// Returns false, and changes nothing, if no other table has the leaf or if `part` is not all
    /// of it.
    pub(in crate::mm) fn give_up_shared<'f>(
        &self,
        part: VpnRange,
        leaf: LeafAt<'_>,
        flush: impl FnOnce() -> Flushed<'f>,
    ) -> bool {
        if part.pages() != PMD_PAGES {
            return false;
        }
        let mut retired = self.mem.retired();
        self.leave(leaf, flush, |pte, flushed| {
            drop_entry_to(&mut retired, pte, flushed);
        })
    }
}
