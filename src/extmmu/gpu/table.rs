//! The page table of a GPU: entries of 4 KiB and of 2 MiB, none of which overlap.

use crate::{
    addr::{Vpn, VpnRange},
    notifier::{RemovedEntries, ShadowEntry, ShadowStore},
};
use std::collections::BTreeMap;

/// The entries, by their first page.
#[derive(Debug, Default)]
pub(super) struct PageTable(BTreeMap<Vpn, ShadowEntry>);

impl PageTable {
    /// Returns the number of entries.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
    /// Returns true if an entry has a page in `range`.
    pub(super) fn has(&self, range: VpnRange) -> bool {
        self.within(range).next().is_some()
    }
    /// Returns the entries with a page in `range`, by their first page.
    fn within(&self, range: VpnRange) -> impl Iterator<Item = (&Vpn, &ShadowEntry)> {
        // No two overlap, so one alone that begins before the range can reach into it.
        let before = self.0.range(..range.start()).next_back();
        let before = before.filter(|(_, entry)| entry.range().overlaps(range));
        let inside = self.0.range(range.start()..range.end());
        before.into_iter().chain(inside)
    }
}

impl ShadowStore for PageTable {
    /// A page: the key of the entry that has it, of either size.
    type Key = Vpn;

    fn insert(&mut self, _at: Vpn, entry: ShadowEntry) -> RemovedEntries {
        let mut gone = RemovedEntries::new();
        self.remove_range(entry.range(), &mut gone);
        self.0.insert(entry.vpn(), entry);
        gone
    }
    fn get(&self, at: &Vpn) -> Option<&ShadowEntry> {
        let (_, entry) = self.0.range(..=at).next_back()?;
        Some(entry).filter(|entry| entry.range().contains(*at))
    }
    fn remove(&mut self, at: &Vpn) -> Option<ShadowEntry> {
        let first = self.get(at)?.vpn();
        self.0.remove(&first)
    }
    fn remove_range(&mut self, range: VpnRange, gone: &mut RemovedEntries) {
        let firsts: Vec<Vpn> = self.within(range).map(|(first, _)| *first).collect();
        gone.extend(firsts.iter().filter_map(|first| self.0.remove(first)));
    }
    fn for_each(&self, visit: &mut dyn FnMut(&ShadowEntry)) {
        self.0.values().for_each(visit);
    }
    fn for_each_in(&self, range: VpnRange, visit: &mut dyn FnMut(&ShadowEntry)) {
        self.within(range).for_each(|(_, entry)| visit(entry));
    }
}
