//! Moving whole table pages to another address, as `mremap` does where both addresses are aligned.

use super::{
    index::slot,
    node::Pin,
    table::{PageTable, Tables},
};
use crate::{
    addr::{PMD_PAGES, PUD_PAGES, Vpn, VpnRange},
    ctx::{Context, Cx, Rank},
    error::NoMemory,
};

impl PageTable {
    /// Returns true if the entries of `from` go to `to` in one step, all or none: as one entry of
    /// the third level, or between two leaves. Until then no table is made above `to`.
    pub(in crate::mm) fn moves_at_once<R: Rank, C: Context>(
        &self,
        from: VpnRange,
        to: VpnRange,
        cx: &mut Cx<'_, R, C>,
    ) -> bool {
        let ranges = [from, to];
        let in_one_leaf = |range: &VpnRange| VpnRange::block_of(range.start()).covers(*range);
        let is_gib =
            |range: &VpnRange| range.pages() == PUD_PAGES && range.start().is_aligned(PUD_PAGES);
        ranges.iter().all(in_one_leaf)
            || ranges.iter().all(is_gib) && self.above(to, cx) != Tables::Middle
    }
    /// Moves 1 GiB by its one third-level entry; both addresses are multiples of 1 GiB
    /// (`move_normal_pud`).
    ///
    /// Returns false if the source has no such table or the target has one already: the move must
    /// be done at a lower level. The table above the target is made in any case.
    pub(in crate::mm) fn move_pud(
        &self,
        from: Vpn,
        to: Vpn,
        pin: Pin<'_>,
    ) -> Result<bool, NoMemory> {
        let target = self.make_pud(to, pin)?;
        let Some(source) = self.third(from, pin) else {
            return Ok(false);
        };
        if target.has(slot(to, PUD_PAGES)) {
            return Ok(false);
        }
        match source.take(slot(from, PUD_PAGES)) {
            Some(pmd) => target.put(slot(to, PUD_PAGES), pmd),
            None => return Ok(false),
        }
        Ok(true)
    }
    /// Moves 2 MiB by its one second-level entry; both addresses are multiples of 2 MiB
    /// (`move_normal_pmd`).
    ///
    /// Returns false as [`move_pud`](Self::move_pud) does. The table above the target is made in
    /// any case.
    pub(in crate::mm) fn move_pmd(
        &self,
        from: Vpn,
        to: Vpn,
        pin: Pin<'_>,
    ) -> Result<bool, NoMemory> {
        let target = self.make_pmd(to, pin)?;
        let Some(source) = self.pmd(from, pin) else {
            return Ok(false);
        };
        if target.has(slot(to, PMD_PAGES)) {
            return Ok(false);
        }
        match source.take(slot(from, PMD_PAGES)) {
            Some(leaf) => target.put(slot(to, PMD_PAGES), leaf),
            None => return Ok(false),
        }
        Ok(true)
    }
}
