//! The order of calls that overlapped in time.
//!
//! Events come in the order of the latest times of their effects. A call that other threads' lines
//! cut in two may have happened earlier; a callback decides, since recorded results prove the
//! order.

use super::event::{ProgramEvent, What};

/// The events in the order of their effects.
pub(super) struct Order<'e> {
    events: &'e [ProgramEvent],
    next: usize,
    /// Indices of the calls that overlapped the ends of others, ascending.
    split: Vec<usize>,
    /// All split calls before this index have been returned.
    first_split: usize,
    done: Vec<bool>,
}

impl<'e> Order<'e> {
    pub(super) fn new(events: &'e [ProgramEvent]) -> Self {
        let is_split = |e: &ProgramEvent| e.start < e.at && matches!(e.what, What::Call { .. });
        let split = (0..events.len()).filter(|&n| events.get(n).is_some_and(is_split));
        Self {
            events,
            next: 0,
            split: split.collect(),
            first_split: 0,
            done: vec![false; events.len()],
        }
    }
    /// Returns the next event; `precedes` returns true if an event that ends later must come before
    /// the one that is due.
    pub(super) fn next(
        &mut self,
        mut precedes: impl FnMut(&ProgramEvent, &ProgramEvent) -> bool,
    ) -> Option<&'e ProgramEvent> {
        while self.done.get(self.next) == Some(&true) {
            self.next += 1;
        }
        let due = self.events.get(self.next)?;
        let mut chosen = self.next;
        if matches!(due.what, What::Call { .. }) {
            chosen = self.earlier(due, &mut precedes).unwrap_or(chosen);
        }
        *self.done.get_mut(chosen)? = true;
        self.events.get(chosen)
    }
    fn earlier(
        &mut self,
        due: &ProgramEvent,
        precedes: &mut impl FnMut(&ProgramEvent, &ProgramEvent) -> bool,
    ) -> Option<usize> {
        while self
            .split
            .get(self.first_split)
            .is_some_and(|&n| n < self.next)
        {
            self.first_split += 1;
        }
        /// A call overlaps at most as many others as there are threads; a few more do no harm.
        const FAR: usize = 64;
        let ahead = self.split.iter().skip(self.first_split).take(FAR).copied();
        let mut under_way = ahead.filter(|&n| n != self.next && self.done.get(n) == Some(&false));
        under_way.find(|&n| {
            let other = self.events.get(n);
            other.is_some_and(|e| e.start < due.at && e.tid != due.tid && precedes(e, due))
        })
    }
}
