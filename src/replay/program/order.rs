//! The order of calls that overlapped in time.
//!
//! Events come by the time at which they took effect at the latest. A call that other threads'
//! lines cut in two may have been done earlier; the one who follows is asked, since results prove
//! it.

use super::event::{Event, What};

/// Hands out events.
pub(super) struct Order<'e> {
    events: &'e [Event],
    next: usize,
    /// Calls that have begun before others ended: their places, ascending.
    split: Vec<usize>,
    /// Split calls before this one in the list have been handed out, one and all.
    first_split: usize,
    done: Vec<bool>,
}

impl<'e> Order<'e> {
    pub(super) fn new(events: &'e [Event]) -> Self {
        let is_split = |e: &Event| e.start < e.at && matches!(e.what, What::Call { .. });
        let split = (0..events.len()).filter(|&n| events.get(n).is_some_and(is_split));
        Self {
            events,
            next: 0,
            split: split.collect(),
            first_split: 0,
            done: vec![false; events.len()],
        }
    }
    /// The next event; `precedes` says whether one that ends later must come before the one that is
    /// due.
    pub(super) fn next(
        &mut self,
        mut precedes: impl FnMut(&Event, &Event) -> bool,
    ) -> Option<&'e Event> {
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
        due: &Event,
        precedes: &mut impl FnMut(&Event, &Event) -> bool,
    ) -> Option<usize> {
        while self
            .split
            .get(self.first_split)
            .is_some_and(|&n| n < self.next)
        {
            self.first_split += 1;
        }
        /// Calls under way at a time are as many as threads; a few more do no harm.
        const FAR: usize = 64;
        let ahead = self.split.iter().skip(self.first_split).take(FAR).copied();
        let mut under_way = ahead.filter(|&n| n != self.next && self.done.get(n) == Some(&false));
        under_way.find(|&n| {
            let other = self.events.get(n);
            other.is_some_and(|e| e.start < due.at && e.tid != due.tid && precedes(e, due))
        })
    }
}
