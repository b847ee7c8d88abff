//! The finger: the path to the leaf that was used last, and the place in it. An operation reads and
//! changes ranges around one place, so it walks down from the root, and searches a leaf, once for
//! all of them.

use super::{
    node::Leaf,
    path::{LeafPlace, Path},
};

/// The path to one leaf, the pages that this leaf covers, and a place in it.
#[derive(Clone)]
pub(super) struct Finger {
    pub(super) path: Path,
    /// Start of the leaf's first range.
    first: u64,
    /// The first range that ends after a page from here on, up to `to`, is in the leaf, or there is
    /// none.
    from: u64,
    /// End of these pages; 0 if the finger points nowhere.
    to: u64,
    known: KnownPlace,
}

/// A place in the finger's leaf.
#[derive(Clone, Copy)]
struct KnownPlace {
    /// Index of the first range that ends after each of the pages.
    at: usize,
    /// The first of these pages.
    from: u64,
    /// One past the last of these pages; 0 without a place.
    to: u64,
}

impl Finger {
    pub(super) const NOWHERE: Self = Self {
        path: Path::EMPTY,
        first: 0,
        from: 0,
        to: 0,
        known: KnownPlace::NOWHERE,
    };

    /// The leaf with the first range that ends after `at`, if the finger points at it.
    #[inline]
    pub(super) fn holds(&self, at: u64) -> Option<u32> {
        (self.from <= at && at < self.to).then(|| self.leaf())
    }

    /// The leaf with the last range that starts before `at`, if the finger points at it.
    #[inline]
    pub(super) fn holds_before(&self, at: u64) -> Option<u32> {
        let here = self.to > 0 && self.first < at && at <= self.path.ceiling;
        here.then(|| self.leaf())
    }

    /// The place of the first range that ends after `at`, if the finger points there. Behind the
    /// last range of the leaf there is none.
    #[inline]
    pub(super) fn place(&self, at: u64) -> Option<LeafPlace> {
        let known = &self.known;
        (known.from <= at && at < known.to).then(|| LeafPlace {
            leaf: self.leaf(),
            at: known.at,
        })
    }

    #[inline]
    pub(super) fn leaf(&self) -> u32 {
        self.path.leaf().node
    }

    /// Reads the pages that the leaf covers, after its ranges changed, and points at index `at` in
    /// it.
    #[inline]
    pub(super) fn point(&mut self, leaf: &Leaf, at: usize) {
        if leaf.len() == 0 {
            return self.forget();
        }
        let (first, end) = leaf.bounds();
        self.first = first;
        self.from = self.path.floor;
        // Above the last leaf of all there is no other.
        self.to = match self.path.ceiling {
            u64::MAX => u64::MAX,
            _ => end,
        };
        self.point_in(leaf, at);
    }

    /// Points at index `at` of the leaf.
    #[inline]
    pub(super) fn point_in(&mut self, leaf: &Leaf, at: usize) {
        self.known = KnownPlace {
            at,
            from: match at {
                0 => self.from,
                _ => leaf.end(at - 1),
            },
            to: match at < leaf.len() {
                true => leaf.end(at),
                false => self.to,
            },
        };
    }

    /// Forgets the path, because nodes were made, freed or moved.
    pub(super) fn forget(&mut self) {
        self.to = 0;
        self.known = KnownPlace::NOWHERE;
    }

    /// The pages that the leaf covers; `None` if the finger points nowhere.
    #[cfg(any(test, debug_assertions))]
    pub(super) fn covers(&self) -> Option<(u64, u64)> {
        (self.to > 0).then_some((self.from, self.to))
    }

    /// The index of the place, and the pages that lead there.
    #[cfg(any(test, debug_assertions))]
    pub(super) fn known(&self) -> (usize, u64, u64) {
        (self.known.at, self.known.from, self.known.to)
    }
}

impl KnownPlace {
    const NOWHERE: Self = Self {
        at: 0,
        from: 0,
        to: 0,
    };
}
