//! Ranges come out in ascending order; each step reads the current leaf alone, because leaves are chained.

use std::iter::FusedIterator;

use crate::addr::VpnRange;

use super::VmaTree;
use super::node::{Leaf, NONE};

/// Ranges of a [`VmaTree`] from some page up to another, ascending.
pub(crate) struct Iter<'t, V> {
    tree: &'t VmaTree<V>,
    /// Where the next range is, unless that was the last.
    place: Option<(&'t Leaf, usize)>,
    /// Ranges that start here or above are out.
    below: u64,
}

impl<'t, V> Iter<'t, V> {
    /// From the first range that ends after `at`.
    pub(super) fn from(tree: &'t VmaTree<V>, at: u64) -> Self {
        Self {
            tree,
            place: tree.seek(at),
            below: u64::MAX,
        }
    }
}

impl<V> VmaTree<V> {
    /// All ranges that overlap `pages`, in ascending order.
    pub(crate) fn range(&self, pages: VpnRange) -> Iter<'_, V> {
        Iter {
            below: pages.end().0,
            ..Iter::from(self, pages.start().0)
        }
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
