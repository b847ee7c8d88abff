//! Intervals and their keys.

/// The key of an interval, by which it is found and ordered.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Key {
    /// The first number in the interval.
    pub(crate) start: u64,
    /// A number of the caller's choice that tells apart, and orders, intervals with an equal start.
    pub(crate) seq: u64,
}

/// The summary of one interval or of one subtree.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct NodeEntry {
    /// The interval's key, or the lowest key of the subtree.
    pub(super) key: Key,
    /// The interval's end, or the highest end of the subtree.
    pub(super) end: u64,
}

/// An interval with its value.
pub(super) struct Item<V> {
    pub(super) entry: NodeEntry,
    pub(super) value: V,
}
