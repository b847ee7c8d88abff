//! The way from a changed leaf up to the root. A change writes the nodes on one path and no others,
//! and stops where an entry stays as it is.

use super::{
    node::{Entry, Inner, Leaf},
    vma_tree::VmaTree,
};

impl<V> VmaTree<V> {
    /// The entry that the parent of node `id` on `level` keeps for it.
    pub(super) fn summary(&self, level: usize, id: u32) -> Entry {
        if level == 0 {
            self.leaf(id).sum(id)
        } else {
            self.inner(id).sum(id)
        }
    }

    pub(super) fn bounds_of(&self, level: usize, id: u32) -> (u64, u64) {
        if level == 0 {
            self.leaf(id).bounds()
        } else {
            self.inner(id).bounds()
        }
    }

    pub(super) fn len_of(&self, level: usize, id: u32) -> usize {
        if level == 0 {
            self.leaf(id).len()
        } else {
            self.inner(id).len()
        }
    }

    /// Updates the nodes above the finger's leaf after a change at index `at`: their entries on the
    /// path, and the number of entries of each. Stops at the first node that does not change.
    #[inline]
    pub(super) fn climb(&mut self, at: usize) {
        let id = self.finger.leaf();
        let leaf = self.leaves.get(id);
        if 0 < at && at + 1 < leaf.len() {
            // The leaf begins and ends where it did.
            self.finger.point_in(leaf, at);
        } else {
            self.finger.point(leaf, at);
        }
        if self.height == 0 {
            return;
        }
        let (node, at) = self.finger.path.steps[1].parts();
        if leaf.len() < Leaf::MIN {
            self.fill_up(1, node, at);
        } else if !self.inners.get_mut(node).sum_up(at, leaf.sum(id)) {
            return;
        }
        self.climb_inners();
    }

    /// Goes on above the lowest inner node on the path, which has changed.
    fn climb_inners(&mut self) {
        for level in 2..=self.height {
            let (node, at) = self.finger.path.steps[level].parts();
            let id = self.inner(node).kid(at);
            let below = self.inner(id);
            if below.len() < Inner::MIN {
                self.fill_up(level, node, at);
                continue;
            }
            let sum = below.sum(id);
            if !self.inners.get_mut(node).sum_up(at, sum) {
                return;
            }
        }
    }

    /// Merges child `at` of `parent`, a node on `level`, with a neighbour or takes entries from
    /// one, because it has too few.
    fn fill_up(&mut self, level: usize, parent: u32, at: usize) {
        self.forget();
        let at = at.saturating_sub(1);
        let node = self.inner(parent);
        let (left, right) = (node.kid(at), node.kid(at + 1));
        let below = level - 1;
        if self.len_of(below, left) + self.len_of(below, right) > merged(below) {
            self.even_out(level, parent, at);
            return;
        }
        if below == 0 {
            self.leaves.merge(left, right);
        } else {
            self.inners.merge(left, right);
        }
        let joined = self.summary(below, left);
        self.inners.get_mut(parent).join(at, joined);
    }

    /// Shares the entries of children `at` and `at + 1` of `parent`, a node on `level`, evenly.
    pub(super) fn even_out(&mut self, level: usize, parent: u32, at: usize) {
        let node = self.inner(parent);
        let (left, right) = (node.kid(at), node.kid(at + 1));
        if level == 1 {
            self.leaves.even_out(left, right);
        } else {
            self.inners.even_out(left, right);
        }
        let both = [left, right].map(|kid| self.summary(level - 1, kid));
        self.inners.get_mut(parent).set_both(at, both);
    }
}

/// Fewest entries of a node on `level` that is not the root.
#[cfg(any(test, debug_assertions))]
pub(super) const fn least(level: usize) -> usize {
    if level == 0 { Leaf::MIN } else { Inner::MIN }
}

/// Most entries of two nodes on `level` that are merged ([`MERGED`](super::node::Node::MERGED)).
pub(super) const fn merged(level: usize) -> usize {
    if level == 0 {
        Leaf::MERGED
    } else {
        Inner::MERGED
    }
}
