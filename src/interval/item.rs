//! Intervals and their keys.

/// What an interval is found by and ordered by.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Key {
    /// The first number in the interval.
    pub(crate) start: u64,
    /// Tells intervals apart, and orders those with the same start; the caller's choice.
    pub(crate) seq: u64,
}

/// What a node knows of one interval or of one subtree.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct NodeEntry {
    /// The interval's key, or the lowest of the subtree.
    pub(super) key: Key,
    /// The interval's end, or the highest of the subtree.
    pub(super) end: u64,
}

/// An interval outside a tree.
pub(super) struct Item<V> {
    pub(super) entry: NodeEntry,
    pub(super) value: V,
}
