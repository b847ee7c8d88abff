//! The highest or lowest hole of a wanted size, in O(log n).
//!
//! A search enters a subtree only if its widest hole is large enough. Cut to the bounds of the
//! search, that hole may still be too small, but only in a subtree that a bound cuts; each level
//! has at most two of those.

use crate::addr::Vpn;

use super::{node::Node, vma_tree::VmaTree};

/// A search for a hole of `pages` pages within `[low, high)`.
#[derive(Clone, Copy)]
struct Wanted {
    pages: u64,
    low: u64,
    high: u64,
}

impl Wanted {
    /// The part of hole `[from, to)` within the bounds; `None` if it is too small.
    fn fit(self, from: u64, to: u64) -> Option<(u64, u64)> {
        let (from, to) = (from.max(self.low), to.min(self.high));
        (to.checked_sub(from)? >= self.pages).then_some((from, to))
    }

    /// The first page of the highest placement in the hole.
    fn top(self, from: u64, to: u64) -> Option<Vpn> {
        self.fit(from, to).map(|(_, to)| Vpn(to - self.pages))
    }

    /// The first page of the lowest placement in the hole.
    fn bottom(self, from: u64, to: u64) -> Option<Vpn> {
        self.fit(from, to).map(|(from, _)| Vpn(from))
    }
}

impl<V> VmaTree<V> {
    /// First page of the highest place for `pages` pages (at least 1) within `[low, high)`: the top
    /// of the highest hole that has that many pages within the bounds.
    pub(crate) fn highest_gap(&self, pages: u64, low: Vpn, high: Vpn) -> Option<Vpn> {
        let wanted = Wanted::new(pages, low, high);
        let Some((start, end)) = self.bounds() else {
            return wanted.top(0, u64::MAX);
        };
        wanted
            .top(end, u64::MAX)
            .or_else(|| self.highest(self.height, self.root, wanted))
            .or_else(|| wanted.top(0, start))
    }

    /// First page of the lowest place for `pages` pages (at least 1) within `[low, high)`: the
    /// bottom of the lowest hole that has that many pages within the bounds.
    pub(crate) fn lowest_gap(&self, pages: u64, low: Vpn, high: Vpn) -> Option<Vpn> {
        let wanted = Wanted::new(pages, low, high);
        let Some((start, end)) = self.bounds() else {
            return wanted.bottom(0, u64::MAX);
        };
        wanted
            .bottom(0, start)
            .or_else(|| self.lowest(self.height, self.root, wanted))
            .or_else(|| wanted.bottom(end, u64::MAX))
    }

    /// Start of the first range and end of the last.
    fn bounds(&self) -> Option<(u64, u64)> {
        (!self.is_empty()).then(|| self.bounds_of(self.height, self.root))
    }

    /// The highest place inside the subtree of node `id` on `level`.
    fn highest(&self, level: usize, id: u32, wanted: Wanted) -> Option<Vpn> {
        if level == 0 {
            highest_in(self.leaf(id), wanted, |_| None)
        } else {
            highest_in(self.inner(id), wanted, |kid| {
                self.highest(level - 1, kid, wanted)
            })
        }
    }

    /// The lowest place inside the subtree of node `id` on `level`.
    fn lowest(&self, level: usize, id: u32, wanted: Wanted) -> Option<Vpn> {
        if level == 0 {
            lowest_in(self.leaf(id), wanted, |_| None)
        } else {
            lowest_in(self.inner(id), wanted, |kid| {
                self.lowest(level - 1, kid, wanted)
            })
        }
    }
}

impl Wanted {
    fn new(pages: u64, low: Vpn, high: Vpn) -> Self {
        debug_assert!(pages > 0, "a hole of no pages is everywhere");
        Self {
            pages: pages.max(1),
            low: low.0,
            high: high.0,
        }
    }
}

fn highest_in<const WIDTH: usize, const INNER: bool>(
    node: &Node<WIDTH, INNER>,
    wanted: Wanted,
    inside: impl Fn(u32) -> Option<Vpn>,
) -> Option<Vpn> {
    for at in (0..node.starting_below(wanted.high)).rev() {
        if at + 1 < node.len()
            && let Some(found) = wanted.top(node.end(at), node.start(at + 1))
        {
            return Some(found);
        }
        if node.end(at) <= wanted.low {
            return None;
        }
        if node.gap(at) >= wanted.pages
            && let Some(found) = inside(node.kid(at))
        {
            return Some(found);
        }
    }
    None
}

fn lowest_in<const WIDTH: usize, const INNER: bool>(
    node: &Node<WIDTH, INNER>,
    wanted: Wanted,
    inside: impl Fn(u32) -> Option<Vpn>,
) -> Option<Vpn> {
    for at in node.ending_by(wanted.low)..node.len() {
        if at > 0
            && let Some(found) = wanted.bottom(node.end(at - 1), node.start(at))
        {
            return Some(found);
        }
        if node.start(at) >= wanted.high {
            return None;
        }
        if node.gap(at) >= wanted.pages
            && let Some(found) = inside(node.kid(at))
        {
            return Some(found);
        }
    }
    None
}
