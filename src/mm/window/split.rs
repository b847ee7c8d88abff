//! Splitting the mapping of a huge page where a range ends inside it.
//!
//! The window of the operation may cover only a part of the 2 MiB. So the split opens a nested
//! window over all of them, as Linux does (`__split_huge_pmd`).

use super::InvalidationWindow;
use crate::mm::{entry::pte::RawPte, page_table::split_leaf};
use crate::{
    addr::{PMD_PAGES, Vpn, VpnRange},
    ctx::Sleepable,
    notifier::Event,
};

impl InvalidationWindow<'_, Sleepable> {
    /// Splits the mapping of each huge page that lies across an end of `range`, in a nested window.
    pub(in crate::mm) fn split_edges(&mut self, range: VpnRange) {
        for edge in [range.start(), range.end()] {
            if !edge.is_aligned(PMD_PAGES) {
                self.split_pmd(edge);
            }
        }
    }
    /// Splits the mapping of a huge page at `at`, if there is one, in a nested window
    /// (`split_huge_pmd`).
    pub(in crate::mm) fn split_pmd(&mut self, at: Vpn) {
        let mm = self.mm;
        if !mm.is_huge(&mut self.core.split().1, at) {
            return;
        }
        let block = VpnRange::block_of(at);
        let mut window = self.nested(block, Event::Clear);
        window.split_huge(at);
        window.close();
    }
    /// Splits the mapping of a huge page at `at`, if there is one, in this window, which covers it.
    pub(in crate::mm) fn split_huge(&mut self, at: Vpn) {
        let mem = self.mm.machine().mem();
        let block = VpnRange::block_of(at);
        let emptied = self.lock_ptes(at, |txn| {
            let emptied = split_leaf(mem, txn.leaf());
            if emptied {
                txn.remove(block, |_| Some(RawPte::NONE));
            }
            emptied
        });
        if emptied == Some(true) {
            self.free_empty_leaves(block);
        }
    }
}
