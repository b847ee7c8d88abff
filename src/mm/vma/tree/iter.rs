//! Iteration over ranges in ascending order. Each step reads the current leaf only, because leaves
//! are chained.

use super::{
    node::{Leaf, NONE},
    vma_tree::VmaTree,
};
use crate::addr::VpnRange;
use std::{fmt, iter::FusedIterator};

/// Ranges of a [`VmaTree`] between two pages, ascending.
pub(crate) struct Iter<'t, V> {
    tree: &'t VmaTree<V>,
    /// Leaf and index of the next range; `None` at the end.
    place: Option<(&'t Leaf, usize)>,
    /// First page after the last: ranges that start here or above are left out.
    below: u64,
}

impl<'t, V> Iter<'t, V> {
    /// Iterates from the first range that ends after `at`.
    pub(super) fn from(tree: &'t VmaTree<V>, at: u64) -> Self {
        Self {
            tree,
            place: tree.seek(at),
            below: u64::MAX,
        }
    }
}

impl<V> VmaTree<V> {
    /// Iterates over all ranges that overlap `pages`, ascending.
    pub(crate) fn range(&self, pages: VpnRange) -> Iter<'_, V> {
        Iter {
            below: pages.end().0,
            ..Iter::from(self, pages.start().0)
        }
    }

    /// Iterates over all ranges, ascending.
    pub(crate) fn iter(&self) -> Iter<'_, V> {
        self.range(VpnRange::ALL)
    }
}

#[cfg(all(test, not(loom)))]
impl<V: super::vma_tree::Span> VmaTree<V> {
    /// The first range that starts at or above `start`.
    pub(crate) fn next_after(&self, start: crate::addr::Vpn) -> Option<&V> {
        let mut ranges = Iter::from(self, start.0);
        ranges
            .next()
            .filter(|value| value.start() >= start)
            .or_else(|| ranges.next())
    }
}

impl<'t, V> Iterator for Iter<'t, V> {
    type Item = &'t V;

    #[inline]
    fn next(&mut self) -> Option<&'t V> {
        let (leaf, index) = self.place?;
        if leaf.start(index) >= self.below {
            self.place = None;
            return None;
        }
        self.place = if index + 1 < leaf.len() {
            Some((leaf, index + 1))
        } else if leaf.next != NONE {
            Some((self.tree.leaf(leaf.next), 0))
        } else {
            None
        };
        Some(self.tree.values.get(leaf.kid(index)))
    }
}

impl<V> FusedIterator for Iter<'_, V> {}

impl<V> Clone for Iter<'_, V> {
    fn clone(&self) -> Self {
        Self { ..*self }
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
