//! The shadow page table: four levels of 512 by guest frame, with leaves of 4 KiB and 2 MiB.

use super::{gfn::Gfn, memslot::MemSlots};
use crate::{
    addr::{PMD_PAGES, VpnRange},
    notifier::{RemovedEntries, ShadowEntry, ShadowStore},
};
use std::sync::Arc;

const BITS: u32 = 9;
const ENTRIES: usize = 1 << BITS;
/// The level of the root; leaves are at 1 (4 KiB) and 2 (2 MiB).
const TOP: u32 = 4;

/// An entry of the shadow page table.
enum Spte {
    Empty,
    Table(Table),
    Leaf(ShadowEntry),
}

impl Spte {
    fn into_entry(self) -> Option<ShadowEntry> {
        match self {
            Self::Leaf(entry) => Some(entry),
            Self::Empty | Self::Table(_) => None,
        }
    }
}

/// A table, as the entry above it has it: whether it is empty is known without a look at it.
struct Table {
    slots: Box<[Spte; ENTRIES]>,
    /// The number of slots that are not empty.
    used: u16,
}

impl Table {
    fn new() -> Self {
        // Through a vector, which is filled where it lies: an array would be copied there.
        let slots: Vec<Spte> = (0..ENTRIES).map(|_| Spte::Empty).collect();
        let slots = slots.into_boxed_slice().try_into();
        Self {
            slots: slots.unwrap_or_else(|_| unreachable!("it has so many")),
            used: 0,
        }
    }
    /// Replaces an entry, and returns the old one.
    fn put(&mut self, i: usize, new: Spte) -> Spte {
        let old = std::mem::replace(&mut self.slots[i], new);
        self.used += u16::from(matches!(old, Spte::Empty));
        old
    }
}

/// The sizes of entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leaves {
    /// 4 KiB and 2 MiB.
    All,
    /// 2 MiB.
    Huge,
}

/// The guest frames under one entry of a table at `level`.
const fn span(level: u32) -> u64 {
    1 << (BITS * (level - 1))
}
#[allow(clippy::cast_possible_truncation)]
const fn index(gfn: u64, level: u32) -> usize {
    (gfn >> (BITS * (level - 1))) as usize & (ENTRIES - 1)
}

/// The shadow entries of one virtual machine for the pages of one of its
/// [gates](crate::notifier::Gates).
#[derive(Default)]
pub struct ShadowPages {
    /// Allocated with the first entry. Tables stay when their entries go.
    root: Option<Table>,
    pub(super) slots: Arc<MemSlots>,
    entries: usize,
    /// How often an entry took the place of entries of another size.
    resized: u64,
}

impl ShadowPages {
    /// Returns the number of leaf entries.
    pub fn len(&self) -> usize {
        self.entries
    }
    /// Returns true if there are no entries.
    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }
    /// Returns how often an entry took the place of entries of another size.
    pub(super) fn resized(&self) -> u64 {
        self.resized
    }
    /// Returns the memory slots by which the entries were made.
    pub fn slots(&self) -> &Arc<MemSlots> {
        &self.slots
    }
    /// Removes every entry with a guest frame in `[first, end)`.
    pub(super) fn take_gfns(&mut self, first: Gfn, end: Gfn, gone: &mut RemovedEntries) {
        self.take_leaves(Leaves::All, first, end, gone);
    }
    /// Removes the entries of this size with a guest frame in `[first, end)`.
    pub(super) fn take_leaves(
        &mut self,
        leaves: Leaves,
        first: Gfn,
        end: Gfn,
        gone: &mut RemovedEntries,
    ) {
        let before = gone.len();
        if let Some(root) = self.root.as_mut().filter(|_| self.entries > 0) {
            take(root, (TOP, 0), leaves, (first.0, end.0), gone);
        }
        self.entries -= gone.len() - before;
    }
    fn show(&self, first: u64, end: u64, visit: &mut dyn FnMut(&ShadowEntry)) {
        if let Some(root) = self.root.as_ref().filter(|_| self.entries > 0) {
            show(root, TOP, 0, (first, end), visit);
        }
    }
    /// Calls `f` with the entries whose pages are in `range`.
    pub(super) fn in_hvas(&self, range: VpnRange, f: &mut dyn FnMut(&ShadowEntry)) {
        for (first, end) in self.slots.gfns(range) {
            self.in_gfns(first, end, f);
        }
    }
    /// Calls `f` with the entries of guest frames in `[first, end)`.
    pub(super) fn in_gfns(&self, first: Gfn, end: Gfn, f: &mut dyn FnMut(&ShadowEntry)) {
        self.show(first.0, end.0, f);
    }
}

/// Returns the indices of a table at `level`, beginning at `base`, that have a frame of
/// `[first, end)`.
fn touched(level: u32, base: u64, first: u64, end: u64) -> impl Iterator<Item = (usize, u64)> {
    let top = base + span(level) * ENTRIES as u64;
    let (from, to) = (first.max(base), end.min(top));
    let begin = from & !(span(level) - 1);
    let stop = if from < to { to } else { begin };
    (begin..stop)
        .step_by(usize::try_from(span(level)).expect("64-bit"))
        .map(move |gfn| (index(gfn, level), gfn))
}

fn take(
    table: &mut Table,
    (level, base): (u32, u64),
    leaves: Leaves,
    (first, end): (u64, u64),
    gone: &mut RemovedEntries,
) {
    if level == 1 {
        return match leaves {
            Leaves::All => take_small(table, base, first, end, gone),
            Leaves::Huge => (),
        };
    }
    for (i, at) in touched(level, base, first, end) {
        match &mut table.slots[i] {
            Spte::Empty => {}
            Spte::Table(below) if below.used == 0 => {}
            Spte::Table(below) => take(below, (level - 1, at), leaves, (first, end), gone),
            Spte::Leaf(_) => {
                let leaf = std::mem::replace(&mut table.slots[i], Spte::Empty);
                table.used -= 1;
                gone.extend(leaf.into_entry());
            }
        }
    }
}

/// Removes entries at the lowest level, which has leaves only.
fn take_small(table: &mut Table, base: u64, first: u64, end: u64, gone: &mut RemovedEntries) {
    let part =
        |gfn: u64| usize::try_from(gfn.saturating_sub(base)).map_or(ENTRIES, |n| n.min(ENTRIES));
    let slots = &mut table.slots[part(first)..part(end)];
    gone.reserve(slots.len().min(usize::from(table.used)));
    let before = gone.len();
    let full = slots.iter_mut().filter(|s| !matches!(s, Spte::Empty));
    gone.extend(full.filter_map(|slot| std::mem::replace(slot, Spte::Empty).into_entry()));
    table.used -= u16::try_from(gone.len() - before).expect("a table has few");
}

fn show(
    table: &Table,
    level: u32,
    base: u64,
    gfns: (u64, u64),
    visit: &mut dyn FnMut(&ShadowEntry),
) {
    for (i, at) in touched(level, base, gfns.0, gfns.1) {
        match &table.slots[i] {
            Spte::Empty => {}
            Spte::Table(below) => show(below, level - 1, at, gfns, visit),
            Spte::Leaf(entry) => visit(entry),
        }
    }
}

impl ShadowStore for ShadowPages {
    type Key = Gfn;
    /// An entry of 512 pages becomes a leaf of 2 MiB.
    fn insert(&mut self, gfn: Gfn, entry: ShadowEntry) -> RemovedEntries {
        let mut gone = RemovedEntries::new();
        let (leaf, first) = if entry.range().pages() == PMD_PAGES {
            (2, gfn.0 & !(PMD_PAGES - 1))
        } else {
            (1, gfn.0)
        };
        let mut table = self.root.get_or_insert_with(Table::new);
        for level in (leaf + 1..=TOP).rev() {
            let i = index(first, level);
            if !matches!(table.slots[i], Spte::Table(_)) {
                // A huge entry makes room for small ones.
                gone.extend(table.put(i, Spte::Table(Table::new())).into_entry());
            }
            let Spte::Table(below) = &mut table.slots[i] else {
                unreachable!("it was made");
            };
            table = below;
        }
        let i = index(first, leaf);
        if let Spte::Table(below) = &mut table.slots[i] {
            let block = (first, first + PMD_PAGES);
            take(below, (leaf - 1, first), Leaves::All, block, &mut gone);
        }
        // Those so far were of another size.
        self.resized += u64::from(!gone.is_empty());
        if let Some(old) = table.put(i, Spte::Leaf(entry)).into_entry() {
            gone.push(old);
        }
        self.entries += 1;
        self.entries -= gone.len();
        gone
    }
    fn get(&self, gfn: &Gfn) -> Option<&ShadowEntry> {
        let mut table = self.root.as_ref()?;
        for level in (1..=TOP).rev() {
            match &table.slots[index(gfn.0, level)] {
                Spte::Empty => return None,
                Spte::Table(below) => table = below,
                Spte::Leaf(entry) => return Some(entry),
            }
        }
        None
    }
    fn remove(&mut self, gfn: &Gfn) -> Option<ShadowEntry> {
        let mut gone = RemovedEntries::new();
        self.take_gfns(*gfn, Gfn(gfn.0 + 1), &mut gone);
        gone.pop()
    }
    fn remove_range(&mut self, range: VpnRange, gone: &mut RemovedEntries) {
        let slots = Arc::clone(&self.slots);
        for (first, end) in slots.gfns(range) {
            self.take_gfns(first, end, gone);
        }
    }
    fn for_each(&self, visit: &mut dyn FnMut(&ShadowEntry)) {
        self.show(0, u64::MAX, visit);
    }
    fn for_each_in(&self, range: VpnRange, visit: &mut dyn FnMut(&ShadowEntry)) {
        self.in_hvas(range, visit);
    }
}

impl std::fmt::Debug for ShadowPages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ShadowPages")
            .field("entries", &self.entries)
            .finish_non_exhaustive()
    }
}
