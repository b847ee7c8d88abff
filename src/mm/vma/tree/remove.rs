//! Removing ranges: all those of one leaf at a time, with one update of the nodes above it.

use crate::addr::{Vpn, VpnRange};

use smallvec::SmallVec;

use super::{node::NONE, path::LeafPlace, vma_tree::VmaTree};

/// The hole that removed ranges left.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Emptied {
    /// End of the range below; 0 without one.
    pub(crate) floor: Vpn,
    /// Start of the range above.
    pub(crate) ceiling: Option<Vpn>,
}

impl Emptied {
    /// All of an empty tree.
    const ALL: Self = Self {
        floor: Vpn(0),
        ceiling: None,
    };
}

/// The start of the range above; the highest number is none.
fn bound(above: u64) -> Option<Vpn> {
    (above != u64::MAX).then_some(Vpn(above))
}

impl<V> VmaTree<V> {
    /// Removes the range that starts at `start` and returns its value.
    ///
    /// # Panics
    ///
    /// If no range starts there.
    pub(crate) fn remove(&mut self, start: Vpn) -> V {
        let place = self.place_of(start);
        let value = self.values.take(self.leaf(place.leaf).kid(place.at));
        self.cut(place, 1);
        value
    }

    /// Takes `count` entries out of the finger's leaf. Their values were taken already, or another
    /// place for them comes next.
    pub(super) fn cut(&mut self, place: LeafPlace, count: usize) {
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

    /// Returns the bounds of the hole in which `pages` lie.
    pub(crate) fn hole(&mut self, pages: VpnRange) -> Emptied {
        if self.is_empty() {
            return Emptied::ALL;
        }
        let place = self.place(pages.start());
        Emptied {
            floor: Vpn(self.floor(place)),
            ceiling: bound(self.start_from(place.at)),
        }
    }

    /// Removes all ranges inside `pages`, and puts their values behind `values`, ascending.
    ///
    /// # Panics
    ///
    /// If a range lies only partly inside; nothing is removed then.
    pub(crate) fn drain_range(
        &mut self,
        pages: VpnRange,
        values: &mut SmallVec<[V; 1]>,
    ) -> Emptied {
        let mut out = Emptied::ALL;
        if self.is_empty() {
            return out;
        }
        let mut place = self.place(pages.start());
        out.floor = Vpn(self.floor(place));
        self.check_ends(pages, place);
        loop {
            let above = self.drain_leaf(place, pages.end().0, values);
            if above >= pages.end().0 {
                out.ceiling = bound(above);
                return out;
            }
            place = self.place(pages.start());
        }
    }

    /// Removes the ranges from `place` on that start below `end` and are in the finger's leaf.
    /// Returns the start of the range above them; the highest number if there is none.
    fn drain_leaf(&mut self, place: LeafPlace, end: u64, values: &mut SmallVec<[V; 1]>) -> u64 {
        let leaf = self.leaves.get(place.leaf);
        let (mut stop, len) = (place.at, leaf.len());
        while stop < len && leaf.start(stop) < end {
            values.push(self.values.take(leaf.kid(stop)));
            stop += 1;
        }
        let above = self.start_from(stop);
        if stop > place.at {
            self.cut(place, stop - place.at);
        }
        above
    }

    /// Panics if a range from `place` on lies only partly inside of `pages`.
    fn check_ends(&self, pages: VpnRange, place: LeafPlace) {
        let first = self.start_from(place.at);
        if first >= pages.end().0 {
            return;
        }
        let leaf = self.leaf(place.leaf);
        let end = match self.start_from(place.at + 1) < pages.end().0 {
            // The first one is not the last.
            true => self.range_before(pages.end()).map(|(last, _)| last.end().0),
            false => Some(leaf.end(place.at)),
        };
        assert!(
            pages.start().0 <= first && end <= Some(pages.end().0),
            "a range of {first:#x}..{end:#x?} sticks out of {pages:?}"
        );
    }
}
