//! The VMAs that map pages of one owner, by page offset: what `i_mmap` and the tree of an `anon_vma` have in common.
//!
//! Guarantee: a walk meets every VMA that maps the wanted pages throughout, in the order of page offsets, and of their
//! coming where these are equal, but for forked VMAs of objects, which stand behind their parents'; none of them changes its place during the walk.

use super::space::{MappedAt, RmapCx, RmapTarget, VmaPlacement};
use crate::{
    addr::{Pfn, Vpn, VpnRange},
    interval::{IntervalTree, Key},
    sync::{AtomicU64, IdSource, Ordering, RwLock, RwLockReadGuard, RwLockWriteGuard},
};
use smallvec::SmallVec;
use std::sync::Arc;

/// Orders VMAs that start at the same page offset.
static NEXT: IdSource = IdSource::starting_at(0);

/// Turns between two that were taken at the end of the line: so many times halved, one can stand between.
const APART: u64 = 1 << 24;

/// The turn of a VMA among those of its tree that start at the same page offset. Changes under the lock of the tree
/// alone.
#[derive(Clone, Debug)]
pub(super) struct Turn(Arc<Standing>);

#[derive(Debug)]
struct Standing {
    seq: AtomicU64,
    /// Flags that the VMA got since it stands there; changed without the lock.
    flags: AtomicU64,
}

impl Turn {
    /// Behind all others.
    fn last() -> Self {
        Self::of(next_seq() * APART)
    }
    fn of(seq: u64) -> Self {
        Self(Arc::new(Standing {
            seq: AtomicU64::new(seq),
            flags: AtomicU64::new(0),
        }))
    }
    fn seq(&self) -> u64 {
        self.0.seq.load(Ordering::Relaxed)
    }
    pub(super) fn add_flags(&self, flags: u64) {
        self.0.flags.fetch_or(flags, Ordering::Release);
    }
    fn flags(&self) -> u64 {
        self.0.flags.load(Ordering::Acquire)
    }
    fn key(&self, start: u64) -> Key {
        Key {
            start,
            seq: self.seq(),
        }
    }
}

/// A fresh place in that order, behind all others.
pub(super) fn next_seq() -> u64 {
    NEXT.next()
}

/// What the tree keeps of a VMA; the page offsets are its key.
struct Record {
    space: std::sync::Weak<dyn RmapTarget>,
    at: Vpn,
    flags: u64,
    nonlinear: Option<VpnRange>,
    /// Of a tree in whose lines others are let in.
    turn: Option<Turn>,
}

impl Record {
    fn of(place: &VmaPlacement, turn: Option<&Turn>) -> Self {
        Self {
            space: place.space.clone(),
            at: place.range.start(),
            flags: place.flags,
            nonlinear: place.nonlinear.then_some(place.range),
            turn: turn.cloned(),
        }
    }
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
    pub(super) fn put(&self, key: Key, place: &VmaPlacement, old: Option<Key>) {
        let record = Record::of(place, None);
        let mut tree = self.0.write();
        if let Some(old) = old {
            tree.remove(old);
        }
        tree.insert(key, place.span().1, record);
    }
    /// Adds a VMA behind all that start where it does, and takes out under the same lock what it was before.
    pub(super) fn put_last(&self, place: &VmaPlacement, old: Option<(u64, &Turn)>) -> Turn {
        let (start, end) = place.span();
        let turn = Turn::last();
        let record = Record::of(place, Some(&turn));
        let mut tree = self.0.write();
        if let Some((start, old)) = old {
            tree.remove(old.key(start));
        }
        tree.insert(turn.key(start), end, record);
        turn
    }
    /// Adds a VMA directly behind another that starts where it does (`vma_interval_tree_insert_after`).
    pub(super) fn put_behind(&self, place: &VmaPlacement, first: &Turn) -> Turn {
        let (start, end) = place.span();
        let mut tree = self.0.write();
        let seq = between(&tree, first.key(start)).unwrap_or_else(|| {
            line_up(&mut tree, start);
            between(&tree, first.key(start)).expect("they stand apart")
        });
        let turn = Turn::of(seq);
        tree.insert(turn.key(start), end, Record::of(place, Some(&turn)));
        turn
    }
    pub(super) fn set_flags_at(&self, start: u64, turn: &Turn, flags: u64) {
        let mut tree = self.0.write();
        if let Some(record) = tree.get_mut(turn.key(start)) {
            record.flags = flags;
        }
    }
    pub(super) fn remove_at(&self, start: u64, turn: &Turn) {
        let mut tree = self.0.write();
        tree.remove(turn.key(start));
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
        mut visit: impl FnMut(RmapCx<'_>, &MappedAt<'_>, VpnRange) -> bool,
    ) {
        // Address spaces met; kept until the lock is gone, since the last one to drop such a handle takes the lock.
        let mut met: SmallVec<[Arc<dyn RmapTarget>; 8]> = SmallVec::new();
        let tree = self.0.read();
        for (key, end, record) in tree.overlapping(from, to) {
            let Some(space) = record.space.upgrade() else {
                continue;
            };
            let at = |index: u64| record.at.plus(index - key.start);
            let part = record
                .nonlinear
                .or_else(|| VpnRange::new(at(from.max(key.start)), at(to.min(end))));
            let spot = MappedAt {
                space: &space,
                at: part.expect("it overlaps").start(),
                flags: record.flags | record.turn.as_ref().map_or(0, Turn::flags),
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

/// A number between this key's and the next one's in its line, if there is one.
fn between(tree: &IntervalTree<Record>, key: Key) -> Option<u64> {
    let above = Key {
        seq: key.seq + 1,
        ..key
    };
    let next = tree.at_or_above(above).filter(|k| k.start == key.start);
    // Who comes last of all later gets a multiple of `APART` that is above this.
    let free = (key.seq / APART + 1) * APART;
    let gap = next.map_or(free, |next| next.seq) - key.seq;
    (gap > 1).then(|| key.seq + gap / 2)
}

/// Those that start at an offset get turns that stand apart, in the same order.
fn line_up(tree: &mut IntervalTree<Record>, start: u64) {
    let mut at = Key { start, seq: 0 };
    let mut line = Vec::new();
    while let Some(key) = tree.at_or_above(at).filter(|k| k.start == start) {
        line.extend(tree.remove(key));
        at = key;
    }
    for (end, record) in line {
        let turn = record.turn.as_ref().expect("let in with one");
        turn.0.seq.store(Turn::last().seq(), Ordering::Relaxed);
        tree.insert(turn.key(start), end, record);
    }
}

fn unlock(tree: RwLockReadGuard<'_, IntervalTree<Record>>) {
    drop(tree);
}

/// Where the VMA of a spot maps the frame, if that is not known from its page offset: a spot for each such page.
pub(super) fn each_page(
    mut cx: RmapCx<'_>,
    spot: &MappedAt<'_>,
    pfn: Pfn,
    visit: &mut impl FnMut(RmapCx<'_>, &MappedAt<'_>) -> bool,
) -> bool {
    let Some(vma) = spot.nonlinear else {
        return visit(cx, spot);
    };
    let places = spot.space.mapped_at(cx.reborrow(), vma, pfn);
    places.into_iter().all(|at| {
        let there = MappedAt {
            at,
            space: spot.space,
            ..*spot
        };
        visit(cx.reborrow(), &there)
    })
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::{Tree, Turn, VmaPlacement, Vpn, VpnRange};
    use crate::{
        addr::Pfn,
        rmap::space::{
            Blocking, EvenCows, MappedAt, RmapCx, RmapTarget, Unmap, UnmapRefused, Young,
        },
    };
    use std::sync::Weak;

    /// Nobody walks there.
    struct Nowhere;

    impl RmapTarget for Nowhere {
        fn unmap_range(&self, _: RmapCx<'_>, _: VpnRange, _: EvenCows) {}
        fn mapped_at(&self, _: RmapCx<'_>, _: VpnRange, _: Pfn) -> Vec<Vpn> {
            Vec::new()
        }
        fn unmap_nonlinear(&self, _: RmapCx<'_>, _: VpnRange, _: u64, _: u64) {}
        fn unmap_frame(&self, _: RmapCx<'_>, _: &MappedAt<'_>, _: Pfn) {}
        fn split_folio(&self, _: RmapCx<'_>, _: VpnRange, _: Pfn) -> u64 {
            0
        }
        fn retract(&self, _: RmapCx<'_>, _: &MappedAt<'_>, _: Pfn) {}
        fn try_to_unmap(
            &self,
            _: RmapCx<'_>,
            _: &MappedAt<'_>,
            _: Pfn,
            _: Unmap,
            _: Blocking,
        ) -> Result<(), UnmapRefused> {
            Ok(())
        }
        fn restore(&self, _: RmapCx<'_>, _: &MappedAt<'_>, _: Pfn, _: Pfn) {}
        fn referenced(&self, _: RmapCx<'_>, _: &MappedAt<'_>, _: Pfn) -> Option<Young> {
            None
        }
        fn write_protect(&self, _: RmapCx<'_>, _: &MappedAt<'_>, _: Pfn) -> bool {
            false
        }
    }

    /// A VMA that starts at page offset 5; `nth` tells which.
    fn place(nth: u64) -> VmaPlacement {
        VmaPlacement {
            space: Weak::<Nowhere>::new(),
            range: VpnRange::new(Vpn(nth), Vpn(nth + 3)).unwrap(),
            pgoff: 5,
            flags: 0,
            nonlinear: false,
        }
    }

    /// Many more than turns can be halved: the line is that of a list, in which each stands behind its parent.
    #[test]
    fn forked_vmas_stand_directly_behind_their_parents() {
        let tree = Tree::new();
        let mut turns: Vec<(u64, Turn)> = Vec::new();
        let mut line: Vec<u64> = Vec::new();
        let mut x = 7_u64;
        for nth in 0..if cfg!(miri) { 60 } else { 600 } {
            x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            // Some come last, most are children: of the first, of the last, of any.
            let parent = match (x >> 33) % 8 {
                0 => None,
                1..4 => turns.first(),
                4..6 => turns.last(),
                _ => turns.get((x >> 40) as usize % turns.len().max(1)),
            };
            let turn = match parent {
                None => {
                    line.push(nth);
                    tree.put_last(&place(nth), None)
                }
                Some((parent, turn)) => {
                    let at = line.iter().position(|n| n == parent).unwrap();
                    line.insert(at + 1, nth);
                    tree.put_behind(&place(nth), turn)
                }
            };
            turns.push((nth, turn));
            if nth % 5 == 4 {
                let (gone, turn) = turns.remove((x >> 50) as usize % turns.len());
                tree.remove_at(5, &turn);
                line.retain(|n| *n != gone);
            }
            let stands: Vec<u64> = tree.0.read().iter().map(|(_, _, r)| r.at.0).collect();
            assert_eq!(stands, line, "after {nth}");
        }
    }
}
