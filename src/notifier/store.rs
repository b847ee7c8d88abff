//! Where a driver keeps its shadow entries: any structure behind a small trait.

use crate::addr::{Pfn, Vpn, VpnRange};
use smallvec::SmallVec;
use std::collections::BTreeMap;

/// One established translation. Made only by a [`Permit`](super::Permit), and readable only through the gate that
/// holds the store.
#[derive(Debug)]
pub struct ShadowEntry {
    vpn: Vpn,
    pfn: Pfn,
    pub(super) generation: u32,
    writable: bool,
}

impl ShadowEntry {
    pub(super) fn new(vpn: Vpn, pfn: Pfn, generation: u32, writable: bool) -> Self {
        Self {
            vpn,
            pfn,
            generation,
            writable,
        }
    }
    /// The page that it translates.
    pub fn vpn(&self) -> Vpn {
        self.vpn
    }
    /// The frame that it leads to.
    pub fn pfn(&self) -> Pfn {
        self.pfn
    }
    /// Whether it may be written through.
    pub fn is_writable(&self) -> bool {
        self.writable
    }
}

/// A driver's structure of shadow entries: a hash map, a radix tree, a TLB of fixed size.
///
/// The gate owns the store and calls it under its lock. A store may forget entries at any time, as a TLB does; it must
/// forget those of a range when told so, which the gate checks in builds with debug assertions.
pub trait ShadowStore {
    /// What an entry is found by: a guest frame number, an address and a context, ….
    type Key;
    /// Keeps `entry` under `key`, instead of what was there.
    fn insert(&mut self, key: Self::Key, entry: ShadowEntry);
    /// The entry under `key`.
    fn get(&self, key: &Self::Key) -> Option<&ShadowEntry>;
    /// Forgets the entry under `key`.
    fn remove(&mut self, key: &Self::Key);
    /// Forgets every entry of a page in `range`.
    fn remove_range(&mut self, range: VpnRange);
    /// Shows every entry that could be used now: what an audit looks at.
    fn for_each(&self, visit: &mut dyn FnMut(&ShadowEntry));
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

impl<K: Ord + Clone> ShadowStore for OrderedStore<K> {
    type Key = K;
    fn insert(&mut self, key: K, entry: ShadowEntry) {
        self.remove(&key);
        let keys = self.by_page.entry(entry.vpn).or_default();
        keys.push(key.clone());
        self.entries.insert(key, entry);
    }
    fn get(&self, key: &K) -> Option<&ShadowEntry> {
        self.entries.get(key)
    }
    fn remove(&mut self, key: &K) {
        let Some(old) = self.entries.remove(key) else {
            return;
        };
        if let Some(keys) = self.by_page.get_mut(&old.vpn) {
            keys.retain(|k| k != key);
            if keys.is_empty() {
                self.by_page.remove(&old.vpn);
            }
        }
    }
    fn remove_range(&mut self, range: VpnRange) {
        let pages = self.by_page.range(range.start()..range.end());
        let hit: Vec<Vpn> = pages.map(|(page, _)| *page).collect();
        for key in hit
            .iter()
            .filter_map(|page| self.by_page.remove(page))
            .flatten()
        {
            self.entries.remove(&key);
        }
    }
    fn for_each(&self, visit: &mut dyn FnMut(&ShadowEntry)) {
        self.entries.values().for_each(visit);
    }
}
