//! The tree of more intervals than a short list is good for.
//!
//! Every operation walks one path from the root to a leaf, O(log n) however the intervals lie, and
//! writes only the nodes on that path and their neighbours.

use super::{
    item::{Item, Key, NodeEntry},
    node::{INNER, InnerNode, LEAF, LeafNode},
    pool::Nodes,
};

/// More levels than 2^32 nodes can need with a third of each in use.
pub(super) const LEVELS: usize = 12;

/// A tree with at least one interval.
pub(super) struct Tree<V> {
    pub(super) leaves: Nodes<Option<V>, LEAF>,
    pub(super) inners: Nodes<u32, INNER>,
    pub(super) root: u32,
    /// The number of levels of inner nodes above the leaves.
    pub(super) height: usize,
    pub(super) len: usize,
}

/// One node on a path.
#[derive(Clone, Copy, Default)]
pub(super) struct PathStep {
    pub(super) node: u32,
    /// The index of an entry in the node.
    pub(super) at: usize,
}

/// The nodes from a leaf (`[0]`) to the root.
pub(super) type Path = [PathStep; LEVELS];

impl<V> Tree<V> {
    /// Makes a tree of `all`, which are ascending.
    pub(super) fn of(all: impl IntoIterator<Item = Item<V>>) -> Self {
        let mut tree = Self {
            leaves: Nodes::new(),
            inners: Nodes::new(),
            root: 0,
            height: 0,
            len: 0,
        };
        tree.root = tree.leaves.alloc();
        for item in all {
            tree.insert(item);
        }
        tree
    }

    #[inline]
    pub(super) fn leaf(&self, id: u32) -> &LeafNode<V> {
        self.leaves.get(id)
    }

    #[inline]
    pub(super) fn inner(&self, id: u32) -> &InnerNode {
        self.inners.get(id)
    }

    /// Returns the leaf and the index of `key`.
    fn find(&self, key: Key) -> Option<PathStep> {
        let mut node = self.root;
        for _ in 0..self.height {
            let inner = self.inner(node);
            node = *inner.item(inner.home_of(key));
        }
        let leaf = self.leaf(node);
        let at = leaf.below(key);
        (at < leaf.len() && leaf.entry(at).key == key).then_some(PathStep { node, at })
    }

    /// Returns end and value of `key`.
    #[cfg(all(test, not(loom)))]
    pub(super) fn get(&self, key: Key) -> Option<(u64, &V)> {
        let PathStep { node, at } = self.find(key)?;
        let leaf = self.leaf(node);
        Some((leaf.entry(at).end, leaf.value(at)))
    }

    /// Returns the value of `key`.
    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut V> {
        let PathStep { node, at } = self.find(key)?;
        self.leaves.get_mut(node).item_mut(at).as_mut()
    }

    /// Returns the path to the place where `key` is or belongs.
    fn path(&self, key: Key) -> Path {
        let mut path = Path::default();
        let mut id = self.root;
        for level in (1..=self.height).rev() {
            let node = self.inner(id);
            let at = node.home_of(key);
            path[level] = PathStep { node: id, at };
            id = *node.item(at);
        }
        let at = self.leaf(id).below(key);
        path[0] = PathStep { node: id, at };
        path
    }

    /// Returns the lowest key that is not below this one.
    pub(super) fn at_or_above(&self, key: Key) -> Option<Key> {
        let path = self.path(key);
        let PathStep { node, at } = path[0];
        let leaf = self.leaf(node);
        if at < leaf.len() {
            return Some(leaf.entry(at).key);
        }
        // The first entry of the next leaf: the least key of the next subtree.
        path[1..=self.height].iter().find_map(|step| {
            let inner = self.inner(step.node);
            (step.at + 1 < inner.len()).then(|| inner.entry(step.at + 1).key)
        })
    }

    /// Inserts an interval.
    ///
    /// # Panics
    ///
    /// If its key is there already.
    pub(super) fn insert(&mut self, item: Item<V>) {
        let Item { entry: new, value } = item;
        let mut path = self.path(new.key);
        if self.leaf(path[0].node).is_full() {
            self.make_room(new.key);
            path = self.path(new.key);
        }
        let PathStep { node, at } = path[0];
        let leaf = self.leaves.get_mut(node);
        let taken = at < leaf.len() && leaf.entry(at).key == new.key;
        assert!(!taken, "{:?} is there already", new.key);
        leaf.insert(at, new, Some(value));
        self.len += 1;
        for &PathStep { node, at } in &path[1..=self.height] {
            let node = self.inners.get_mut(node);
            let old = node.entry(at);
            let grown = NodeEntry {
                key: old.key.min(new.key),
                end: old.end.max(new.end),
            };
            if grown == old {
                return;
            }
            node.set(at, grown);
        }
    }

    /// Removes an interval. The removal of the last one leaves an empty leaf.
    pub(super) fn remove(&mut self, key: Key) -> Option<Item<V>> {
        let path = self.path(key);
        let PathStep { node, at } = path[0];
        let leaf = self.leaves.get_mut(node);
        if at >= leaf.len() || leaf.entry(at).key != key {
            return None;
        }
        let entry = leaf.entry(at);
        let value = leaf.remove(at).expect("an interval has a value");
        self.len -= 1;
        self.climb(&path, entry.end);
        while self.height > 0 && self.inner(self.root).len() == 1 {
            let old = self.root;
            self.root = self.inners.get_mut(old).remove(0);
            self.inners.release(old);
            self.height -= 1;
        }
        Some(Item { entry, value })
    }

    /// Removes all intervals, and returns them in ascending order.
    pub(super) fn drain(&mut self) -> Vec<Item<V>> {
        let mut all = Vec::with_capacity(self.len);
        while self.len > 0 {
            let mut id = self.root;
            for _ in 0..self.height {
                id = *self.inner(id).item(0);
            }
            all.extend(self.remove(self.leaf(id).entry(0).key));
        }
        all
    }
}

impl<V> LeafNode<V> {
    /// Returns the value of entry `at`.
    #[inline]
    pub(super) fn value(&self, at: usize) -> &V {
        self.item(at).as_ref().expect("an interval has a value")
    }
}
