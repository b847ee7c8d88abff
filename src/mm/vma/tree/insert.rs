//! Inserting a range.
//!
//! An insert reads the hole around the new range on the way down and refuses an overlap. A full
//! leaf first passes entries to a neighbour, and splits only if both are nearly full. So runs of
//! neighbouring ranges, downwards as `mmap` places them or upwards, leave nodes seven eighths full.

use super::{
    climb::merged,
    node::Entry,
    path::LeafPlace,
    vma_tree::{Span, VmaTree},
};
use crate::addr::Vpn;

impl<V: Span> VmaTree<V> {
    /// Adds a range.
    ///
    /// # Panics
    ///
    /// If it is empty or overlaps another.
    pub(crate) fn insert(&mut self, value: V) {
        let (start, end, note) = (value.start().0, value.end().0, value.tag());
        let place = self.place_for(start, end);
        let kid = self.values.put(value);
        let entry = Entry {
            start,
            end,
            note,
            kid,
        };
        self.enter(place, entry);
    }

    /// Finds the place of a new range, where there is room for its entry.
    ///
    /// # Panics
    ///
    /// If it is empty or overlaps another.
    // Always: an insertion is one function, although a range that goes elsewhere needs its halves.
    #[inline(always)]
    pub(super) fn place_for(&mut self, start: u64, end: u64) -> LeafPlace {
        assert!(start < end, "an empty range at {start:#x}");
        if self.is_empty() {
            self.root = self.leaves.alloc();
        }
        let mut place = self.place(Vpn(start));
        if self.leaf(place.leaf).is_full() {
            self.make_room(start);
            place = self.place(Vpn(start));
        }
        let leaf = self.leaf(place.leaf);
        assert!(
            place.at == leaf.len() || end <= leaf.start(place.at),
            "{start:#x}..{end:#x} overlaps a range that is there"
        );
        place
    }

    /// Enters a range at its place.
    #[inline(always)]
    pub(super) fn enter(&mut self, LeafPlace { leaf, at }: LeafPlace, entry: Entry) {
        self.leaves.get_mut(leaf).insert(at, entry);
        self.len += 1;
        self.climb(at);
    }

    /// Makes room in every full node on the path to the leaf for `start`. One walk from the root is
    /// enough, since a node has room for one more child by the time a child splits.
    fn make_room(&mut self, start: u64) {
        self.forget();
        if self.is_full(self.height, self.root) {
            let old = self.summary(self.height, self.root);
            self.root = self.inners.alloc();
            self.inners.get_mut(self.root).insert(0, old);
            self.height += 1;
        }
        let mut id = self.root;
        for level in (1..=self.height).rev() {
            let at = self.inner(id).home_of(start);
            if self.is_full(level - 1, self.inner(id).kid(at)) {
                self.relieve(level, id, at);
            }
            let node = self.inner(id);
            id = node.kid(node.home_of(start));
        }
    }

    fn is_full(&self, level: usize, id: u32) -> bool {
        if level == 0 {
            self.leaf(id).is_full()
        } else {
            self.inner(id).is_full()
        }
    }

    /// Makes room in the full child `at` of `parent`, a node on `level`: moves entries to a
    /// neighbour that has room, or splits the child.
    fn relieve(&mut self, level: usize, parent: u32, at: usize) {
        let node = self.inner(parent);
        let has_room = |at: usize| self.len_of(level - 1, node.kid(at)) <= merged(level - 1);
        if at + 1 < node.len() && has_room(at + 1) {
            self.even_out(level, parent, at);
            return;
        }
        if at > 0 && has_room(at - 1) {
            self.even_out(level, parent, at - 1);
            return;
        }
        let left = node.kid(at);
        let right = if level == 1 {
            self.leaves.split(left)
        } else {
            self.inners.split(left)
        };
        let both = [left, right].map(|kid| self.summary(level - 1, kid));
        self.inners.get_mut(parent).divide(at, both);
    }
}
