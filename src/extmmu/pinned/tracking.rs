//! The dirty bits of a domain's leaves.

use std::{collections::BTreeMap, ops::Range};

/// The dirty bits of the leaves of a domain.
#[derive(Debug, Default)]
pub(super) struct Tracking {
    /// The leaves that have been written, by their first pages, with their lengths.
    dirty: BTreeMap<u64, u64>,
}

impl Tracking {
    /// Sets the bit of a leaf.
    pub(super) fn set(&mut self, (first, pages): (u64, u64)) {
        self.dirty.insert(first, pages);
    }
    /// Clears the bits of the leaves that lie wholly among these pages. The bit of a leaf that
    /// lies there in part stays: it also speaks for the rest.
    pub(super) fn clear(&mut self, pages: Range<u64>) {
        self.dirty
            .retain(|&first, &mut len| first < pages.start || first + len > pages.end);
    }
    /// The pages of dirty leaves among these.
    pub(super) fn pages(&self, pages: Range<u64>) -> impl Iterator<Item = u64> {
        let (start, end) = (pages.start, pages.end);
        self.dirty
            .iter()
            .flat_map(|(&first, &len)| first..first + len)
            .filter(move |page| (start..end).contains(page))
    }
}
