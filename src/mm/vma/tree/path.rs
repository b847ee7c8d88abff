//! A change writes the nodes on one path from a leaf to the root and no others; it stops climbing where nothing changed.

use crate::addr::Vpn;

use super::VmaTree;
use super::node::{Entry, Inner, Leaf};

/// As many levels as 2^32 ranges can need with a third of each node in use.
const LEVELS: usize = 8;

/// One node on a path. Small, as paths are copied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Step {
    pub(super) node: u32,
    /// Which entry of the node.
    at: u32,
}

impl Step {
    const NONE: Self = Self { node: 0, at: 0 };

    fn new(node: u32, at: usize) -> Self {
        let at = at as u32; // A node has few.
        Self { node, at }
    }

    pub(super) const fn parts(self) -> (u32, usize) {
        (self.node, self.at as usize)
    }
}

/// The nodes from a leaf to the root, with the holes around the entry in the leaf.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Path {
    /// `steps[0]` is in the leaf.
    steps: [Step; LEVELS],
    /// End of the range before, or 0.
    pub(super) floor: u64,
    /// Start of the range after, or the highest number.
    pub(super) ceiling: u64,
}

/// How the holes in a node changed.
#[derive(Clone, Copy)]
pub(super) struct Holes {
    /// Pages of the widest hole that is no longer there.
    pub(super) gone: u64,
    /// Pages of the widest hole that was not there before.
    pub(super) made: u64,
}

impl Holes {
    /// The widest hole after the change, where that was `old` before; `None` if all holes must be looked at, which
    /// only the loss of a widest one can require.
    fn widest(self, old: u64) -> Option<u64> {
        if self.made >= old {
            Some(self.made)
        } else if self.gone < old {
            Some(old)
        } else {
            None
        }
    }
}

impl Path {
    pub(super) const EMPTY: Self = Self {
        steps: [Step::NONE; LEVELS],
        floor: 0,
        ceiling: u64::MAX,
    };

    pub(super) const fn leaf(&self) -> Step {
        self.steps[0]
    }
}

impl<V> VmaTree<V> {
    /// The path to the first range that ends after `start`, with the limits of where that range may extend; if there is
    /// none, the path to the place after the last range. The tree is not empty.
    pub(super) fn path(&mut self, start: Vpn) -> Path {
        let mut path = self.point_at(start.0);
        let id = path.leaf().node;
        let leaf = self.leaf(id);
        let at = leaf.ending_by(start.0);
        path.steps[0] = Step::new(id, at);
        if at > 0 {
            path.floor = leaf.end(at - 1);
        }
        if at + 1 < leaf.len() {
            path.ceiling = leaf.start(at + 1);
        }
        path
    }

    /// The path to the leaf where the first range is that ends after `at`, or the last leaf.
    pub(super) fn way_to(&self, at: u64) -> Path {
        let mut path = Path::EMPTY;
        let mut id = self.root;
        for level in (1..=self.height).rev() {
            let node = self.inner(id);
            let at = node.home_of(at);
            path.steps[level] = Step::new(id, at);
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

    /// The path to the range that starts at `start`.
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

    /// What the parent of node `id` on `level` is to keep of it.
    pub(super) fn summary(&self, level: usize, id: u32) -> Entry {
        let (start, end) = self.bounds_of(level, id);
        let gap = if level == 0 {
            self.leaf(id).widest()
        } else {
            self.inner(id).widest()
        };
        Entry {
            start,
            end,
            note: gap,
            kid: id,
        }
    }

    pub(super) fn bounds_of(&self, level: usize, id: u32) -> (u64, u64) {
        if level == 0 {
            self.leaf(id).bounds()
        } else {
            self.inner(id).bounds()
        }
    }

    pub(super) fn len_of(&self, level: usize, id: u32) -> usize {
        if level == 0 {
            self.leaf(id).len()
        } else {
            self.inner(id).len()
        }
    }

    /// Makes the nodes above a leaf right again whose holes had this `change`: what they know of it, and that each has
    /// enough entries.
    pub(super) fn climb(&mut self, path: &Path, change: Holes) {
        debug_assert_eq!(self.finger.leaf(), path.leaf().node);
        self.leaf_changed();
        let mut change = Some(change);
        for level in 1..=self.height {
            let (node, at) = path.steps[level].parts();
            let old = self.inner(node).entry(at);
            if self.len_of(level - 1, old.kid) < least(level - 1) {
                self.fill_up(level, node, at);
                change = None;
                continue;
            }
            let (start, end) = self.bounds_of(level - 1, old.kid);
            let gap = change
                .and_then(|holes| holes.widest(old.note))
                .unwrap_or_else(|| self.summary(level - 1, old.kid).note);
            let new = Entry {
                start,
                end,
                note: gap,
                ..old
            };
            if new == old {
                return;
            }
            let node = self.inners.get_mut(node);
            let gone = node.widest_at(at);
            node.set(at, new);
            let made = node.widest_at(at);
            change = Some(Holes { gone, made });
        }
    }

    /// Child `at` of `parent`, which stands on `level`, has too few entries: joins it with a neighbour, or gets some.
    fn fill_up(&mut self, level: usize, parent: u32, at: usize) {
        self.forget();
        let at = at.saturating_sub(1);
        let node = self.inner(parent);
        let (left, right) = (node.kid(at), node.kid(at + 1));
        let below = level - 1;
        if self.len_of(below, left) + self.len_of(below, right) > merged(below) {
            self.even_out(level, parent, at);
            return;
        }
        if below == 0 {
            self.leaves.merge(left, right);
        } else {
            self.inners.merge(left, right);
        }
        let joined = self.summary(below, left);
        let node = self.inners.get_mut(parent);
        node.set(at, joined);
        node.remove(at + 1, 1);
    }

    /// Shares the entries of children `at` and `at + 1` of `parent`, which stands on `level`.
    pub(super) fn even_out(&mut self, level: usize, parent: u32, at: usize) {
        let node = self.inner(parent);
        let (left, right) = (node.kid(at), node.kid(at + 1));
        if level == 1 {
            self.leaves.even_out(left, right);
        } else {
            self.inners.even_out(left, right);
        }
        let (lower, upper) = (
            self.summary(level - 1, left),
            self.summary(level - 1, right),
        );
        let node = self.inners.get_mut(parent);
        node.set(at, lower);
        node.set(at + 1, upper);
    }
}

/// Fewest entries of a node on `level`, unless it is the root.
pub(super) const fn least(level: usize) -> usize {
    if level == 0 { Leaf::MIN } else { Inner::MIN }
}

/// [`MERGED`](super::node::Node::MERGED) on `level`.
pub(super) const fn merged(level: usize) -> usize {
    if level == 0 {
        Leaf::MERGED
    } else {
        Inner::MERGED
    }
}
