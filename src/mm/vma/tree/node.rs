//! One node of the tree: sorted entries in fixed arrays.
//!
//! Unused keys are `u64::MAX`, so a search counts keys of the whole array without a branch on the
//! data. Leaves and inner nodes share the code: a note is the widest hole in an inner node, and the
//! tag of a value in a leaf.

use super::holes::Holes;
use crate::addr::{Vpn, VpnRange};

/// Ranges that a leaf can hold. Larger leaves would suit large trees as well, but most processes
/// have fewer ranges in all.
pub(super) const LEAF: usize = 32;
/// Children that an inner node can have: three levels hold 65,530 ranges.
pub(super) const INNER: usize = 64;
/// No node: the end of a chain, and the `kid` of an unused entry.
pub(super) const NONE: u32 = u32::MAX;

/// Keys in a cache line.
const BLOCK: usize = 8;

/// A leaf: its entries are the ranges, and `kid` is the number of the value.
pub(super) type Leaf = Node<LEAF, false>;
/// An inner node: each entry sums up one child, and `kid` is the number of that child.
pub(super) type Inner = Node<INNER, true>;

/// One range, or the sum of one subtree, as a node keeps it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Entry {
    /// First page.
    pub(super) start: u64,
    /// One past the last page.
    pub(super) end: u64,
    /// Of a subtree: pages of the widest hole between `start` and `end`. Of a range: the
    /// [`tag`](super::Span::tag) of the value.
    pub(super) note: u64,
    /// Number of the child or of the value.
    pub(super) kid: u32,
}

/// Up to `WIDTH` entries in ascending order. `INNER` tells an inner node from a leaf.
#[derive(Clone)]
#[repr(align(64))]
pub(super) struct Node<const WIDTH: usize, const INNER: bool> {
    ends: [u64; WIDTH],
    starts: [u64; WIDTH],
    kids: [u32; WIDTH],
    notes: [u64; WIDTH],
    holes: Holes,
    len: u32,
    /// The next node to the right on the same level, or the next free node of the pool.
    pub(super) next: u32,
}

impl<const WIDTH: usize, const INNER: bool> Node<WIDTH, INNER> {
    /// Fewest entries of a node that is not the root. A third, because with half a run of
    /// alternating inserts and removals would split and merge the same node again and again.
    pub(super) const MIN: usize = WIDTH / 3;
    /// Most entries of two neighbours that are merged into one; with more they share them evenly.
    pub(super) const MERGED: usize = WIDTH - WIDTH / 4;

    pub(super) const EMPTY: Self = Self {
        ends: [u64::MAX; WIDTH],
        starts: [u64::MAX; WIDTH],
        kids: [NONE; WIDTH],
        notes: [0; WIDTH],
        holes: Holes::NONE,
        len: 0,
        next: NONE,
    };

    #[inline]
    pub(super) const fn len(&self) -> usize {
        self.len as usize
    }

    pub(super) const fn is_full(&self) -> bool {
        self.len() == WIDTH
    }

    #[inline]
    pub(super) const fn start(&self, at: usize) -> u64 {
        self.starts[at]
    }

    #[inline]
    pub(super) const fn end(&self, at: usize) -> u64 {
        self.ends[at]
    }

    #[inline]
    pub(super) const fn kid(&self, at: usize) -> u32 {
        self.kids[at]
    }

    /// Range and tag of entry `at` of a leaf.
    #[inline]
    pub(super) fn range(&self, at: usize) -> (VpnRange, u64) {
        let range = VpnRange::new(Vpn(self.starts[at]), Vpn(self.ends[at]));
        (range.expect("no range is empty"), self.notes[at])
    }

    #[inline]
    pub(super) const fn note(&self, at: usize) -> u64 {
        self.notes[at]
    }

    /// Pages of the widest hole inside entry `at`; 0 in a leaf.
    #[inline]
    pub(super) const fn gap(&self, at: usize) -> u64 {
        if INNER { self.notes[at] } else { 0 }
    }

    pub(super) fn entry(&self, at: usize) -> Entry {
        Entry {
            start: self.start(at),
            end: self.end(at),
            note: self.note(at),
            kid: self.kid(at),
        }
    }

    fn put(&mut self, at: usize, entry: Entry) {
        self.starts[at] = entry.start;
        self.ends[at] = entry.end;
        self.kids[at] = entry.kid;
        self.notes[at] = entry.note;
    }

    /// Replaces entry `at` by one between the same neighbours.
    pub(super) fn set(&mut self, at: usize, entry: Entry) {
        let gone = self.widest_at(at);
        self.put(at, entry);
        self.replace_holes(gone, self.holes_at(at));
    }

    /// Replaces the note of entry `at` of a leaf.
    pub(super) fn note_down(&mut self, at: usize, note: u64) {
        self.notes[at] = note;
    }

    /// Replaces entry `at` of an inner node by this sum of its child. Returns false if that is what
    /// it was.
    #[inline]
    pub(super) fn sum_up(&mut self, at: usize, sum: Entry) -> bool {
        let (start, end, note) = (self.start(at), self.end(at), self.note(at));
        if (start, end) != (sum.start, sum.end) {
            self.set(at, sum);
        } else if note != sum.note {
            self.notes[at] = sum.note;
            self.replace_holes(note, [sum.note]);
        } else {
            return false;
        }
        true
    }

    /// Replaces entries `at` and `at + 1`, which share their children anew.
    pub(super) fn set_both(&mut self, at: usize, [lower, upper]: [Entry; 2]) {
        self.put(at, lower);
        self.put(at + 1, upper);
        self.look_at_holes(u64::MAX);
    }

    /// Replaces entries `at` and `at + 1` by one.
    pub(super) fn join(&mut self, at: usize, joined: Entry) {
        self.put(at, joined);
        self.take_out(at + 1, 1);
        self.look_at_holes(u64::MAX);
    }

    /// Replaces entry `at` by two.
    pub(super) fn divide(&mut self, at: usize, [lower, upper]: [Entry; 2]) {
        self.put(at, lower);
        self.put_in(at + 1, upper);
        self.look_at_holes(u64::MAX);
    }

    /// Returns how many entries end at or before `at`: the index of the first that ends after it.
    #[inline]
    pub(super) fn ending_by(&self, at: u64) -> usize {
        // Unused keys count too if `at` is the highest number.
        count(&self.ends, |end| end <= at).min(self.len())
    }

    /// Index and `kid` of the first entry that ends after `at`. Reads neither the length nor the
    /// starts, which lie in other cache lines.
    #[inline]
    pub(super) fn seek(&self, at: u64) -> Option<(usize, u32)> {
        let index = count(&self.ends, |end| end <= at);
        let kid = *self.kids.get(index)?;
        (kid != NONE).then_some((index, kid))
    }

    /// First range of a leaf that ends after `at`, and its tag. Does not read the kids, which lie
    /// in another cache line.
    #[inline]
    pub(super) fn seek_range(&self, at: u64) -> Option<(VpnRange, u64)> {
        let index = count(&self.ends, |end| end <= at);
        let start = *self.starts.get(index)?;
        (start != u64::MAX).then(|| self.range(index))
    }

    /// Returns how many entries start before `at`.
    #[inline]
    pub(super) fn starting_below(&self, at: u64) -> usize {
        count(&self.starts, |start| start < at)
    }

    /// Index of the child that has, or would get, a range that starts at `start`.
    #[inline]
    pub(super) fn home_of(&self, start: u64) -> usize {
        self.ending_by(start).min(self.len() - 1)
    }

    /// Adds an entry, which gets index `at`.
    #[inline]
    pub(super) fn insert(&mut self, at: usize, entry: Entry) {
        let gone = self.hole_below(at);
        self.put_in(at, entry);
        self.replace_holes(gone, self.holes_at(at));
    }

    fn put_in(&mut self, at: usize, entry: Entry) {
        let len = self.len();
        // Said once for all arrays.
        assert!(at <= len && len < WIDTH, "no room at {at} of {len}");
        self.starts.copy_within(at..len, at + 1);
        self.ends.copy_within(at..len, at + 1);
        self.kids.copy_within(at..len, at + 1);
        self.notes.copy_within(at..len, at + 1);
        self.len += 1;
        self.put(at, entry);
    }

    /// Removes `count` entries from index `from` on.
    #[inline]
    pub(super) fn remove(&mut self, from: usize, count: usize) {
        let mut gone = self.hole_below(from);
        for at in from..from + count {
            gone = gone.max(self.gap(at)).max(self.hole_below(at + 1));
        }
        self.take_out(from, count);
        self.replace_holes(gone, [self.hole_below(from)]);
    }

    fn take_out(&mut self, from: usize, count: usize) {
        let len = self.len();
        let rest = from + count;
        // Said once for all arrays.
        assert!(
            from < rest && rest <= len && len <= WIDTH,
            "{count} at {from} of {len}"
        );
        self.starts.copy_within(rest..len, from);
        self.ends.copy_within(rest..len, from);
        self.kids.copy_within(rest..len, from);
        self.notes.copy_within(rest..len, from);
        self.shorten(len - count);
    }

    /// Removes all entries.
    pub(super) fn clear(&mut self) {
        self.shorten(0);
        self.holes = Holes::NONE;
    }

    /// Removes all entries from index `len` on.
    #[inline]
    fn shorten(&mut self, len: usize) {
        for at in len..self.len().min(WIDTH) {
            self.starts[at] = u64::MAX;
            self.ends[at] = u64::MAX;
            self.kids[at] = NONE;
        }
        self.len = len as u32;
    }

    /// Moves entries between two neighbours until `left` has `want` entries.
    pub(super) fn share(left: &mut Self, right: &mut Self, want: usize) {
        let (have, other) = (left.len(), right.len());
        if want >= have {
            let moved = want - have;
            left.copy_from(have, right, 0, moved);
            left.len = want as u32;
            if moved > 0 {
                right.take_out(0, moved);
            }
        } else {
            let moved = have - want;
            let old = right.clone();
            right.copy_from(0, left, want, moved);
            right.copy_from(moved, &old, 0, other);
            right.len = (moved + other) as u32;
            left.shorten(want);
        }
        left.look_at_holes(u64::MAX);
        right.look_at_holes(u64::MAX);
    }

    fn copy_from(&mut self, to: usize, source: &Self, from: usize, count: usize) {
        let (to, from) = (to..to + count, from..from + count);
        self.starts[to.clone()].copy_from_slice(&source.starts[from.clone()]);
        self.ends[to.clone()].copy_from_slice(&source.ends[from.clone()]);
        self.kids[to.clone()].copy_from_slice(&source.kids[from.clone()]);
        self.notes[to].copy_from_slice(&source.notes[from]);
    }

    /// Pages of the widest hole between entries or inside one.
    #[inline]
    pub(super) const fn widest(&self) -> u64 {
        self.holes.widest()
    }

    /// The widest hole, and the bound for the others.
    #[cfg(any(test, debug_assertions))]
    pub(super) const fn holes(&self) -> Holes {
        self.holes
    }

    /// Notes that holes went, the widest of which had `gone` pages, and that those of `made` came.
    #[inline]
    fn replace_holes<const N: usize>(&mut self, gone: u64, made: [u64; N]) {
        if !self.holes.replace(gone, made) {
            self.look_at_holes(self.holes.widest());
        }
    }

    /// Looks at all holes, none of which has more than `bound` pages.
    #[inline(never)]
    fn look_at_holes(&mut self, bound: u64) {
        let inside = (0..self.len()).map(|at| self.gap(at));
        let between = (1..self.len()).map(|at| self.hole_below(at));
        self.holes = match INNER {
            true => Holes::among(between.chain(inside), bound),
            false => Holes::among(between, bound),
        };
    }

    /// Pages of the hole between entry `at` and the one before; 0 if this node lacks one of them.
    #[inline]
    pub(super) fn hole_below(&self, at: usize) -> u64 {
        if 0 < at && at < self.len().min(WIDTH) {
            self.start(at) - self.end(at - 1)
        } else {
            0
        }
    }

    /// The holes below, inside and above entry `at`.
    #[inline]
    fn holes_at(&self, at: usize) -> [u64; 3] {
        [self.hole_below(at), self.gap(at), self.hole_below(at + 1)]
    }

    fn widest_at(&self, at: usize) -> u64 {
        self.holes_at(at).into_iter().fold(0, u64::max)
    }

    /// The entry that a parent keeps for this node, which is its child `kid`.
    #[inline]
    pub(super) const fn sum(&self, kid: u32) -> Entry {
        let (start, end) = self.bounds();
        Entry {
            start,
            end,
            note: self.widest(),
            kid,
        }
    }

    /// Start of the first entry and end of the last.
    pub(super) const fn bounds(&self) -> (u64, u64) {
        (self.starts[0], self.ends[self.len() - 1])
    }
}

/// Counts the ascending `keys` that satisfy `low`, which holds for a prefix of them.
///
/// The last key of each block of 8 finds the block, and only the keys of that block are compared:
/// additions of comparisons, no branch. One comparison chooses the half to search, because the
/// compiler makes worse code of comparing eight last keys at once.
#[inline]
fn count<const WIDTH: usize>(keys: &[u64; WIDTH], low: impl Fn(u64) -> bool) -> usize {
    let (blocks, _) = keys.as_chunks::<BLOCK>();
    let half = blocks.len() / 2;
    let upper = half * usize::from(low(blocks[half - 1][BLOCK - 1]));
    let whole = upper
        + blocks[upper..upper + half]
            .iter()
            .map(|block| usize::from(low(block[BLOCK - 1])))
            .sum::<usize>();
    let Some(block) = blocks.get(whole) else {
        return WIDTH;
    };
    let inside = block[..BLOCK - 1]
        .iter()
        .map(|&key| usize::from(low(key)))
        .sum::<usize>();
    whole * BLOCK + inside
}
