//! The floor of every ratio: a four-level table of 512 entries a node that maps, unmaps and
//! translates, and does nothing else. No VMA, no frame, no count, no lock, no epoch, no notifier.
//!
//! A range costs one walk for each leaf, a page by itself one walk. Nodes are made on demand;
//! unmapping frees the leaves that it covers whole, and keeps what is above.
#![allow(dead_code)] // Each benchmark uses a part of it.

use std::ops::Range;

/// Entries of a node.
const ENTRIES: usize = 512;
/// What one page adds to the entry of the next: the frame number starts at bit 12.
const PAGE: u64 = 1 << 12;

type Leaf = [u64; ENTRIES];
type Pmd = Dir<Leaf>;
type Pud = Dir<Pmd>;
type Pgd = Dir<Pud>;

struct Dir<C>([Option<Box<C>>; ENTRIES]);

impl<C> Dir<C> {
    fn new() -> Box<Self> {
        Box::new(Self([const { None }; ENTRIES]))
    }
}

/// Which entry of the node on `level` page `at` belongs to; leaves are level 0.
const fn slot(at: u64, level: u32) -> usize {
    (at >> (9 * level)) as usize % ENTRIES
}

/// Cuts a range of pages at leaf boundaries: first page, and which entries of its leaf.
fn by_leaf(pages: Range<u64>) -> impl Iterator<Item = (u64, Range<usize>)> {
    let mut at = pages.start;
    std::iter::from_fn(move || {
        let first = at;
        let from = slot(first, 0);
        let count = (pages.end - first).min((ENTRIES - from) as u64);
        at += count;
        (count > 0).then_some((first, from..from + count as usize))
    })
}

/// The table.
pub(crate) struct Floor(Box<Pgd>);

impl Floor {
    /// One without an entry.
    pub(crate) fn new() -> Self {
        Self(Dir::new())
    }

    /// Sets the entry of one page, with a walk from the root.
    #[inline]
    pub(crate) fn map_one(&mut self, at: u64, entry: u64) {
        self.make_leaf(at)[slot(at, 0)] = entry;
    }

    /// Sets the entries of `pages`: `first` for the first page, the next frame for the next.
    pub(crate) fn map(&mut self, pages: Range<u64>, first: u64) {
        let mut entry = first;
        for (at, part) in by_leaf(pages) {
            for e in &mut self.make_leaf(at)[part] {
                *e = entry;
                entry += PAGE;
            }
        }
    }

    /// Clears the entries of `pages`; returns how many there were.
    pub(crate) fn unmap(&mut self, pages: Range<u64>) -> usize {
        let mut cleared = 0;
        for (at, part) in by_leaf(pages) {
            let whole = part.len() == ENTRIES;
            let Some(pmd) = self.pmd(at) else { continue };
            let here = &mut pmd.0[slot(at, 1)];
            if let Some(leaf) = here {
                for e in &mut leaf[part] {
                    cleared += usize::from(*e != 0);
                    *e = 0;
                }
                if whole {
                    *here = None;
                }
            }
        }
        cleared
    }

    /// The entry of one page, with a walk from the root.
    #[inline]
    pub(crate) fn translate(&self, at: u64) -> Option<u64> {
        let pud = self.0.0[slot(at, 3)].as_deref()?;
        let pmd = pud.0[slot(at, 2)].as_deref()?;
        let leaf = pmd.0[slot(at, 1)].as_deref()?;
        Some(leaf[slot(at, 0)])
    }

    #[inline]
    fn make_leaf(&mut self, at: u64) -> &mut Leaf {
        let pud = self.0.0[slot(at, 3)].get_or_insert_with(Dir::new);
        let pmd = pud.0[slot(at, 2)].get_or_insert_with(Dir::new);
        pmd.0[slot(at, 1)].get_or_insert_with(|| Box::new([0; ENTRIES]))
    }

    fn pmd(&mut self, at: u64) -> Option<&mut Pmd> {
        let pud = self.0.0[slot(at, 3)].as_deref_mut()?;
        pud.0[slot(at, 2)].as_deref_mut()
    }
}
