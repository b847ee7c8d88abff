//! Where a driver keeps its shadow entries: any structure behind a small trait.

use super::{cached::Translation, entry::Brand, gone::RemovedEntries};
use crate::{
    addr::{PMD_PAGES, Pfn, Vpn, VpnRange},
    sync::{AtomicU64, Ordering},
};
use smallvec::SmallVec;
use std::collections::BTreeMap;

/// One established translation. Made only by a [`Permit`](super::Permit), and readable only through the gate that
/// holds the store. Two words: tables of them are what a zap walks.
pub struct ShadowEntry {
    /// The number of the first page, and above it the bits below.
    word: AtomicU64,
    pfn: Pfn,
    generation: u32,
}

/// Page numbers of a process have 36 bits at the most.
const HUGE: u64 = 1 << 36;
const WRITABLE: u64 = 1 << 37;
/// A reference on each frame goes with the entry.
const PINNED: u64 = 1 << 38;
const ACCESSED: u64 = 1 << 39;
const DIRTY: u64 = 1 << 40;
// Above is the brand.
const _: () = assert!(DIRTY.trailing_zeros() + 1 + Brand::BITS == u64::BITS);

impl ShadowEntry {
    pub(super) fn new(translation: Translation, pinned: bool) -> Self {
        let Translation {
            range,
            pfn,
            generation,
            writable,
            brand,
        } = translation;
        debug_assert!(matches!(range.pages(), 1 | PMD_PAGES) && range.start().0 < HUGE);
        let bit = |is: bool, bit: u64| if is { bit } else { 0 };
        let bits = bit(range.pages() > 1, HUGE) | bit(writable, WRITABLE) | bit(pinned, PINNED);
        Self {
            word: AtomicU64::new(range.start().0 | bits | brand.word()),
            pfn,
            generation,
        }
    }
    /// Whose it is.
    #[inline]
    pub(super) fn brand(&self) -> Brand {
        Brand::of_word(self.word())
    }
    /// The reference is given up with something else than this entry.
    pub(super) fn let_go(&mut self) {
        self.word.fetch_and(!PINNED, Ordering::Relaxed);
    }
    #[inline]
    fn word(&self) -> u64 {
        self.word.load(Ordering::Relaxed)
    }
    #[inline]
    fn has(&self, bits: u64) -> bool {
        self.word() & bits != 0
    }
    #[inline]
    fn set(&self, bits: u64) {
        if self.word() & bits != bits {
            self.word.fetch_or(bits, Ordering::Relaxed);
        }
    }
    /// The page that it translates; the first one of a huge page.
    pub fn vpn(&self) -> Vpn {
        Vpn(self.word() & (HUGE - 1))
    }
    /// The pages that it translates: one, or 512.
    #[inline]
    pub fn range(&self) -> VpnRange {
        let pages = if self.has(HUGE) { PMD_PAGES } else { 1 };
        let first = self.vpn();
        VpnRange::new(first, first.plus(pages)).expect("one page at least")
    }
    /// The frame that it leads to; the first of a huge page.
    pub fn pfn(&self) -> Pfn {
        self.pfn
    }
    /// Whether it may be written through.
    pub fn is_writable(&self) -> bool {
        self.has(WRITABLE)
    }
    /// Whether a reference on the frame goes with it.
    pub fn is_pinned(&self) -> bool {
        self.has(PINNED)
    }
    /// All of it, as an audit or a TLB wants it.
    #[inline]
    pub fn translation(&self) -> Translation {
        Translation {
            range: self.range(),
            pfn: self.pfn,
            generation: self.generation,
            writable: self.is_writable(),
            brand: self.brand(),
        }
    }
    /// The accessed bit, as a page-table walk of the device sets it.
    #[inline]
    pub fn set_accessed(&self) {
        self.set(ACCESSED);
    }
    /// Accessed and dirty bit. The gate passes it on to the frame when the entry goes.
    #[inline]
    pub fn set_dirty(&self) {
        self.set(ACCESSED | DIRTY);
    }
    /// Whether the accessed bit is set.
    pub fn is_accessed(&self) -> bool {
        self.has(ACCESSED)
    }
    /// Whether the dirty bit is set.
    pub fn is_dirty(&self) -> bool {
        self.has(DIRTY)
    }
    /// Clears the accessed bit; whether it was set.
    pub fn clear_accessed(&self) -> bool {
        self.word.fetch_and(!ACCESSED, Ordering::Relaxed) & ACCESSED != 0
    }
    /// Takes the right to write away, as dirty logging does.
    pub fn write_protect(&self) {
        self.word.fetch_and(!WRITABLE, Ordering::Relaxed);
    }
}

/// # Panics
///
/// If a reference goes with it: an entry is handed back to its gate, which gives that up. Nobody can any more.
impl Drop for ShadowEntry {
    fn drop(&mut self) {
        // One panic is enough.
        let lost = self.is_pinned() && !std::thread::panicking();
        assert!(
            !lost,
            "a store dropped {self:?} rather than hand it back: its frames are lost"
        );
    }
}

impl std::fmt::Debug for ShadowEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ShadowEntry")
            .field("translation", &self.translation())
            .field("pinned", &self.is_pinned())
            .field("accessed", &self.is_accessed())
            .field("dirty", &self.is_dirty())
            .finish()
    }
}

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

#[cfg(test)]
mod tests {
    use super::{PMD_PAGES, Pfn, ShadowEntry, Translation, Vpn, VpnRange};
    use crate::notifier::RegId;

    #[test]
    fn an_entry_is_two_words_and_says_what_it_was_made_of() {
        if !cfg!(any(loom, shuttle)) {
            assert_eq!(size_of::<ShadowEntry>(), 16);
        }
        for (first, pages, writable, pinned) in [
            (7, 1, false, true),
            ((1 << 36) - PMD_PAGES, PMD_PAGES, true, false),
        ] {
            let translation = Translation {
                range: VpnRange::new(Vpn(first), Vpn(first + pages)).unwrap(),
                pfn: Pfn(9),
                generation: 3,
                writable,
                brand: RegId(u64::MAX).brand(),
            };
            let mut entry = ShadowEntry::new(translation, pinned);
            assert_eq!(
                (entry.translation(), entry.is_pinned()),
                (translation, pinned)
            );
            assert!(!entry.is_accessed() && !entry.is_dirty());
            entry.set_dirty();
            assert!(entry.clear_accessed() && !entry.clear_accessed() && entry.is_dirty());
            entry.write_protect();
            assert!(!entry.is_writable());
            assert_eq!(
                (entry.range(), entry.brand()),
                (translation.range, translation.brand)
            );
            assert_ne!(entry.brand(), RegId(0).brand());
            entry.let_go();
            assert!(!entry.is_pinned());
        }
    }
}
