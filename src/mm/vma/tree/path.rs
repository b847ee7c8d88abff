//! A path: the nodes from a leaf to the root; and a place in the leaf at its end.

/// Most levels that 2^32 ranges can need with a third of each node in use.
const LEVELS: usize = 8;

/// One node on a path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct PathStep {
    pub(super) node: u32,
    /// Index of the entry in the node; 0 in the leaf.
    at: u32,
}

impl PathStep {
    const NONE: Self = Self { node: 0, at: 0 };

    pub(super) fn new(node: u32, at: usize) -> Self {
        let at = at as u32; // A node has few.
        Self { node, at }
    }

    pub(super) const fn parts(self) -> (u32, usize) {
        (self.node, self.at as usize)
    }
}

/// The nodes from a leaf to the root, with the space between the leaf's neighbours.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Path {
    /// `steps[0]` is in the leaf.
    pub(super) steps: [PathStep; LEVELS],
    /// End of the range below the leaf, or 0.
    pub(super) floor: u64,
    /// Start of the range above the leaf, or the highest number.
    pub(super) ceiling: u64,
}

/// An entry of the leaf to which the finger points, or the place behind the last.
#[derive(Clone, Copy)]
pub(super) struct LeafPlace {
    pub(super) leaf: u32,
    /// Index of the entry in the leaf.
    pub(super) at: usize,
}

impl Path {
    pub(super) const EMPTY: Self = Self {
        steps: [PathStep::NONE; LEVELS],
        floor: 0,
        ceiling: u64::MAX,
    };

    pub(super) const fn leaf(&self) -> PathStep {
        self.steps[0]
    }
}
