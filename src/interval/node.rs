//! One node of the tree.
//!
//! A node keeps its entries sorted by key, in one array for each field. Unused places have values
//! that overlap nothing. So a search counts over an array of fixed length, a query makes a bit mask
//! of one, and neither branches on the data.

use super::item::{Key, NodeEntry};

/// The most intervals of a leaf.
pub(super) const LEAF: usize = 64;
/// The most children of an inner node: three levels hold 262,144 intervals. As many as a mask has
/// bits, because one more level costs a query more than a comparison of twice as many entries.
pub(super) const INNER: usize = 64;
/// The number of no node: the end of the free list.
pub(super) const NONE: u32 = u32::MAX;

/// The number of keys in a cache line.
const BLOCK: usize = 8;

/// A leaf: its entries are the intervals, with their values.
pub(super) type LeafNode<V> = Node<Option<V>, LEAF>;
/// An inner node: each entry is the summary of one child, and the item is the number of the child.
pub(super) type InnerNode = Node<u32, INNER>;

/// Up to `WIDTH` entries in ascending order, each with a `T`.
#[repr(align(64))]
pub(super) struct Node<T, const WIDTH: usize> {
    starts: [u64; WIDTH],
    ends: [u64; WIDTH],
    items: [T; WIDTH],
    /// Behind the other arrays, because only entries with equal starts need it.
    seqs: [u64; WIDTH],
    len: u32,
    /// The next free node of the pool.
    pub(super) next: u32,
}

impl<T, const WIDTH: usize> Node<T, WIDTH> {
    /// The least number of entries of a node that is not the root: a third, because with a half a
    /// run of alternating insertions and removals would split and merge one node again and again.
    pub(super) const MIN: usize = WIDTH / 3;
    /// Two nodes with at most this many entries together are merged; with more they share them
    /// evenly.
    pub(super) const MERGED: usize = WIDTH - WIDTH / 4;

    #[inline]
    pub(super) const fn len(&self) -> usize {
        self.len as usize
    }

    pub(super) const fn is_full(&self) -> bool {
        self.len() == WIDTH
    }

    #[inline]
    pub(super) const fn entry(&self, at: usize) -> NodeEntry {
        NodeEntry {
            key: Key {
                start: self.starts[at],
                seq: self.seqs[at],
            },
            end: self.ends[at],
        }
    }

    #[inline]
    pub(super) const fn item(&self, at: usize) -> &T {
        &self.items[at]
    }

    #[inline]
    pub(super) const fn item_mut(&mut self, at: usize) -> &mut T {
        &mut self.items[at]
    }

    #[inline]
    pub(super) const fn set(&mut self, at: usize, entry: NodeEntry) {
        self.starts[at] = entry.key.start;
        self.seqs[at] = entry.key.seq;
        self.ends[at] = entry.end;
    }

    /// Returns the entry for this node in its parent. Reads all entries.
    pub(super) fn summary(&self) -> NodeEntry {
        NodeEntry {
            end: self.last_end(),
            ..self.entry(0)
        }
    }

    /// Returns the highest end.
    pub(super) fn last_end(&self) -> u64 {
        self.ends.iter().copied().fold(0, u64::max)
    }

    /// Returns the number of entries below `key`.
    #[inline]
    pub(super) fn below(&self, key: Key) -> usize {
        self.rank(key.start, |seq| seq < key.seq)
    }

    /// Returns the index of the child in which `key` is or belongs.
    #[inline]
    pub(super) fn home_of(&self, key: Key) -> usize {
        self.rank(key.start, |seq| seq <= key.seq).saturating_sub(1)
    }

    /// Returns the number of entries that start below `start`, or at it with a `seq` for which
    /// `low` returns true.
    #[inline]
    fn rank(&self, start: u64, low: impl Fn(u64) -> bool) -> usize {
        let from = count(&self.starts, |other| other < start);
        if from >= self.len() || self.starts[from] != start {
            return from;
        }
        let to = count(&self.starts, |other| other <= start).min(self.len());
        from + self.seqs[from..to].partition_point(|&seq| low(seq))
    }

    /// Returns the entries that overlap `[from, to)`, one bit each.
    #[inline]
    pub(super) fn overlapping(&self, from: u64, to: u64) -> u64 {
        let below = count(&self.starts, |start| start < to);
        let mask = self
            .ends
            .iter()
            .rev()
            .fold(0, |mask, &end| mask << 1 | u64::from(end > from));
        mask & !u64::MAX.checked_shl(below as u32).unwrap_or(0)
    }
}

impl<T: Default, const WIDTH: usize> Node<T, WIDTH> {
    pub(super) fn new() -> Self {
        Self {
            starts: [u64::MAX; WIDTH],
            ends: [0; WIDTH],
            items: std::array::from_fn(|_| T::default()),
            seqs: [0; WIDTH],
            len: 0,
            next: NONE,
        }
    }

    pub(super) fn insert(&mut self, at: usize, entry: NodeEntry, item: T) {
        let len = self.len();
        self.starts.copy_within(at..len, at + 1);
        self.ends.copy_within(at..len, at + 1);
        self.seqs.copy_within(at..len, at + 1);
        self.items[at..=len].rotate_right(1);
        self.items[at] = item;
        self.set(at, entry);
        self.len += 1;
    }

    pub(super) fn remove(&mut self, at: usize) -> T {
        let len = self.len();
        let item = std::mem::take(&mut self.items[at]);
        self.starts.copy_within(at + 1..len, at);
        self.ends.copy_within(at + 1..len, at);
        self.seqs.copy_within(at + 1..len, at);
        self.items[at..len].rotate_left(1);
        self.truncate(len - 1);
        item
    }

    /// Forgets all entries from index `len` on, whose items are gone already.
    fn truncate(&mut self, len: usize) {
        let unused = len..self.len();
        self.starts[unused.clone()].fill(u64::MAX);
        self.ends[unused].fill(0);
        self.len = len as u32;
    }

    /// Moves entries between two neighbours until `left` has `want`.
    pub(super) fn share(left: &mut Self, right: &mut Self, want: usize) {
        let (have, other) = (left.len(), right.len());
        if want >= have {
            let moved = want - have;
            left.take(have, right, 0, moved);
            left.len = want as u32;
            right.shift(moved..other, 0);
            right.truncate(other - moved);
        } else {
            let moved = have - want;
            right.shift(0..other, moved);
            right.take(0, left, want, moved);
            right.len = (moved + other) as u32;
            left.truncate(want);
        }
    }

    /// Moves entries inside of the node, over entries that are gone already.
    fn shift(&mut self, from: std::ops::Range<usize>, to: usize) {
        self.starts.copy_within(from.clone(), to);
        self.ends.copy_within(from.clone(), to);
        self.seqs.copy_within(from.clone(), to);
        if from.start < to {
            self.items[from.start..to + from.len()].rotate_right(to - from.start);
        } else {
            self.items[to..from.end].rotate_left(from.start - to);
        }
    }

    /// Moves `count` entries of `source` here, over unused ones.
    fn take(&mut self, to: usize, source: &mut Self, from: usize, count: usize) {
        let (to, from) = (to..to + count, from..from + count);
        self.starts[to.clone()].copy_from_slice(&source.starts[from.clone()]);
        self.ends[to.clone()].copy_from_slice(&source.ends[from.clone()]);
        self.seqs[to.clone()].copy_from_slice(&source.seqs[from.clone()]);
        self.items[to].swap_with_slice(&mut source.items[from]);
    }
}

/// Returns the number of the ascending `keys` for which `low` returns true; these are a prefix.
///
/// The last key of each block tells the block, and only that block is compared key by key:
/// additions of comparisons, and no branch.
#[inline]
fn count<const WIDTH: usize>(keys: &[u64; WIDTH], low: impl Fn(u64) -> bool) -> usize {
    let (blocks, _) = keys.as_chunks::<BLOCK>();
    let whole = blocks[..blocks.len() - 1]
        .iter()
        .map(|block| usize::from(low(block[BLOCK - 1])))
        .sum::<usize>();
    let inside = blocks[whole]
        .iter()
        .map(|&key| usize::from(low(key)))
        .sum::<usize>();
    whole * BLOCK + inside
}
