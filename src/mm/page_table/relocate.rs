//! Moving whole table pages to another address, as `mremap` does where both sides are aligned.

use super::{PageTable, Pin, slot};
use crate::{
    addr::{PMD_PAGES, PUD_PAGES, Vpn},
    error::NoMemory,
};

impl PageTable {
    /// Moves 1 GiB by its one entry (`move_normal_pud`): both addresses are multiples of it. `false`: the target has
    /// tables already, so it must be done at a lower level. Makes the level above the target either way.
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
    /// Moves 2 MiB by its one entry (`move_normal_pmd`), under the same terms.
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
