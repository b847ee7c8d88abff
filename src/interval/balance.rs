//! Balance of the tree.
//!
//! Guarantee: every node but the root has at least a third of its entries in use. A full node first
//! passes entries to a neighbour, and splits only if both are nearly full. So runs of neighbouring
//! intervals, upwards or downwards, leave nodes that are seven eighths full.

use super::{
    item::{Key, NodeEntry},
    node::{InnerNode, LeafNode},
    tree::{Path, PathStep, Tree},
};

/// The least number of entries of a node on `level` that is not the root.
pub(super) const fn least(level: usize) -> usize {
    if level == 0 {
        LeafNode::<()>::MIN
    } else {
        InnerNode::MIN
    }
}

/// The most entries of two nodes on `level` that are [merged](super::node::Node::MERGED).
const fn merged(level: usize) -> usize {
    if level == 0 {
        LeafNode::<()>::MERGED
    } else {
        InnerNode::MERGED
    }
}

impl<V> Tree<V> {
    /// Returns the entry for node `id` on `level` in its parent.
    fn summary(&self, level: usize, id: u32) -> NodeEntry {
        if level == 0 {
            self.leaf(id).summary()
        } else {
            self.inner(id).summary()
        }
    }

    fn len_of(&self, level: usize, id: u32) -> usize {
        if level == 0 {
            self.leaf(id).len()
        } else {
            self.inner(id).len()
        }
    }

    fn is_full(&self, level: usize, id: u32) -> bool {
        if level == 0 {
            self.leaf(id).is_full()
        } else {
            self.inner(id).is_full()
        }
    }

    /// Splits or relieves every full node on the path to the leaf for `key`. One walk from the top
    /// suffices, because a node has room for one more child by the time a child splits.
    pub(super) fn make_room(&mut self, key: Key) {
        if self.is_full(self.height, self.root) {
            let old = self.summary(self.height, self.root);
            let root = self.inners.alloc();
            self.inners.get_mut(root).insert(0, old, self.root);
            self.root = root;
            self.height += 1;
        }
        let mut id = self.root;
        for level in (1..=self.height).rev() {
            let at = self.inner(id).home_of(key);
            if self.is_full(level - 1, *self.inner(id).item(at)) {
                self.relieve(level, id, at);
            }
            let node = self.inner(id);
            id = *node.item(node.home_of(key));
        }
    }

    /// Makes room in child `at` of `parent`, which is on `level`: passes entries to a neighbour
    /// that has room, or splits the child.
    fn relieve(&mut self, level: usize, parent: u32, at: usize) {
        let node = self.inner(parent);
        let has_room = |at: usize| self.len_of(level - 1, *node.item(at)) <= merged(level - 1);
        if at + 1 < node.len() && has_room(at + 1) {
            self.even_out(level, parent, at);
            return;
        }
        if at > 0 && has_room(at - 1) {
            self.even_out(level, parent, at - 1);
            return;
        }
        let left = *node.item(at);
        let right = if level == 1 {
            self.leaves.split(left)
        } else {
            self.inners.split(left)
        };
        let lower = self.summary(level - 1, left);
        let upper = self.summary(level - 1, right);
        let node = self.inners.get_mut(parent);
        node.set(at, lower);
        node.insert(at + 1, upper, right);
    }

    /// Repairs the nodes above a leaf that lost an interval with end `gone`: their entries in the
    /// parents, and their least number of entries. Stops where nothing changes.
    pub(super) fn climb(&mut self, path: &Path, gone: u64) {
        for (level, &PathStep { node, at }) in path.iter().enumerate().take(self.height + 1).skip(1)
        {
            let (kid, old) = (*self.inner(node).item(at), self.inner(node).entry(at));
            if self.len_of(level - 1, kid) < least(level - 1) {
                self.fill_up(level, node, at);
                continue;
            }
            // Only the loss of a highest end can lower it.
            let new = if old.end > gone {
                NodeEntry {
                    end: old.end,
                    ..self.first(level - 1, kid)
                }
            } else {
                self.summary(level - 1, kid)
            };
            if new == old {
                return;
            }
            self.inners.get_mut(node).set(at, new);
        }
    }

    fn first(&self, level: usize, id: u32) -> NodeEntry {
        if level == 0 {
            self.leaf(id).entry(0)
        } else {
            self.inner(id).entry(0)
        }
    }

    /// Fills child `at` of `parent`, which is on `level` and has too few entries: merges it with a
    /// neighbour, or takes entries from that.
    fn fill_up(&mut self, level: usize, parent: u32, at: usize) {
        let at = at.saturating_sub(1);
        let node = self.inner(parent);
        let (left, right) = (*node.item(at), *node.item(at + 1));
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
        let node = self.inners.get_mut(parent);
        node.set(at, joined);
        node.remove(at + 1);
    }

    /// Shares the entries of children `at` and `at + 1` of `parent`, which is on `level`, evenly.
    fn even_out(&mut self, level: usize, parent: u32, at: usize) {
        let node = self.inner(parent);
        let (left, right) = (*node.item(at), *node.item(at + 1));
        if level == 1 {
            self.leaves.even_out(left, right);
        } else {
            self.inners.even_out(left, right);
        }
        let lower = self.summary(level - 1, left);
        let upper = self.summary(level - 1, right);
        let node = self.inners.get_mut(parent);
        node.set(at, lower);
        node.set(at + 1, upper);
    }
}
