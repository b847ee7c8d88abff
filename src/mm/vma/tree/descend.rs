//! The way from the root down to a leaf, which the finger remembers.

use super::{
    path::{Path, PathStep},
    vma_tree::VmaTree,
};
use crate::addr::Vpn;

impl<V> VmaTree<V> {
    /// Points the finger at `at`, near which the next look-ups and changes will be.
    pub(crate) fn focus(&mut self, at: Vpn) {
        if !self.is_empty() {
            self.point_at(at.0);
        }
    }

    /// Points the finger at the leaf for `at` and returns the path there.
    pub(super) fn point_at(&mut self, at: u64) -> Path {
        if self.finger.holds(at).is_none() {
            self.finger.path = self.way_to(at);
            self.leaf_changed();
        }
        self.finger.path.clone()
    }

    /// Reads the bounds of the finger's leaf again after its ranges changed.
    pub(super) fn leaf_changed(&mut self) {
        let leaf = self.leaf(self.finger.leaf());
        (self.finger.start, self.finger.end) = if leaf.len() == 0 {
            (0, 0)
        } else {
            leaf.bounds()
        };
    }

    /// Forgets the finger, because nodes were made, freed or moved.
    pub(super) fn forget(&mut self) {
        self.finger.end = 0;
    }
}

impl<V> VmaTree<V> {
    /// The path to the first range that ends after `start`, with the bounds that this range may
    /// extend to. If there is no such range, the path to the place after the last one. The tree
    /// must not be empty.
    pub(super) fn path(&mut self, start: Vpn) -> Path {
        let mut path = self.point_at(start.0);
        let id = path.leaf().node;
        let leaf = self.leaf(id);
        let at = leaf.ending_by(start.0);
        path.steps[0] = PathStep::new(id, at);
        if at > 0 {
            path.floor = leaf.end(at - 1);
        }
        if at + 1 < leaf.len() {
            path.ceiling = leaf.start(at + 1);
        }
        path
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

    /// The path to the range that starts at `start`; panics if there is none.
    pub(super) fn path_of(&mut self, start: Vpn) -> Path {
        assert!(
            !self.is_empty(),
            "no range starts at {start:?}: there is none at all"
        );
        let path = self.path(start);
        let (node, at) = path.leaf().parts();
        let leaf = self.leaf(node);
        assert!(
            at < leaf.len() && leaf.start(at) == start.0,
            "no range starts at {start:?}"
        );
        path
    }
}
