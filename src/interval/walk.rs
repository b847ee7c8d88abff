//! Queries of the tree, as an iterator.
//!
//! A walk keeps a bit mask for each node on its path: the children that are still to be entered. A
//! child is entered only if it begins before the end of the query and reaches beyond its start. So
//! a child that is entered has a hit, except perhaps the last one on each level.

use std::iter::FusedIterator;

use super::{
    item::{Item, Key},
    node::LeafNode,
    tree::{LEVELS, Tree},
};

/// The intervals of a tree that overlap some range, ascending by key.
pub(crate) struct Overlapping<'t, V> {
    page: Page<'t, V>,
    /// The hits of the page that are still to come, one bit each.
    hits: u64,
    /// The source of the pages.
    walk: Option<Walk<'t, V>>,
}

/// The intervals that are compared at once.
enum Page<'t, V> {
    List(&'t [Item<V>]),
    Leaf(&'t LeafNode<V>),
}

struct Walk<'t, V> {
    tree: &'t Tree<V>,
    from: u64,
    to: u64,
    /// The lowest level on which there may be children to enter.
    level: usize,
    /// The current node of each level from there on; `[1]` is the level above the leaves.
    nodes: [u32; LEVELS],
    /// The children of these nodes that are still to be entered, one bit each.
    kids: [u64; LEVELS],
}

/// Removes the lowest bit of `mask`, and returns its index.
#[inline]
const fn pop(mask: &mut u64) -> usize {
    let at = mask.trailing_zeros();
    *mask &= *mask - 1;
    at as usize
}

impl<'t, V> Overlapping<'t, V> {
    #[inline]
    pub(super) fn of_list(list: &'t [Item<V>], start: u64, end: u64) -> Self {
        let hit = |item: &Item<V>| item.entry.key.start < end && item.entry.end > start;
        let hits = list
            .iter()
            .rev()
            .fold(0, |hits, item| hits << 1 | u64::from(hit(item)));
        Self {
            page: Page::List(list),
            hits,
            walk: None,
        }
    }

    pub(super) fn of_tree(tree: &'t Tree<V>, from: u64, to: u64) -> Self {
        let level = tree.height;
        if level == 0 {
            let leaf = tree.leaf(tree.root);
            return Self {
                page: Page::Leaf(leaf),
                hits: leaf.overlapping(from, to),
                walk: None,
            };
        }
        let mut walk = Walk {
            tree,
            from,
            to,
            level,
            nodes: [0; LEVELS],
            kids: [0; LEVELS],
        };
        walk.nodes[level] = tree.root;
        walk.kids[level] = tree.inner(tree.root).overlapping(from, to);
        Self {
            page: Page::List(&[]),
            hits: 0,
            walk: Some(walk),
        }
    }

    /// Turns to the next page with hits.
    fn turn(&mut self) -> Option<()> {
        let (leaf, hits) = self.walk.as_mut()?.next_leaf()?;
        self.page = Page::Leaf(leaf);
        self.hits = hits;
        Some(())
    }
}

impl<'t, V> Walk<'t, V> {
    /// Returns the next leaf with hits, and these.
    fn next_leaf(&mut self) -> Option<(&'t LeafNode<V>, u64)> {
        while self.level <= self.tree.height {
            if self.kids[self.level] == 0 {
                self.level += 1;
                continue;
            }
            let at = pop(&mut self.kids[self.level]);
            let kid = *self.tree.inner(self.nodes[self.level]).item(at);
            if self.level == 1 {
                let leaf = self.tree.leaf(kid);
                let hits = leaf.overlapping(self.from, self.to);
                if hits != 0 {
                    return Some((leaf, hits));
                }
            } else {
                self.level -= 1;
                self.nodes[self.level] = kid;
                self.kids[self.level] = self.tree.inner(kid).overlapping(self.from, self.to);
            }
        }
        None
    }
}

impl<'t, V> Page<'t, V> {
    #[inline]
    fn get(&self, at: usize) -> (Key, u64, &'t V) {
        match self {
            Self::List(list) => {
                let Item { entry, value } = &list[at];
                (entry.key, entry.end, value)
            }
            Self::Leaf(leaf) => {
                let entry = leaf.entry(at);
                (entry.key, entry.end, leaf.value(at))
            }
        }
    }
}

impl<'t, V> Iterator for Overlapping<'t, V> {
    type Item = (Key, u64, &'t V);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.hits == 0 {
            self.turn()?;
        }
        let at = pop(&mut self.hits);
        Some(self.page.get(at))
    }

    fn fold<B, F: FnMut(B, Self::Item) -> B>(mut self, init: B, mut f: F) -> B {
        let mut folded = init;
        loop {
            while self.hits != 0 {
                let at = pop(&mut self.hits);
                folded = f(folded, self.page.get(at));
            }
            if self.turn().is_none() {
                return folded;
            }
        }
    }

    fn count(mut self) -> usize {
        let mut count = 0;
        loop {
            count += self.hits.count_ones() as usize;
            if self.turn().is_none() {
                return count;
            }
        }
    }
}

impl<V> FusedIterator for Overlapping<'_, V> {}
