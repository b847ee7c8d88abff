//! Locks: the pages with a lock, and the refusals that follow.
//!
//! A lock brings pages in. That changes no byte of private memory and of shared objects. A private
//! page of a file becomes a copy of the file at a moment that the model does not know in all cases:
//! from then on the model is lost.

use super::{
    Reference,
    outcome::{Came, DONE, Step, errno, must, whole},
    page::{PAGE, Page},
};
use crate::{mm::Advice, replay::Op};
use std::ops::Range;

/// Returns the pages that a range of bytes touches, whole or in part; none if the range wraps. The
/// rounding may wrap to nothing.
fn touched(addr: u64, len: u64) -> Option<Range<u64>> {
    let first = addr / PAGE;
    let bytes = len.wrapping_add(addr % PAGE).wrapping_add(PAGE - 1);
    let n = bytes / PAGE;
    (first * PAGE).checked_add(n * PAGE)?;
    Some(first..first + n)
}

impl Page {
    /// Returns true if the page is locked and the advice would discard it.
    pub(super) fn stays_in(&self, advice: Advice) -> bool {
        let goes = matches!(
            advice,
            Advice::DontNeed | Advice::Free | Advice::Cold | Advice::PageOut | Advice::GuardInstall
        );
        self.locked && goes
    }
}

impl Reference {
    pub(super) fn lock(&mut self, actor: u32, op: &Op, came: Came<'_>) -> Step {
        match *op {
            Op::Mlock2 { flags, .. } if flags > 1 => must(&errno("EINVAL"), came),
            Op::Mlock { addr, len } => self.lock_range(actor, touched(addr, len), true, came),
            Op::Mlock2 { addr, len, flags } => {
                self.lock_range(actor, touched(addr, len), flags == 0, came)
            }
            Op::Munlock { addr, len } => {
                let Some(range) = touched(addr, len) else {
                    return must(&errno("EINVAL"), came);
                };
                let end = self.end_of_mapped(actor, &range);
                for (_, page) in self.pages_of(actor).range_mut(range.start..end) {
                    page.locked = false;
                }
                must(&whole(end < range.end), came)
            }
            // Something now or from now on: 1, 2; only present pages of those: 4.
            Op::Mlockall { flags } if !matches!(flags, 1..=3 | 5..=7) => {
                must(&errno("EINVAL"), came)
            }
            Op::Mlockall { flags } => {
                match flags & 2 {
                    0 => self.locks_all.remove(&actor),
                    _ => self.locks_all.insert(actor),
                };
                if flags & 1 != 0 {
                    self.lock_pages(actor, 0..u64::MAX);
                }
                must(&DONE, came)
            }
            Op::Munlockall {} => {
                self.locks_all.remove(&actor);
                for page in self.pages_of(actor).values_mut() {
                    page.locked = false;
                }
                must(&DONE, came)
            }
            _ => unreachable!("the caller matched"),
        }
    }
    /// Returns the first unmapped page of a range, or its end.
    fn end_of_mapped(&self, process: u32, range: &Range<u64>) -> u64 {
        let seen = self.processes[&process].range(range.clone());
        let in_a_row = (range.start..)
            .zip(seen)
            .take_while(|(n, (at, _))| n == *at);
        range.start + in_a_row.count() as u64
    }
    /// Locks the pages before the first hole and brings them in if `brings_in` is set. A page that
    /// cannot come in counts as a hole.
    fn lock_range(
        &mut self,
        actor: u32,
        range: Option<Range<u64>>,
        brings_in: bool,
        came: Came<'_>,
    ) -> Step {
        let Some(range) = range else {
            return must(&errno("EINVAL"), came);
        };
        let end = self.end_of_mapped(actor, &range);
        self.lock_pages(actor, range.start..end);
        let mut missing = end < range.end;
        if brings_in && !missing {
            missing = range.into_iter().any(|n| {
                let page = &self.processes[&actor][&n];
                let write = !page.shared && page.allows(true);
                self.refusal(actor, n * PAGE, write).is_some()
            });
        }
        must(&whole(missing), came)
    }
    /// Locks the pages of a range that can be locked.
    pub(super) fn lock_pages(&mut self, process: u32, range: Range<u64>) {
        let all = self.processes.get_mut(&process).expect("it lives");
        for (_, page) in all.range_mut(range).filter(|(_, page)| !page.droppable) {
            page.locked = true;
            // The pages that come in now are unknown, and so are the objects' pages among them.
            self.resident = false;
            self.lost |= !page.shared && page.object.is_some();
        }
    }
}
