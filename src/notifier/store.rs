//! Stores of shadow entries: any structure of a driver behind a small trait.

use super::{removed::RemovedEntries, shadow_entry::ShadowEntry};
use crate::addr::{Vpn, VpnRange};
use smallvec::SmallVec;
use std::collections::BTreeMap;

/// A driver's structure of shadow entries: a hash map, a radix tree, a TLB of fixed size.
///
/// The gate owns the store and calls it under its lock; everything else can only read it
/// ([`GateGuard::store`]). An entry that leaves the store is handed back to the gate, which reports
/// its dirty bit and gives up its reference. The gate counts the entries.
///
/// The gate checks the answers of a store, and panics at a wrong one:
///
/// * always: an entry that the store shows, or hands back, belongs to this registration, and no
///   more entries come back than went in;
/// * with debug assertions: after the removal of a range no entry of it is left, and the store
///   shows as many entries as the gate counts; an entry found by a key is among those that the
///   store shows.
///
/// [`GateGuard::store`]: super::GateGuard::store
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no store of shadow entries",
    label = "a gate must be able to remove the entries of a range from what is inside",
    note = "use `OrderedStore`, or `NoStore` for a device that has TLBs only, or implement `ShadowStore`"
)]
pub trait ShadowStore {
    /// The key of an entry: a guest frame number, an address and a context, ….
    type Key;
    /// Puts `entry` under `key`. Returns the entries that had to be removed for it.
    fn insert(&mut self, key: Self::Key, entry: ShadowEntry) -> RemovedEntries;
    /// Returns the entry under `key`.
    fn get(&self, key: &Self::Key) -> Option<&ShadowEntry>;
    /// Removes the entry under `key`.
    fn remove(&mut self, key: &Self::Key) -> Option<ShadowEntry>;
    /// Removes every entry with a page in `range`, and adds them to `gone`.
    fn remove_range(&mut self, range: VpnRange, gone: &mut RemovedEntries);
    /// Shows every entry, for an audit.
    fn for_each(&self, visit: &mut dyn FnMut(&ShadowEntry));
    /// Shows every entry with a page in `range`. The default looks at all entries.
    fn for_each_in(&self, range: VpnRange, visit: &mut dyn FnMut(&ShadowEntry)) {
        self.for_each(&mut |e| {
            if e.range().overlaps(range) {
                visit(e);
            }
        });
    }
}

/// A store with an operation of its own: its keys get another meaning, or the store another size.
/// [`GateGuard::rearrange`](super::GateGuard::rearrange) runs it.
///
/// The author of a store decides which operations there are: the trait has one implementation for
/// each store, so no other crate can add an operation to it.
pub trait Rearrange: ShadowStore {
    /// The operation.
    type How;
    /// Runs the operation, and adds the entries that it removes to `gone`.
    fn rearrange(&mut self, how: Self::How, gone: &mut RemovedEntries);
}

/// The state of a gate in which no window has anything to drop: `()`.
#[diagnostic::on_unimplemented(
    message = "the gate has a state, `{Self}`, which may hold translations as well",
    note = "pass the gate by `Gate::exclude`, and drop the range from the state in the closure"
)]
pub trait NoState {}

impl NoState for () {}

/// The store of a driver without a table, whose translations are in TLBs alone.
///
/// Such a device writes by [`FrameViewMut::write`](crate::frame::FrameViewMut::write), which marks
/// the frame dirty at once: there is no entry to keep a dirty bit.
///
/// # Examples
///
/// A device with a TLB of one page under its gate:
///
/// ```
/// use emmu::{driver::*, mm::{Advice, MmapArgs}};
/// use std::sync::Arc;
///
/// struct Device(Gate<NoStore, Option<Cached>, Atomic>);
///
/// impl SpinningMmu for Device {
///     fn invalidate<'i>(&self, cx: AtomicCallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> {
///         self.0.exclude(cx, inv, |tlb, range, _| {
///             tlb.take_if(|cached| cached.range().overlaps(range));
///         })
///     }
///     fn translations(&self, visit: &mut dyn FnMut(Translation)) -> bool {
///         self.0.audited_parts(|_, tlb| tlb.iter().for_each(|copy| visit(copy.translation())))
///     }
/// }
///
/// impl Device {
///     /// Writes the first byte of a page.
///     fn write(
///         &self,
///         cx: &mut CallCx<'_>,
///         mm: &Mm,
///         at: Vpn,
///         byte: u8,
///     ) -> Result<(), TranslateError> {
///         let mut gate = self.0.lock(cx);
///         if let Some(cached) = *gate.state()
///             && let Some(mut frame) = gate.follow_mut(&cached, at)
///         {
///             frame.write(0, &[byte]);
///             return Ok(());
///         }
///         drop(gate);
///         self.0.translate(cx, mm, at, Access::Write, |mut permit| {
///             let cached = permit.cached();
///             *permit.state() = Some(cached);
///             permit.frame_mut().expect("the look-up was for writing").write(0, &[byte]);
///         })
///     }
/// }
///
/// # let machine = emmu::Machine::new(Default::default());
/// # let mut thread = machine.enter()?;
/// # let mut cx = thread.cx();
/// # let mm = Mm::new(&machine);
/// let (device, _registration) = mm.register(&mut cx, |seat| {
///     Arc::new(Device(Gate::new(seat, NoStore, None)))
/// });
/// let at = mm.mmap(&mut cx, &MmapArgs::anonymous(PAGE_SIZE))?;
/// for byte in [1, 2] {
///     device.write(&mut cx, &mm, Vpn::containing(at), byte)?; // a miss, then a hit
///     assert_eq!(mm.load(&mut cx, at)?, byte);
/// }
/// mm.madvise(&mut cx, at, PAGE_SIZE, Advice::DontNeed)?;
/// assert!(device.0.lock(&mut cx).state().is_none());
/// mm.exit(&mut cx);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
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

/// Entries in order of their keys, with a second index by page: the removal of a range takes time
/// for the entries in it.
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
    /// Returns the keys of the entries with a page in `range`.
    fn keys_in(&self, range: VpnRange) -> impl Iterator<Item = &K> {
        // A huge page that begins before the range is filed under the first page of its block.
        let block = VpnRange::block_of(range.start()).start();
        let before = (block < range.start()).then(|| self.by_page.get(&block));
        let reaches = move |key: &&K| {
            let entry = self.entries.get(*key);
            entry.is_some_and(|e| e.range().overlaps(range))
        };
        let before = before.flatten().into_iter().flatten().filter(reaches);
        let inside = self.by_page.range(range.start()..range.end());
        before.chain(inside.flat_map(|(_, keys)| keys))
    }
}

impl<K: Ord + Clone> ShadowStore for OrderedStore<K> {
    type Key = K;
    fn insert(&mut self, key: K, entry: ShadowEntry) -> RemovedEntries {
        let (range, block) = (entry.range(), VpnRange::block_of(entry.vpn()));
        debug_assert!(
            range.pages() == 1 || range == block,
            "a page of another size"
        );
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
