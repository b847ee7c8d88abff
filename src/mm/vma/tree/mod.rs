//! Ranges in a [`VmaTree`] never overlap, and finding one, or a hole of a wanted size, takes O(log n) steps however the
//! ranges came to lie.
//!
//! It is a B+-tree with wide nodes. The values stay in one table for as long as they live; the nodes hold plain page
//! numbers, which is what a search reads. An entry of an inner node keeps three things of its subtree: where its first
//! range starts, where its last one ends, and the widest hole *between* the two. Holes between neighbouring subtrees are
//! seen one level higher, from the end of the one and the start of the other, so that a change is known to the nodes on
//! its path alone. A search for a hole can be disappointed only by the two subtrees that the bounds of the search cut.
//!
//! ```text
//!  inner      [10,95) gap 9                [120,400) gap 80          hole 95..120 is seen here
//!               |                             |
//!  leaf       [10,20) [29,60) [60,95)  -->  [120,200) [280,400)      hole 200..280 is the gap of the right entry
//!               |       |       |             |         |
//!  values      #4      #0      #1            #3        #2
//! ```
//!
//! Memory of removed ranges is kept for later ones until the tree becomes empty, when all of it is given back, unless it
//! is that of a single leaf.

mod finger;
mod gaps;
mod insert;
mod iter;
mod node;
mod path;
mod pool;
mod remove;
mod update;

#[cfg(any(test, debug_assertions))]
mod check;
#[cfg(test)]
mod tests;

use std::fmt;

use crate::addr::{Vpn, VpnRange};

use finger::Finger;
pub(crate) use iter::Iter;
use node::{INNER, Inner, LEAF, Leaf, NONE};
use pool::{Nodes, Values};

/// What the tree must know of a value.
pub(crate) trait Span {
    /// First page.
    fn start(&self) -> Vpn;
    /// One past the last page; above [`start`](Self::start).
    fn end(&self) -> Vpn;
    /// What a search may tell of the value without going to it.
    fn tag(&self) -> u64;
}

/// Ordered map of non-overlapping, non-empty page ranges.
///
/// A broken precondition (an overlap, a range that is not there) is an error of the caller and panics.
#[derive(Clone)]
pub(crate) struct VmaTree<V> {
    leaves: Nodes<LEAF, false>,
    inners: Nodes<INNER, true>,
    values: Values<V>,
    root: u32,
    finger: Finger,
    /// Levels of inner nodes above the leaves.
    height: usize,
    len: usize,
}

impl<V> VmaTree<V> {
    /// The empty tree; allocates nothing.
    pub(crate) const fn new() -> Self {
        Self {
            leaves: Nodes::new(),
            inners: Nodes::new(),
            values: Values::new(),
            root: NONE,
            finger: Finger::NOWHERE,
            height: 0,
            len: 0,
        }
    }

    /// How many ranges: `map_count`.
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no range.
    pub(crate) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    #[inline]
    fn leaf(&self, id: u32) -> &Leaf {
        self.leaves.get(id)
    }

    #[inline]
    fn inner(&self, id: u32) -> &Inner {
        self.inners.get(id)
    }

    /// The leaf where the first range is that ends after `at`, if there is one.
    #[inline(always)]
    fn leaf_for(&self, at: u64) -> Option<&Leaf> {
        if self.is_empty() {
            return None;
        }
        let leaf = if let Some(id) = self.finger.holds(at) {
            id
        } else {
            let mut id = self.root;
            for _ in 0..self.height {
                (_, id) = self.inner(id).seek(at)?;
            }
            id
        };
        Some(self.leaf(leaf))
    }

    /// Leaf and index of the first range that ends after `at`.
    #[inline]
    fn seek(&self, at: u64) -> Option<(&Leaf, usize)> {
        let leaf = self.leaf_for(at)?;
        let (index, _) = leaf.seek(at)?;
        Some((leaf, index))
    }

    /// The first range that ends after `at`: Linux's `find_vma`.
    #[inline]
    pub(crate) fn find(&self, at: Vpn) -> Option<&V> {
        let (leaf, index) = self.seek(at.0)?;
        Some(self.values.get(leaf.kid(index)))
    }

    /// The range that contains `at`, and the tag of its value. Reads nodes alone.
    #[inline]
    pub(crate) fn range_of(&self, at: Vpn) -> Option<(VpnRange, u64)> {
        self.find_range(at).filter(|(range, _)| range.start() <= at)
    }

    /// [`find`](Self::find) of what the nodes know: the range, and the tag of its value.
    #[inline]
    pub(crate) fn find_range(&self, at: Vpn) -> Option<(VpnRange, u64)> {
        self.leaf_for(at.0)?.seek_range(at.0)
    }

    /// [`before`](Self::before) of what the nodes know.
    pub(crate) fn range_before(&self, at: Vpn) -> Option<(VpnRange, u64)> {
        let (leaf, index) = self.seek_before(at)?;
        Some(leaf.range(index))
    }

    /// The last range that starts before `at`; it may contain the page below `at`, and `at` itself.
    pub(crate) fn before(&self, at: Vpn) -> Option<&V> {
        let (leaf, index) = self.seek_before(at)?;
        Some(self.values.get(leaf.kid(index)))
    }

    /// Leaf and index of the last range that starts before `at`.
    fn seek_before(&self, at: Vpn) -> Option<(&Leaf, usize)> {
        if self.is_empty() {
            return None;
        }
        let leaf = if let Some(id) = self.finger.holds_before(at.0) {
            id
        } else {
            let mut id = self.root;
            for _ in 0..self.height {
                let node = self.inner(id);
                id = node.kid(node.starting_below(at.0).checked_sub(1)?);
            }
            id
        };
        let leaf = self.leaf(leaf);
        let index = leaf.starting_below(at.0).checked_sub(1)?;
        Some((leaf, index))
    }

    /// The lowest range.
    pub(crate) fn first(&self) -> Option<&V> {
        self.find(Vpn(0))
    }

    /// The highest range.
    #[cfg(test)]
    pub(crate) fn last(&self) -> Option<&V> {
        // No range is as high as the highest number: it would have to end above it.
        self.before(Vpn(u64::MAX))
    }

    /// All ranges in ascending order.
    pub(crate) fn iter(&self) -> Iter<'_, V> {
        self.range(VpnRange::ALL)
    }
}

impl<V: Span> VmaTree<V> {
    /// The range that contains `at`: Linux's `vma_lookup`.
    #[inline]
    pub(crate) fn get(&self, at: Vpn) -> Option<&V> {
        // Asks the value rather than the leaf: the caller is about to read it anyway.
        self.find(at).filter(|value| value.start() <= at)
    }

    /// The first range that starts at or above `start`.
    #[cfg(test)]
    pub(crate) fn next_after(&self, start: Vpn) -> Option<&V> {
        let mut ranges = Iter::from(self, start.0);
        ranges
            .next()
            .filter(|value| value.start() >= start)
            .or_else(|| ranges.next())
    }
}

impl<V> Default for VmaTree<V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<'t, V> IntoIterator for &'t VmaTree<V> {
    type Item = &'t V;
    type IntoIter = Iter<'t, V>;

    fn into_iter(self) -> Iter<'t, V> {
        self.iter()
    }
}

impl<V: fmt::Debug> fmt::Debug for VmaTree<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self).finish()
    }
}
