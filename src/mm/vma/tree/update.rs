//! Changing a range in place: the nodes read its bounds and tag again afterwards.

use crate::addr::Vpn;

use super::{
    node::Entry,
    path::LeafPlace,
    vma_tree::{Span, VmaTree},
};

impl<V: Span> VmaTree<V> {
    /// Lets `change` alter the range that starts at `start` in any way, its bounds included, and
    /// returns the result of `change`.
    ///
    /// The cost is little more than the look-up if the bounds stay, one path of nodes if the range
    /// stays between its neighbours, and two if it goes elsewhere; the value stays in its memory.
    /// If `change` panics after altering the bounds, the tree must not be used again.
    ///
    /// # Panics
    ///
    /// If no range starts at `start`, or if the altered range is empty or overlaps another.
    pub(crate) fn update<T>(&mut self, start: Vpn, change: impl FnOnce(&mut V) -> T) -> T {
        let place = self.place_of(start);
        let LeafPlace { leaf: node, at } = place;
        let old = self.leaf(node).entry(at);
        let value = self.values.get_mut(old.kid);
        let result = change(value);
        let new = Entry {
            start: value.start().0,
            end: value.end().0,
            note: value.tag(),
            ..old
        };
        if new == old {
            return result;
        }
        if (new.start, new.end) == (old.start, old.end) {
            self.leaves.get_mut(node).note_down(at, new.note);
            return result;
        }
        assert!(
            new.start < new.end,
            "an empty range instead of that at {start:?}"
        );
        if self.floor(place) <= new.start && new.end <= self.start_from(at + 1) {
            self.leaves.get_mut(node).set(at, new);
            self.climb(at);
        } else {
            self.cut(place, 1);
            let place = self.place_for(new.start, new.end);
            self.enter(place, new);
        }
        result
    }
}
