//! `mseal`: final places and rights.

use super::{
    Reference,
    outcome::{Came, DONE, Step, errno, must},
    page::{PAGE, Page, pages},
};
use crate::mm::{Advice, Prot};
use std::ops::Range;

impl Page {
    /// Returns true if the page is sealed, no store could change it, and the advice would discard
    /// it.
    pub(super) fn keeps_from(&self, advice: Advice) -> bool {
        let loses = matches!(
            advice,
            Advice::Free
                | Advice::DontNeed
                | Advice::DontNeedLocked
                | Advice::DontFork
                | Advice::WipeOnFork
                | Advice::GuardInstall
        );
        self.sealed && loses && self.object.is_none() && !self.prot.contains(Prot::WRITE)
    }
}

impl Reference {
    /// Returns true if any of these pages is sealed.
    pub(super) fn is_sealed(&self, process: u32, range: &Range<u64>) -> bool {
        let mut seen = self.processes[&process].range(range.clone());
        seen.any(|(_, page)| page.sealed)
    }
    /// `mseal` of a range: all of its pages, or none if the range has a hole.
    pub(super) fn seal(&mut self, actor: u32, (addr, len): (u64, u64), came: Came<'_>) -> Step {
        let end = len
            .checked_next_multiple_of(PAGE)
            .and_then(|len| addr.checked_add(len));
        if end.is_none() || !addr.is_multiple_of(PAGE) {
            return must(&errno("EINVAL"), came);
        }
        if len == 0 {
            return must(&DONE, came);
        }
        let Some(range) = pages(addr, len) else {
            return self.odd(came);
        };
        let all = self.pages_of(actor);
        if !range.clone().all(|n| all.contains_key(&n)) {
            return must(&errno("ENOMEM"), came);
        }
        for (_, page) in all.range_mut(range) {
            page.sealed = true;
        }
        must(&DONE, came)
    }
}
