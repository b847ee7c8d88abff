//! Removing ranges: all those of one leaf at a time, with one update of the nodes above it.

use crate::addr::{Vpn, VpnRange};

use smallvec::SmallVec;

use super::{node::NONE, path::LeafPlace, vma_tree::VmaTree};

/// Ranges that were removed, and the hole that they left.
pub(crate) struct Drained<V> {
    pub(crate) values: SmallVec<[V; 1]>,
    /// End of the range below; 0 without one.
    pub(crate) floor: Vpn,
    /// Start of the range above.
    pub(crate) ceiling: Option<Vpn>,
}

impl<V> VmaTree<V> {
    /// Removes the range that starts at `start` and returns its value.
    ///
    /// # Panics
    ///
    /// If no range starts there.
    pub(crate) fn remove(&mut self, start: Vpn) -> V {
        let place = self.place_of(start);
        self.remove_at(place)
    }

    pub(super) fn remove_at(&mut self, place: LeafPlace) -> V {
        let value = self.values.take(self.leaf(place.leaf).kid(place.at));
        self.cut(place, 1);
        value
    }

    /// Takes `count` entries out of the finger's leaf, whose values were taken already.
    fn cut(&mut self, place: LeafPlace, count: usize) {
        let LeafPlace { leaf: node, at } = place;
        self.len -= count;
        if self.is_empty() {
            self.clear(node);
            return;
        }
        let leaf = self.leaves.get_mut(node);
        leaf.remove(at, count);
        self.climb(at);
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

    /// Removes all ranges inside `pages`. Returns their values in ascending order.
    ///
    /// # Panics
    ///
    /// If a range lies only partly inside; nothing is removed then.
    pub(crate) fn drain_range(&mut self, pages: VpnRange) -> Drained<V> {
        let end = pages.end().0;
        let mut out = Drained {
            values: SmallVec::new(),
            floor: Vpn(0),
            ceiling: None,
        };
        while !self.is_empty() {
            let place = self.place(pages.start());
            let LeafPlace { leaf: node, at } = place;
            let leaf = self.leaf(node);
            let stop = leaf.starting_below(end);
            if out.values.is_empty() {
                out.floor = Vpn(self.floor(place));
                if at < stop {
                    self.check_ends(pages, leaf.start(at), (stop, leaf.end(stop - 1)));
                }
            }
            let above = self.start_from(stop);
            out.ceiling = (above != u64::MAX).then_some(Vpn(above));
            if at < stop {
                let leaf = self.leaves.get(node);
                for at in at..stop {
                    out.values.push(self.values.take(leaf.kid(at)));
                }
                self.cut(place, stop - at);
            }
            if above >= end {
                break;
            }
        }
        out
    }

    /// Panics if the first range to be removed, which has this start, or the last sticks out of
    /// `pages`. `(stop, end)`: where the ranges of the first leaf stop, and their end.
    fn check_ends(&self, pages: VpnRange, start: u64, (stop, end): (usize, u64)) {
        let end = match self.start_from(stop) < pages.end().0 {
            true => self
                .range_before(pages.end())
                .map_or(end, |(last, _)| last.end().0),
            false => end,
        };
        assert!(
            pages.start().0 <= start && end <= pages.end().0,
            "a range of {start:#x}..{end:#x} sticks out of {pages:?}"
        );
    }
}
