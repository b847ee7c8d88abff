//! Every invariant of the tree, checked against the contents of every node.

use super::{
    climb::least,
    node::{Entry, NONE, Node},
    vma_tree::{Span, VmaTree},
};

#[cfg(all(test, not(loom)))]
impl<V> VmaTree<V> {
    /// Bytes in use or kept for later use, without memory that the values own.
    pub(super) const fn bytes(&self) -> usize {
        self.leaves.bytes() + self.inners.bytes() + self.values.bytes()
    }
}

impl<V: Span> VmaTree<V> {
    /// Panics unless order, balance, keys, gaps, chains and counts are correct. Costs O(n).
    #[allow(
        dead_code,
        reason = "for tests, and for checks that a caller may want in a debug build"
    )]
    pub(crate) fn check(&self) {
        if self.is_empty() {
            assert_eq!(
                (self.root, self.height),
                (NONE, 0),
                "an empty tree has no root"
            );
            assert_eq!(
                (self.leaves.used(), self.inners.used()),
                (0, 0),
                "nodes of an empty tree"
            );
            return;
        }
        self.check_finger();
        let mut level_order = vec![Vec::new(); self.height + 1];
        self.check_node(self.height, self.root, &mut level_order);
        for (level, ids) in level_order.iter().enumerate() {
            let next = |&id: &u32| {
                if level == 0 {
                    self.leaf(id).next
                } else {
                    self.inner(id).next
                }
            };
            let chain: Vec<u32> = ids.iter().skip(1).copied().chain([NONE]).collect();
            assert_eq!(
                ids.iter().map(next).collect::<Vec<_>>(),
                chain,
                "chain of level {level}"
            );
        }
        assert_eq!(
            self.leaves.used(),
            level_order[0].len(),
            "leaves outside the tree"
        );
        let inners = level_order[1..].iter().map(Vec::len).sum::<usize>();
        assert_eq!(self.inners.used(), inners, "inner nodes outside the tree");
        let ranges = level_order[0]
            .iter()
            .map(|&id| self.leaf(id).len())
            .sum::<usize>();
        assert_eq!(self.len, ranges, "count of ranges");
        assert_eq!(self.values.used(), ranges, "values outside the tree");
    }

    fn check_finger(&self) {
        let Some((from, to)) = self.finger.covers() else {
            return;
        };
        let path = &self.finger.path;
        for at in [from, to - 1] {
            assert_eq!(&self.way_to(at), path, "where the finger points for {at}");
        }
        let leaf = self.leaf(self.finger.leaf());
        let (at, from, to) = self.finger.known();
        for page in [from, to.saturating_sub(1)]
            .into_iter()
            .filter(|_| from < to)
        {
            assert_eq!(leaf.ending_by(page), at, "the place for {page}");
        }
    }

    /// Returns the entry that the parent of the node must have, computed from below.
    fn check_node(&self, level: usize, id: u32, order: &mut [Vec<u32>]) -> Entry {
        order[level].push(id);
        let fewest = if id != self.root || level != self.height {
            least(level)
        } else if level > 0 {
            2
        } else {
            1
        };
        let entries: Vec<Entry> = if level == 0 {
            let leaf = self.leaf(id);
            leaf.check_unused();
            (0..leaf.len())
                .map(|at| self.check_range(leaf.entry(at)))
                .collect()
        } else {
            let node = self.inner(id);
            node.check_unused();
            (0..node.len())
                .map(|at| {
                    let real = self.check_node(level - 1, node.kid(at), order);
                    assert_eq!(
                        node.entry(at),
                        real,
                        "entry {at} of node {id} on level {level}"
                    );
                    real
                })
                .collect()
        };
        assert!(
            entries.len() >= fewest,
            "{} entries in node {id} on level {level}",
            entries.len()
        );
        let inside = entries.iter().map(|entry| entry.note).max().unwrap_or(0);
        let mut gap = if level == 0 { 0 } else { inside };
        for pair in entries.windows(2) {
            assert!(
                pair[0].end <= pair[1].start,
                "{pair:?} in node {id} on level {level}"
            );
            gap = gap.max(pair[1].start - pair[0].end);
        }
        self.check_holes(level, id, &entries, gap);
        Entry {
            start: entries[0].start,
            end: entries[entries.len() - 1].end,
            note: gap,
            kid: id,
        }
    }

    /// Panics unless the node knows its widest hole, and bounds the others.
    fn check_holes(&self, level: usize, id: u32, entries: &[Entry], widest: u64) {
        let between = entries.windows(2).map(|pair| pair[1].start - pair[0].end);
        let inside = entries.iter().map(|entry| entry.note);
        let inside = inside.filter(|_| level > 0);
        let mut all: Vec<u64> = between.chain(inside).collect();
        all.sort_unstable();
        let second = all.len().checked_sub(2).map_or(0, |at| all[at]);
        let holes = match level {
            0 => self.leaf(id).holes(),
            _ => self.inner(id).holes(),
        };
        assert_eq!(
            holes.widest(),
            widest,
            "widest hole of node {id} on level {level}"
        );
        assert!(
            holes.others() >= second,
            "{holes:?} of node {id} on level {level}, which has one of {second}"
        );
    }

    fn check_range(&self, entry: Entry) -> Entry {
        let value = self.values.get(entry.kid);
        assert_eq!(
            (value.start().0, value.end().0, value.tag()),
            (entry.start, entry.end, entry.note),
            "what a leaf knows of a range"
        );
        assert!(entry.start < entry.end, "an empty range");
        entry
    }
}

impl<const WIDTH: usize, const INNER: bool> Node<WIDTH, INNER> {
    fn check_unused(&self) {
        for at in self.len()..WIDTH {
            let entry = self.entry(at);
            assert_eq!(
                (entry.start, entry.end, entry.kid),
                (u64::MAX, u64::MAX, NONE),
                "unused entry {at}"
            );
        }
    }
}
