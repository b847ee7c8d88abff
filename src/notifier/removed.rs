//! Entries on their way from a store to its gate.

use super::shadow_entry::ShadowEntry;
use smallvec::SmallVec;

/// Entries on their way out of a store, to its gate. A store puts them in; the gate alone gets them out, so that what has
/// left a gate cannot come back to it, nor to another.
#[derive(Debug, Default)]
pub struct RemovedEntries(SmallVec<[ShadowEntry; 4]>);

impl RemovedEntries {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }
    /// One more.
    pub fn push(&mut self, entry: ShadowEntry) {
        self.0.push(entry);
    }
    /// Makes room for `more`.
    pub fn reserve(&mut self, more: usize) {
        self.0.reserve(more);
    }
    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    /// The entries, to look at.
    #[inline]
    pub fn entries(&self) -> &[ShadowEntry] {
        &self.0
    }
    /// The entries, for the gate.
    #[inline]
    pub(super) fn entries_mut(&mut self) -> &mut [ShadowEntry] {
        &mut self.0
    }
    /// Gives the last one back to the store.
    pub(crate) fn pop(&mut self) -> Option<ShadowEntry> {
        self.0.pop()
    }
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

impl Extend<ShadowEntry> for RemovedEntries {
    fn extend<I: IntoIterator<Item = ShadowEntry>>(&mut self, entries: I) {
        self.0.extend(entries);
    }
}

impl FromIterator<ShadowEntry> for RemovedEntries {
    fn from_iter<I: IntoIterator<Item = ShadowEntry>>(entries: I) -> Self {
        Self(entries.into_iter().collect())
    }
}
