//! Entries on their way from a store to its gate.

use super::{
    shadow_entry::ShadowEntry,
    translation::{RegTag, Translation},
};
use smallvec::SmallVec;

/// Entries that a store removes and hands to its gate.
///
/// A store puts entries in; only the gate takes them out. So an entry that has left a gate cannot
/// come back to it, nor to another gate.
#[derive(Debug, Default)]
pub struct RemovedEntries(SmallVec<[ShadowEntry; 4]>);

impl RemovedEntries {
    /// Makes an empty list.
    pub fn new() -> Self {
        Self::default()
    }
    /// Adds an entry.
    pub fn push(&mut self, entry: ShadowEntry) {
        self.0.push(entry);
    }
    /// Reserves room for `more` entries.
    pub fn reserve(&mut self, more: usize) {
        self.0.reserve(more);
    }
    /// Returns the number of entries.
    pub fn len(&self) -> usize {
        self.0.len()
    }
    /// Returns true if there is no entry.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    /// Returns the entries, for reading.
    #[inline]
    pub fn entries(&self) -> &[ShadowEntry] {
        &self.0
    }
    /// Takes the references from the entries of this registration, and returns the translations of
    /// those that had one: the caller gives them up. An entry that a store had from elsewhere may
    /// be of another machine.
    #[inline]
    pub(super) fn take_references(&mut self, tag: RegTag) -> impl Iterator<Item = Translation> {
        let own = move |e: &&mut ShadowEntry| e.is_held() && e.tag() == tag;
        self.0.iter_mut().filter(own).map(|entry| {
            entry.take_reference();
            entry.translation()
        })
    }
    /// Takes the last entry out, for the store that put it in.
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
