//! The finger: the path to the leaf that was used last. An operation reads and changes ranges
//! around one place, so it walks down from the root once for all of them.

use super::path::Path;

/// The path to one leaf, and the pages that this leaf covers.
#[derive(Clone)]
pub(super) struct Finger {
    pub(super) path: Path,
    /// Start of the leaf's first range.
    pub(super) start: u64,
    /// End of the leaf's last range; 0 if the finger points nowhere.
    pub(super) end: u64,
}

impl Finger {
    pub(super) const NOWHERE: Self = Self {
        path: Path::EMPTY,
        start: 0,
        end: 0,
    };

    /// The leaf with the first range that ends after `at`, if the finger points at it.
    #[inline]
    pub(super) fn holds(&self, at: u64) -> Option<u32> {
        (self.start <= at && at < self.end).then(|| self.leaf())
    }

    /// The leaf with the last range that starts before `at`, if the finger points at it.
    #[inline]
    pub(super) fn holds_before(&self, at: u64) -> Option<u32> {
        (self.start < at && at <= self.end).then(|| self.leaf())
    }

    #[inline]
    pub(super) fn leaf(&self) -> u32 {
        self.path.leaf().node
    }
}
