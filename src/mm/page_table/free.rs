//! Freeing table pages that no VMA needs any more.
//!
//! Linux frees tables by the bounds of the neighbouring VMAs, not by emptiness, and so does this:
//! which tables exist is visible (`docs/adr/0004-windows-show-tables.md`). A freed table is
//! unlinked first and destroyed when every pin of that moment has ended.

use super::{
    index::{ENTRIES, slot},
    node::{Pin, Pmd, Pud, Taken},
    table::PageTable,
};
use crate::addr::{PGD_PAGES, PMD_PAGES, PUD_PAGES, Vpn, VpnRange};

/// End and start of the neighbouring VMAs: a table that reaches past these bounds is still in use.
#[derive(Clone, Copy, Debug)]
pub(in crate::mm) struct Bounds {
    /// End of the VMA below; page 0 if there is none.
    pub(in crate::mm) floor: Vpn,
    /// Start of the VMA above; `None` if there is none.
    pub(in crate::mm) ceiling: Option<Vpn>,
}

impl Bounds {
    /// Rounds `range` outwards to tables of `span` pages, without those that reach past the bounds:
    /// the tables that may be freed at this level.
    fn tables(self, range: VpnRange, span: u64) -> Option<VpnRange> {
        let mut start = range.start().align_down(span);
        if start < self.floor {
            start = start.plus(span);
        }
        let mut end = range.end().align_up(span);
        if self.ceiling.is_some_and(|ceiling| end > ceiling) {
            end = Vpn(end.0 - span);
        }
        VpnRange::new(start, end)
    }
}

impl PageTable {
    /// Frees the tables that only `range` needed, whose entries are gone already
    /// (`free_pgd_range`).
    ///
    /// Each level rounds the range outwards, and keeps a table that a neighbouring VMA reaches
    /// into.
    pub(in crate::mm) fn free_range(&self, range: VpnRange, bounds: Bounds, pin: Pin<'_>) {
        let Some(range) = bounds.tables(range, PMD_PAGES) else {
            return;
        };
        each(range, PGD_PAGES, |part| {
            let i = slot(part.start(), PGD_PAGES);
            let Some(pud) = self.third(part.start(), pin) else {
                return;
            };
            self.free_pud(pud, part, bounds, pin);
            if bounds.tables(part, PGD_PAGES).is_some()
                && let Some(pud) = self.root.take(i)
            {
                self.retire_pud(pud, pin);
            }
        });
    }
    fn free_pud(&self, pud: &Pud, range: VpnRange, bounds: Bounds, pin: Pin<'_>) {
        each(range, PUD_PAGES, |part| {
            let i = slot(part.start(), PUD_PAGES);
            let Some(pmd) = pud.child(i, pin) else {
                return;
            };
            self.free_pmd(pmd, part, pin);
            if bounds.tables(part, PUD_PAGES).is_some()
                && let Some(pmd) = pud.take(i)
            {
                self.retire_pmd(pmd, pin);
            }
        });
    }
    fn free_pmd(&self, pmd: &Pmd, range: VpnRange, pin: Pin<'_>) {
        each(range, PMD_PAGES, |part| {
            if let Some(leaf) = pmd.take(slot(part.start(), PMD_PAGES)) {
                self.give_tables(1);
                leaf.retire(pin);
            }
        });
    }
    fn retire_pmd(&self, pmd: Taken<Pmd>, pin: Pin<'_>) {
        self.give_tables(1 + pmd.page().len());
        pmd.retire(pin);
    }
    fn retire_pud(&self, pud: Taken<Pud>, pin: Pin<'_>) {
        let below: usize = (0..ENTRIES)
            .filter_map(|i| pud.page().child(i, pin))
            .map(|pmd| 1 + pmd.len())
            .sum();
        self.give_tables(1 + below);
        pud.retire(pin);
    }

    /// Frees the leaf of `at` if it has no entry left (`try_to_free_pte`, for a large
    /// `MADV_DONTNEED`).
    pub(in crate::mm) fn free_if_empty(&self, at: Vpn, pin: Pin<'_>) {
        let Some(pmd) = self.pmd(at, pin) else {
            return;
        };
        let i = slot(at, PMD_PAGES);
        // Two threads may empty it, and one frees it: the slot may have another leaf by now. A
        // shared leaf is skipped: it was not empty when it was last looked at.
        let Some(leaf) = pmd.seen(i, pin).filter(|seen| !seen.marks().is_shared()) else {
            return;
        };
        let locked = leaf.leaf.lock();
        if pmd.has_still(i, leaf)
            && locked.is_empty()
            && let Some(leaf) = pmd.take(i)
        {
            self.give_tables(1);
            drop(locked);
            leaf.retire(pin);
        }
    }

    /// Frees every table below the root (`exit_mmap`).
    pub(in crate::mm) fn free_all(&self, pin: Pin<'_>) {
        each(VpnRange::TASK, PGD_PAGES, |part| {
            if let Some(pud) = self.root.take(slot(part.start(), PGD_PAGES)) {
                self.retire_pud(pud, pin);
            }
        });
    }
}

/// Calls `f` with the pieces of `range` between multiples of `span`.
fn each(range: VpnRange, span: u64, mut f: impl FnMut(VpnRange)) {
    let mut at = range.start();
    while at < range.end() {
        let next = at.align_down(span).plus(span).min(range.end());
        f(VpnRange::new(at, next).expect("next lies above at"));
        at = next;
    }
}
