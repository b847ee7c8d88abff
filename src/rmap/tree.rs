//! The VMAs that map pages of one owner, by page offset: what `i_mmap` and the tree of an `anon_vma` have in common.
//!
//! Guarantee: a walk meets every VMA that maps the wanted pages throughout, in the order of page offsets, and of their
//! coming where these are equal; none of them changes its place during the walk.

use super::space::{Place, RmapCx, Space, Spot};
use crate::{
    addr::{Pfn, Vpn, VpnRange},
    interval::{IntervalTree, Key},
    sync::{RwLock, RwLockReadGuard, RwLockWriteGuard, Serial},
};
use smallvec::SmallVec;
use std::sync::Arc;

/// Orders VMAs that start at the same page offset.
static NEXT: Serial = Serial::starting_at(0);

/// A fresh place in that order, behind all others.
pub(super) fn next_seq() -> u64 {
    NEXT.next()
}

/// What the tree keeps of a VMA; the page offsets are its key.
struct Record {
    space: std::sync::Weak<dyn Space>,
    at: Vpn,
    flags: u64,
    nonlinear: Option<VpnRange>,
}

/// The tree and its lock.
pub(super) struct Tree(RwLock<IntervalTree<Record>>);

/// The lock held exclusively: no walk is under way.
pub(crate) struct Frozen<'t> {
    _held: RwLockWriteGuard<'t, IntervalTree<Record>>,
}

impl Tree {
    pub(super) fn new() -> Self {
        Self(RwLock::new(IntervalTree::new()))
    }
    /// Adds a VMA, and takes out under the same lock what it was before.
    pub(super) fn put(&self, key: Key, place: &Place, old: Option<Key>) {
        let record = Record {
            space: place.space.clone(),
            at: place.range.start(),
            flags: place.flags,
            nonlinear: place.nonlinear.then_some(place.range),
        };
        let mut tree = self.0.write();
        if let Some(old) = old {
            tree.remove(old);
        }
        tree.insert(key, place.span().1, record);
    }
    pub(super) fn set_flags(&self, key: Key, flags: u64) {
        if let Some(record) = self.0.write().get_mut(key) {
            record.flags = flags;
        }
    }
    pub(super) fn remove(&self, key: Key) {
        self.0.write().remove(key);
    }
    /// Keeps walks out.
    pub(super) fn freeze(&self) -> Frozen<'_> {
        Frozen {
            _held: self.0.write(),
        }
    }
    /// VMAs in the tree.
    pub(super) fn len(&self) -> usize {
        self.0.read().len()
    }
    /// Whether a VMA maps a page of `[from, to)`, by what the tree says.
    pub(super) fn maps(&self, from: u64, to: u64) -> bool {
        self.0.read().any_overlap(from, to)
    }
    /// Visits the part of each VMA that maps pages `[from, to)`; `visit` says whether to go on.
    pub(super) fn walk(
        &self,
        mut cx: RmapCx<'_>,
        from: u64,
        to: u64,
        mut visit: impl FnMut(RmapCx<'_>, &Spot<'_>, VpnRange) -> bool,
    ) {
        // Address spaces met; kept until the lock is gone, since the last one to drop such a handle takes the lock.
        let mut met: SmallVec<[Arc<dyn Space>; 8]> = SmallVec::new();
        let tree = self.0.read();
        for (key, end, record) in tree.overlapping(from, to) {
            let Some(space) = record.space.upgrade() else {
                continue;
            };
            let at = |index: u64| record.at.plus(index - key.start);
            let part = record
                .nonlinear
                .or_else(|| VpnRange::new(at(from.max(key.start)), at(to.min(end))));
            let spot = Spot {
                space: &space,
                at: part.expect("it overlaps").start(),
                flags: record.flags,
                nonlinear: record.nonlinear,
            };
            let go_on = visit(cx.reborrow(), &spot, part.expect("it overlaps"));
            met.push(space);
            if !go_on {
                break;
            }
        }
        unlock(tree);
        drop(met);
    }
}

fn unlock(tree: RwLockReadGuard<'_, IntervalTree<Record>>) {
    drop(tree);
}

/// Where the VMA of a spot maps the frame, if that is not known from its page offset: a spot for each such page.
pub(super) fn each_page(
    mut cx: RmapCx<'_>,
    spot: &Spot<'_>,
    pfn: Pfn,
    visit: &mut impl FnMut(RmapCx<'_>, &Spot<'_>) -> bool,
) -> bool {
    let Some(vma) = spot.nonlinear else {
        return visit(cx, spot);
    };
    let places = spot.space.mapped_at(cx.reborrow(), vma, pfn);
    places.into_iter().all(|at| {
        let there = Spot {
            at,
            space: spot.space,
            ..*spot
        };
        visit(cx.reborrow(), &there)
    })
}
