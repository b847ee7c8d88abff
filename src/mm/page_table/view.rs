//! [`TableView`]: a page table, and the epoch pin under which it is walked.

use super::{node::Pin, slot::LeafAt, table::PageTable};
use crate::{
    addr::{Vpn, VpnRange},
    ctx::{Context, Cx, Pinned, Rank},
    error::NoMemory,
};

/// A page table under an epoch pin: no table page that was reachable when it was taken is freed
/// while the view lives. Entries and tables may change meanwhile.
pub(in crate::mm) struct TableView<'t, R: Rank> {
    table: &'t PageTable,
    pinned: Pinned<'t, R>,
}

impl PageTable {
    /// Pins the table for walks. The thread may not sleep while the view lives.
    ///
    /// # Panics
    ///
    /// If the token is of another machine's epoch.
    // Always: every look at an entry begins here.
    #[inline(always)]
    pub(in crate::mm) fn view<'t, R: Rank, C: Context>(
        &'t self,
        cx: &'t mut Cx<'_, R, C>,
    ) -> TableView<'t, R> {
        let pinned = cx.pin();
        // Checked once here instead of at every walk.
        let _of_this_machine = self.pin(pinned.guard());
        TableView {
            table: self,
            pinned,
        }
    }
}

impl<R: Rank> TableView<'_, R> {
    /// Returns the pin, which holds for other tables of the machine as well.
    #[inline]
    pub(in crate::mm) fn pin(&self) -> Pin<'_> {
        self.table.checked(self.pinned.guard())
    }
    /// See [`PageTable::leaf`].
    #[inline]
    pub(in crate::mm) fn leaf(&self, at: Vpn) -> Option<LeafAt<'_>> {
        self.table.leaf(at, self.pin())
    }
    /// See [`PageTable::make_leaf`].
    #[inline]
    pub(in crate::mm) fn make_leaf(&self, at: Vpn) -> Result<LeafAt<'_>, NoMemory> {
        self.table.make_leaf(at, self.pin())
    }
    /// See [`PageTable::has_pud`].
    pub(in crate::mm) fn has_pud(&self, at: Vpn) -> bool {
        self.table.has_pud(at, self.pin())
    }
    /// See [`PageTable::has_pmd`].
    pub(in crate::mm) fn has_pmd(&self, at: Vpn) -> bool {
        self.table.has_pmd(at, self.pin())
    }
    /// See [`PageTable::first_pmd`].
    pub(in crate::mm) fn first_pmd(&self, range: VpnRange) -> Option<Vpn> {
        self.table.first_pmd(range, self.pin())
    }
    /// See [`PageTable::leaves`].
    pub(in crate::mm) fn leaves<E>(
        &self,
        range: VpnRange,
        visit: impl FnMut(VpnRange, LeafAt<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.table.leaves(range, self.pin(), visit)
    }
    /// See [`PageTable::for_each_leaf`].
    pub(in crate::mm) fn for_each_leaf(
        &self,
        range: VpnRange,
        visit: impl FnMut(VpnRange, LeafAt<'_>),
    ) {
        self.table.for_each_leaf(range, self.pin(), visit);
    }
}
