//! The way from the root down to a leaf, which the finger remembers.

use super::{
    path::{LeafPlace, Path, PathStep},
    vma_tree::VmaTree,
};
use crate::addr::Vpn;

impl<V> VmaTree<V> {
    /// Points the finger at `at`, near which the next look-ups and changes will be.
    #[inline]
    pub(crate) fn focus(&mut self, at: Vpn) {
        if !self.is_empty() {
            self.place(at);
        }
    }

    /// Points the finger at the first range that ends after `start`. If there is no such range, at
    /// the place after the last one. The tree must not be empty.
    #[inline]
    pub(super) fn place(&mut self, start: Vpn) -> LeafPlace {
        match self.finger.place(start.0) {
            Some(place) => place,
            None => self.point_at(start.0),
        }
    }

    /// Searches the place for `at`, and points the finger there.
    #[inline(never)]
    fn point_at(&mut self, at: u64) -> LeafPlace {
        let held = self.finger.holds(at);
        if held.is_none() {
            self.finger.path = self.way_to(at);
        }
        let id = self.finger.leaf();
        let leaf = self.leaves.get(id);
        let at = leaf.ending_by(at);
        match held {
            Some(_) => self.finger.point_in(leaf, at),
            None => self.finger.point(leaf, at),
        }
        LeafPlace { leaf: id, at }
    }

    /// Forgets the finger, because nodes were made, freed or moved.
    pub(super) fn forget(&mut self) {
        self.finger.forget();
    }

    /// The end of the range below `place`, or 0.
    pub(super) fn floor(&self, place: LeafPlace) -> u64 {
        match place.at {
            0 => self.finger.path.floor,
            at => self.leaf(place.leaf).end(at - 1),
        }
    }

    /// The start of the range at index `at` of the finger's leaf, or of the range above the leaf;
    /// the highest number if there is none.
    pub(super) fn start_from(&self, at: usize) -> u64 {
        let leaf = self.leaf(self.finger.leaf());
        match at < leaf.len() {
            true => leaf.start(at),
            false => self.finger.path.ceiling,
        }
    }

    /// The path to the leaf with the first range that ends after `at`, or to the last leaf.
    pub(super) fn way_to(&self, at: u64) -> Path {
        let mut path = Path::EMPTY;
        let mut id = self.root;
        for level in (1..=self.height).rev() {
            let node = self.inner(id);
            let at = node.home_of(at);
            path.steps[level] = PathStep::new(id, at);
            if at > 0 {
                path.floor = node.end(at - 1);
            }
            if at + 1 < node.len() {
                path.ceiling = node.start(at + 1);
            }
            id = node.kid(at);
        }
        path.steps[0].node = id;
        path
    }

    /// Points the finger at the range that starts at `start`; panics if there is none.
    pub(super) fn place_of(&mut self, start: Vpn) -> LeafPlace {
        assert!(
            !self.is_empty(),
            "no range starts at {start:?}: there is none at all"
        );
        let place = self.place(start);
        let leaf = self.leaf(place.leaf);
        assert!(
            place.at < leaf.len() && leaf.start(place.at) == start.0,
            "no range starts at {start:?}"
        );
        place
    }
}
