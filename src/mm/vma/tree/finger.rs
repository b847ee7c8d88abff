//! Where the tree was changed last, or will be next: an operation asks and changes around one place, and walks down from
//! the root once for all of it.

use super::VmaTree;
use super::path::Path;
use crate::addr::Vpn;

/// The way to one leaf, and which pages are that leaf's.
#[derive(Clone)]
pub(super) struct Finger {
    /// Its floor and ceiling are those of the leaf as a whole; where in the leaf it ends has no meaning.
    pub(super) path: Path,
    /// Start of the leaf's first range.
    pub(super) start: u64,
    /// End of its last range; 0: the finger points nowhere.
    pub(super) end: u64,
}

impl Finger {
    pub(super) const NOWHERE: Self = Self {
        path: Path::EMPTY,
        start: 0,
        end: 0,
    };

    /// The leaf that has the first range which ends after `at`, if the finger points at it.
    #[inline]
    pub(super) fn holds(&self, at: u64) -> Option<u32> {
        (self.start <= at && at < self.end).then(|| self.leaf())
    }

    /// The leaf that has the last range which starts before `at`, if the finger points at it.
    #[inline]
    pub(super) fn holds_before(&self, at: u64) -> Option<u32> {
        (self.start < at && at <= self.end).then(|| self.leaf())
    }

    #[inline]
    pub(super) fn leaf(&self) -> u32 {
        self.path.leaf().node
    }
}

impl<V> VmaTree<V> {
    /// The next questions and changes will be near `at`.
    pub(crate) fn focus(&mut self, at: Vpn) {
        if !self.is_empty() {
            self.point_at(at.0);
        }
    }

    /// Makes the finger point at the leaf for `at`; returns the way there.
    pub(super) fn point_at(&mut self, at: u64) -> Path {
        if self.finger.holds(at).is_none() {
            self.finger.path = self.way_to(at);
            self.leaf_changed();
        }
        self.finger.path.clone()
    }

    /// The leaf that the finger points at has other ranges now.
    pub(super) fn leaf_changed(&mut self) {
        let leaf = self.leaf(self.finger.leaf());
        (self.finger.start, self.finger.end) = if leaf.len() == 0 {
            (0, 0)
        } else {
            leaf.bounds()
        };
    }

    /// Nodes have come, gone or moved.
    pub(super) fn forget(&mut self) {
        self.finger.end = 0;
    }
}
