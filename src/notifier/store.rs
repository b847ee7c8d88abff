//! Where a driver keeps its shadow entries: any structure behind a small trait.

use super::{removed::RemovedEntries, shadow_entry::ShadowEntry};
use crate::addr::{PMD_PAGES, Vpn, VpnRange};
use smallvec::SmallVec;
use std::collections::BTreeMap;

/// A driver's structure of shadow entries: a hash map, a radix tree, a TLB of fixed size.
///
/// The gate owns the store and calls it under its lock; nobody else gets at it but to look ([`GateGuard::store`]), so no
/// entry leaves it but into the gate's hands. Entries that leave are handed back, since the gate passes their dirty bits on
/// and gives up their references. The gate counts what comes and what goes.
///
/// What a store says is checked, with a panic:
///
/// * always: an entry that it shows, or hands back, is one of this registration, and no more come back than went in;
/// * with debug assertions: after it was told to forget a range it has no entry of it, and shows as many as there are by
///   the gate's count; an entry that it gives for a key is one of those that it shows.
///
/// [`GateGuard::store`]: super::GateGuard::store
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no store of shadow entries",
    label = "a gate must be able to remove the entries of a range from what is inside",
    note = "use `OrderedStore`, or `NoStore` for a device that has TLBs only, or implement `ShadowStore`"
)]
pub trait ShadowStore {
    /// What an entry is found by: a guest frame number, an address and a context, ….
    type Key;
    /// Keeps `entry` under `key`; returns what had to go for it.
    fn insert(&mut self, key: Self::Key, entry: ShadowEntry) -> RemovedEntries;
    /// The entry under `key`.
    fn get(&self, key: &Self::Key) -> Option<&ShadowEntry>;
    /// Forgets the entry under `key`.
    fn remove(&mut self, key: &Self::Key) -> Option<ShadowEntry>;
    /// Forgets every entry with a page in `range`.
    fn remove_range(&mut self, range: VpnRange, gone: &mut RemovedEntries);
    /// Shows every entry: what an audit looks at.
    fn for_each(&self, visit: &mut dyn FnMut(&ShadowEntry));
    /// Shows those with a page in `range`. The default looks at all.
    fn for_each_in(&self, range: VpnRange, visit: &mut dyn FnMut(&ShadowEntry)) {
        self.for_each(&mut |e| {
            if e.range().overlaps(range) {
                visit(e);
            }
        });
    }
}

/// A store that changes in a way of its own: its keys get another meaning, or it another size.
/// [`GateGuard::rearrange`](super::GateGuard::rearrange) has it done.
///
/// Whoever wrote the store decides which ways there are: there is one implementation, and nobody adds one to the stores of
/// others.
pub trait Rearrange: ShadowStore {
    /// What is wanted.
    type How;
    /// Does it, and hands back the entries that have to go.
    fn rearrange(&mut self, how: Self::How, gone: &mut RemovedEntries);
}

/// The store of a driver that keeps no table: its translations are in TLBs.
#[derive(Debug, Default)]
pub struct NoStore;

impl ShadowStore for NoStore {
    type Key = std::convert::Infallible;
    fn insert(&mut self, key: Self::Key, _entry: ShadowEntry) -> RemovedEntries {
        match key {}
    }
    fn get(&self, key: &Self::Key) -> Option<&ShadowEntry> {
        match *key {}
    }
    fn remove(&mut self, key: &Self::Key) -> Option<ShadowEntry> {
        match *key {}
    }
    fn remove_range(&mut self, _range: VpnRange, _gone: &mut RemovedEntries) {}
    fn for_each(&self, _visit: &mut dyn FnMut(&ShadowEntry)) {}
}

/// Entries in order of their key, and a second index by page, so that dropping a range costs what it holds.
#[derive(Debug)]
pub struct OrderedStore<K> {
    entries: BTreeMap<K, ShadowEntry>,
    by_page: BTreeMap<Vpn, SmallVec<[K; 1]>>,
}

impl<K> Default for OrderedStore<K> {
    fn default() -> Self {
        Self {
            entries: BTreeMap::new(),
            by_page: BTreeMap::new(),
        }
    }
}

impl<K: Ord> OrderedStore<K> {
    /// Keys of the entries with a page in `range`.
    fn keys_in(&self, range: VpnRange) -> impl Iterator<Item = &K> {
        // A huge page is filed under its first page, up to 511 before the range.
        let from = Vpn(range.start().0.saturating_sub(PMD_PAGES - 1));
        let near = self.by_page.range(from..range.end());
        let hit = move |key: &&K| {
            let entry = self.entries.get(*key);
            entry.is_some_and(|e| e.range().overlaps(range))
        };
        near.flat_map(|(_, keys)| keys).filter(hit)
    }
}

impl<K: Ord + Clone> ShadowStore for OrderedStore<K> {
    type Key = K;
    fn insert(&mut self, key: K, entry: ShadowEntry) -> RemovedEntries {
        let old = self.remove(&key);
        let keys = self.by_page.entry(entry.vpn()).or_default();
        keys.push(key.clone());
        self.entries.insert(key, entry);
        old.into_iter().collect()
    }
    fn get(&self, key: &K) -> Option<&ShadowEntry> {
        self.entries.get(key)
    }
    fn remove(&mut self, key: &K) -> Option<ShadowEntry> {
        let old = self.entries.remove(key)?;
        if let Some(keys) = self.by_page.get_mut(&old.vpn()) {
            keys.retain(|k| k != key);
            if keys.is_empty() {
                self.by_page.remove(&old.vpn());
            }
        }
        Some(old)
    }
    fn remove_range(&mut self, range: VpnRange, gone: &mut RemovedEntries) {
        if self.entries.is_empty() {
            return;
        }
        let keys: SmallVec<[K; 4]> = self.keys_in(range).cloned().collect();
        for key in keys {
            gone.extend(self.remove(&key));
        }
    }
    fn for_each(&self, visit: &mut dyn FnMut(&ShadowEntry)) {
        self.entries.values().for_each(visit);
    }
    fn for_each_in(&self, range: VpnRange, visit: &mut dyn FnMut(&ShadowEntry)) {
        for key in self.keys_in(range) {
            self.entries.get(key).into_iter().for_each(&mut *visit);
        }
    }
}
