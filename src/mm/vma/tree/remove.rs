//! Removing ranges: all those of one leaf at a time, with one update of the nodes above it.

use crate::addr::{Vpn, VpnRange};

use smallvec::SmallVec;

use super::{
    node::NONE,
    path::{Holes, Path},
    vma_tree::VmaTree,
};

impl<V> VmaTree<V> {
    /// Removes the range that starts at `start` and returns its value.
    ///
    /// # Panics
    ///
    /// If no range starts there.
    pub(crate) fn remove(&mut self, start: Vpn) -> V {
        let path = self.path_of(start);
        self.remove_at(&path)
    }

    pub(super) fn remove_at(&mut self, path: &Path) -> V {
        let (node, at) = path.leaf().parts();
        let value = self.values.take(self.leaf(node).kid(at));
        self.cut(path, 1);
        value
    }

    /// Takes `count` entries out of the leaf at the end of `path`, whose values were taken already.
    fn cut(&mut self, path: &Path, count: usize) {
        let (node, at) = path.leaf().parts();
        self.len -= count;
        if self.is_empty() {
            self.clear(node);
            return;
        }
        let leaf = self.leaves.get_mut(node);
        // Between several entries there may have been a hole of any size.
        let gone = if count == 1 {
            leaf.widest_at(at)
        } else {
            u64::MAX
        };
        leaf.remove(at, count);
        let made = leaf.hole_below(at);
        self.climb(path, Holes { gone, made });
        while self.height > 0 && self.inner(self.root).len() == 1 {
            self.forget();
            let old = self.root;
            self.root = self.inner(old).kid(0);
            self.inners.release(old);
            self.height -= 1;
        }
        debug_assert_ne!(self.root, NONE, "a tree with ranges has a root");
    }
}

impl<V> VmaTree<V> {
    /// Empties the tree after its last range went from `leaf`. The memory of a tree of one leaf is
    /// kept, because the next range comes soon.
    fn clear(&mut self, leaf: u32) {
        if self.leaves.len() > 1 {
            *self = Self::new();
            return;
        }
        self.leaves.release(leaf);
        self.root = NONE;
        self.forget();
    }

    /// Removes all ranges inside `pages` and returns their values in ascending order.
    ///
    /// # Panics
    ///
    /// If a range lies only partly inside; nothing is removed then.
    pub(crate) fn drain_range(&mut self, pages: VpnRange) -> SmallVec<[V; 1]> {
        let (start, end) = (pages.start(), pages.end());
        let mut out = SmallVec::new();
        self.focus(start);
        let ends = [self.find_range(start), self.range_before(end)];
        for (range, _) in ends.into_iter().flatten() {
            assert!(
                pages.covers(range) || !pages.overlaps(range),
                "the range at {:?} sticks out of {pages:?}",
                range.start()
            );
        }
        while !self.is_empty() {
            let path = self.path(start);
            let (node, at) = path.leaf().parts();
            let leaf = self.leaves.get(node);
            let stop = leaf.starting_below(end.0);
            if stop <= at {
                break;
            }
            out.extend((at..stop).map(|at| self.values.take(leaf.kid(at))));
            self.cut(&path, stop - at);
        }
        out
    }
}
