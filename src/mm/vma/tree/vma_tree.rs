//! [`VmaTree`]: its fields, and look-ups by page.

use super::{
    finger::Finger,
    node::{INNER, Inner, LEAF, Leaf, NONE},
    pool::{Nodes, Values},
};
use crate::addr::{Vpn, VpnRange};

/// A value that the tree can hold: a range of pages with a tag.
pub(crate) trait Span {
    /// First page.
    fn start(&self) -> Vpn;
    /// One past the last page; above [`start`](Self::start).
    fn end(&self) -> Vpn;
    /// Word that look-ups return without reading the value.
    fn tag(&self) -> u64;
}

/// Ordered map of non-overlapping, non-empty page ranges.
///
/// A broken precondition (an overlap, a range that is not there) is a bug of the caller and panics.
#[derive(Clone)]
pub(crate) struct VmaTree<V> {
    pub(super) leaves: Nodes<LEAF, false>,
    pub(super) inners: Nodes<INNER, true>,
    pub(super) values: Values<V>,
    pub(super) root: u32,
    pub(super) finger: Finger,
    /// Levels of inner nodes above the leaves.
    pub(super) height: usize,
    pub(super) len: usize,
}

impl<V> VmaTree<V> {
    /// Creates an empty tree; allocates nothing.
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

    /// Returns how many ranges there are (`map_count`).
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// Returns true if there is no range.
    pub(crate) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    #[inline]
    pub(super) fn leaf(&self, id: u32) -> &Leaf {
        self.leaves.get(id)
    }

    #[inline]
    pub(super) fn inner(&self, id: u32) -> &Inner {
        self.inners.get(id)
    }

    /// The leaf with the first range that ends after `at`, if there is one.
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
    pub(super) fn seek(&self, at: u64) -> Option<(&Leaf, usize)> {
        match self.finger.place(at) {
            Some(place) => {
                let leaf = self.leaf(place.leaf);
                (place.at < leaf.len()).then_some((leaf, place.at))
            }
            None => self.seek_elsewhere(at),
        }
    }

    /// Finds as [`seek`](Self::seek) does, where the finger does not point.
    fn seek_elsewhere(&self, at: u64) -> Option<(&Leaf, usize)> {
        let leaf = self.leaf_for(at)?;
        let (index, _) = leaf.seek(at)?;
        Some((leaf, index))
    }

    /// The first range that ends after `at` (`find_vma`): it contains `at` or lies above.
    #[inline]
    pub(crate) fn find(&self, at: Vpn) -> Option<&V> {
        let (leaf, index) = self.seek(at.0)?;
        Some(self.values.get(leaf.kid(index)))
    }

    /// The range that contains `at`, and the tag of its value. Reads nodes only.
    #[inline]
    pub(crate) fn range_of(&self, at: Vpn) -> Option<(VpnRange, u64)> {
        self.find_range(at).filter(|(range, _)| range.start() <= at)
    }

    /// Finds as [`find`](Self::find) does, but returns range and tag. Reads nodes only.
    #[inline]
    pub(crate) fn find_range(&self, at: Vpn) -> Option<(VpnRange, u64)> {
        self.leaf_for(at.0)?.seek_range(at.0)
    }

    /// Finds as [`find_range`](Self::find_range) does, near the place that was used last.
    #[inline]
    pub(crate) fn find_near(&self, at: Vpn) -> Option<(VpnRange, u64)> {
        let (leaf, index) = self.seek(at.0)?;
        Some(leaf.range(index))
    }

    /// Finds as [`before`](Self::before) does, but returns range and tag. Reads nodes only.
    pub(crate) fn range_before(&self, at: Vpn) -> Option<(VpnRange, u64)> {
        let (leaf, index) = self.seek_before(at)?;
        Some(leaf.range(index))
    }

    /// The last range that starts before `at`; it may contain the page below `at`, and `at` itself.
    pub(crate) fn before(&self, at: Vpn) -> Option<&V> {
        let (leaf, index) = self.seek_before(at)?;
        Some(self.values.get(leaf.kid(index)))
    }

    /// The ranges below and above `hole`, in which there is none, and their tags.
    #[inline]
    pub(crate) fn around(&self, hole: VpnRange) -> [Option<(VpnRange, u64)>; 2] {
        match self.seek(hole.start().0) {
            Some((leaf, at)) if at > 0 => [Some(leaf.range(at - 1)), Some(leaf.range(at))],
            above => [
                self.range_before(hole.start()),
                above.map(|(leaf, at)| leaf.range(at)),
            ],
        }
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
    #[cfg(all(test, not(loom)))]
    pub(crate) fn last(&self) -> Option<&V> {
        // No range contains the highest page number: it would have to end above it.
        self.before(Vpn(u64::MAX))
    }
}

impl<V: Span> VmaTree<V> {
    /// The range that contains `at` (`vma_lookup`).
    #[inline]
    pub(crate) fn get(&self, at: Vpn) -> Option<&V> {
        // Reads the value rather than the leaf: the caller is about to read it anyway.
        self.find(at).filter(|value| value.start() <= at)
    }
}

impl<V> Default for VmaTree<V> {
    fn default() -> Self {
        Self::new()
    }
}
