//! The VMAs that map pages of one owner, by page offset: `i_mmap`, and the tree of an `anon_vma`.
//!
//! Guarantee: a walk meets every VMA that maps the wanted pages throughout the walk, and none of
//! them changes its place meanwhile. VMAs come in the order of their first page offset, and where
//! these are equal in the order of their insertion; but a forked VMA of an object comes directly
//! behind its parent's.

use super::{
    after_walks::TreeLocked,
    owner::VisitPage,
    target::{MappedAt, RmapCx, RmapTarget, VmaPlacement},
};
use crate::{
    addr::{Pfn, Vpn, VpnRange},
    interval::{IntervalTree, Key},
    sync::{AtomicU64, AtomicUsize, IdSource, Ordering, RwLock, RwLockReadGuard, RwLockWriteGuard},
};
use smallvec::SmallVec;
use std::sync::Arc;

/// The source of the numbers that order VMAs with equal page offsets.
static NEXT: IdSource = IdSource::starting_at(0);

/// The distance between the numbers of two VMAs that were inserted last: it can be halved 24 times,
/// to insert a VMA between them.
const SEQ_GAP: u64 = 1 << 24;

/// The number of a VMA among those of its tree that start at the same page offset. It changes only
/// under the lock of the tree.
#[derive(Clone, Debug)]
pub(super) struct SeqCell(Arc<VmaState>);

/// The part of a VMA's record that changes in place.
#[derive(Debug)]
struct VmaState {
    seq: AtomicU64,
    /// Flags that the VMA got since it was entered; they change without the lock.
    flags: AtomicU64,
}

impl SeqCell {
    /// Makes the number of a VMA that comes last in the tree, which the caller has locked.
    fn last(locked: &mut IntervalTree<Record>) -> Self {
        Self::of(last_seq(locked))
    }
    fn of(seq: u64) -> Self {
        Self(Arc::new(VmaState {
            seq: AtomicU64::new(seq),
            flags: AtomicU64::new(0),
        }))
    }
    fn seq(&self) -> u64 {
        self.0.seq.load(Ordering::Relaxed)
    }
    /// Adds flags to those of the VMA, for all walks from here on.
    pub(super) fn add_flags(&self, flags: u64) {
        self.0.flags.fetch_or(flags, Ordering::Release);
    }
    pub(super) fn flags(&self) -> u64 {
        self.0.flags.load(Ordering::Acquire)
    }
    fn key(&self, start: u64) -> Key {
        let seq = self.seq();
        Key { start, seq }
    }
}

/// Returns a number behind all others that this function returned.
pub(super) fn next_seq() -> u64 {
    NEXT.next()
}

/// Returns a number behind all others of the tree, which the caller has locked. A number drawn
/// before the lock could lie before those of VMAs that came first, and a number between two of
/// these could be the same.
fn last_seq(_locked: &mut IntervalTree<Record>) -> u64 {
    next_seq() * SEQ_GAP
}

/// The record of a VMA in the tree; its page offsets are the key.
struct Record {
    space: std::sync::Weak<dyn RmapTarget>,
    at: Vpn,
    flags: u64,
    nonlinear: Option<VpnRange>,
    /// The number of the VMA, in a tree that inserts VMAs behind others.
    seq: Option<SeqCell>,
}

impl Record {
    fn of(place: &VmaPlacement, seq: Option<&SeqCell>) -> Self {
        Self {
            space: place.space.clone(),
            at: place.range.start(),
            flags: place.flags,
            nonlinear: place.nonlinear.then_some(place.range),
            seq: seq.cloned(),
        }
    }
}

/// A tree of VMAs and its lock.
pub(super) struct RmapTree {
    tree: RwLock<IntervalTree<Record>>,
    /// The number of VMAs in the tree, written under the lock: callers without a token read it.
    len: AtomicUsize,
}

/// The exclusive lock of a tree: no walk is under way.
pub(crate) struct Frozen<'t> {
    held: RwLockWriteGuard<'t, IntervalTree<Record>>,
    /// Dropped after the lock.
    _locking: TreeLocked,
}

impl Frozen<'_> {
    /// Lets a record that has a number of its tree lead to a VMA at `at`, behind all others that
    /// start at its page offset.
    pub(super) fn lead_last(&mut self, start: u64, seq: &SeqCell, at: Vpn) {
        let old = seq.key(start);
        let last = last_seq(&mut self.held);
        seq.0.seq.store(last, Ordering::Relaxed);
        self.lead(old, last, at);
    }
    /// Lets the record with the key `old` lead to a VMA at `at`, under another number.
    pub(super) fn lead(&mut self, old: Key, seq: u64, at: Vpn) {
        let record = self.held.renumber(old, seq);
        record.expect("the VMA has a record").at = at;
    }
}

impl RmapTree {
    pub(super) fn new() -> Self {
        Self {
            tree: RwLock::new(IntervalTree::new()),
            len: AtomicUsize::new(0),
        }
    }
    /// Inserts a VMA, and removes its old record under the same lock.
    pub(super) fn insert(&self, key: Key, place: &VmaPlacement, old: Option<Key>) {
        let record = Record::of(place, None);
        let mut tree = self.tree.write();
        if let Some(old) = old {
            tree.remove(old);
        }
        tree.insert(key, place.span().1, record);
        self.count(&tree);
    }
    /// Inserts a VMA behind all that start at its page offset, and removes its old record under the
    /// same lock.
    pub(super) fn insert_last(
        &self,
        place: &VmaPlacement,
        old: Option<(u64, &SeqCell)>,
    ) -> SeqCell {
        let (start, end) = place.span();
        let mut tree = self.tree.write();
        let seq = SeqCell::last(&mut tree);
        let record = Record::of(place, Some(&seq));
        if let Some((start, old)) = old {
            tree.remove(old.key(start));
        }
        tree.insert(seq.key(start), end, record);
        self.count(&tree);
        seq
    }
    /// Inserts a VMA directly behind another that starts at its page offset
    /// (`vma_interval_tree_insert_after`).
    pub(super) fn insert_after(&self, place: &VmaPlacement, first: &SeqCell) -> SeqCell {
        let (start, end) = place.span();
        let mut tree = self.tree.write();
        let seq = between(&tree, first.key(start)).unwrap_or_else(|| {
            renumber(&mut tree, start);
            between(&tree, first.key(start)).expect("they stand apart")
        });
        let seq = SeqCell::of(seq);
        tree.insert(seq.key(start), end, Record::of(place, Some(&seq)));
        self.count(&tree);
        seq
    }
    pub(super) fn set_flags_at(&self, start: u64, seq: &SeqCell, flags: u64) {
        let mut tree = self.tree.write();
        if let Some(record) = tree.get_mut(seq.key(start)) {
            record.flags = flags;
        }
    }
    pub(super) fn remove_at(&self, start: u64, seq: &SeqCell) {
        let mut tree = self.tree.write();
        tree.remove(seq.key(start));
        self.count(&tree);
    }
    pub(super) fn set_flags(&self, key: Key, flags: u64) {
        if let Some(record) = self.tree.write().get_mut(key) {
            record.flags = flags;
        }
    }
    pub(super) fn remove(&self, key: Key) {
        let mut tree = self.tree.write();
        tree.remove(key);
        self.count(&tree);
    }
    /// Keeps walks out.
    pub(super) fn freeze(&self) -> Frozen<'_> {
        Frozen {
            held: self.tree.write(),
            _locking: TreeLocked::note(),
        }
    }
    /// Notes the number of VMAs in the locked tree.
    fn count(&self, tree: &IntervalTree<Record>) {
        self.len.store(tree.len(), Ordering::Relaxed);
    }
    /// Returns the number of VMAs in the tree.
    pub(super) fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }
    /// Returns true if a record of the tree covers a page of `[from, to)`.
    pub(super) fn maps(&self, from: u64, to: u64) -> bool {
        self.tree.read().any_overlap(from, to)
    }
    /// Returns true if a VMA has all of these flags.
    pub(super) fn has_with(&self, flags: u64) -> bool {
        let tree = self.tree.read();
        tree.overlapping(0, u64::MAX)
            .any(|(_, _, record)| record.flags & flags == flags)
    }
    /// Visits the part of each VMA that maps pages `[from, to)`. The walk stops when `visit`
    /// returns false.
    pub(super) fn walk(
        &self,
        mut cx: RmapCx<'_>,
        from: u64,
        to: u64,
        mut visit: impl FnMut(RmapCx<'_>, &MappedAt<'_>, VpnRange) -> bool,
    ) {
        // Dropped after the lock.
        let _locking = TreeLocked::note();
        // The address spaces of the VMAs, kept until the lock is free: the `Drop` of the last
        // handle on an address space takes the lock.
        let mut met: SmallVec<[Arc<dyn RmapTarget>; 8]> = SmallVec::new();
        let tree = self.tree.read();
        for (key, end, record) in tree.overlapping(from, to) {
            let Some(space) = record.space.upgrade() else {
                continue;
            };
            let at = |index: u64| record.at.plus(index - key.start);
            let pages = |from, to| record.nonlinear.or_else(|| VpnRange::new(at(from), at(to)));
            let part = pages(from.max(key.start), to.min(end)).expect("it overlaps");
            let spot = MappedAt {
                space: &space,
                at: part.start(),
                flags: record.flags | record.seq.as_ref().map_or(0, SeqCell::flags),
                vma: pages(key.start, end).expect("not empty"),
                nonlinear: record.nonlinear.is_some(),
                marks: record.seq.as_ref().map(|seq| &seq.0.flags),
            };
            let go_on = visit(cx.reborrow(), &spot, part);
            met.push(space);
            if !go_on {
                break;
            }
        }
        unlock(tree);
        drop(met);
    }
}

/// Returns a number between this key's and the next one's at its page offset; `None` if there is
/// none.
fn between(tree: &IntervalTree<Record>, key: Key) -> Option<u64> {
    let above = Key {
        seq: key.seq + 1,
        ..key
    };
    let next = tree.at_or_above(above).filter(|k| k.start == key.start);
    // A VMA that is inserted last later gets a multiple of `SEQ_GAP` above this.
    let free = (key.seq / SEQ_GAP + 1) * SEQ_GAP;
    let gap = next.map_or(free, |next| next.seq) - key.seq;
    (gap > 1).then(|| key.seq + gap / 2)
}

/// Renumbers the VMAs that start at a page offset, in the same order, with gaps between them.
fn renumber(tree: &mut IntervalTree<Record>, start: u64) {
    let mut at = Key { start, seq: 0 };
    let mut line = Vec::new();
    while let Some(key) = tree.at_or_above(at).filter(|k| k.start == start) {
        line.extend(tree.remove(key));
        at = key;
    }
    for (end, record) in line {
        let seq = record.seq.as_ref().expect("let in with one");
        seq.0.seq.store(last_seq(tree), Ordering::Relaxed);
        tree.insert(seq.key(start), end, record);
    }
}

fn unlock(tree: RwLockReadGuard<'_, IntervalTree<Record>>) {
    drop(tree);
}

/// Visits the spot itself, or, of a nonlinear VMA, each page that maps the frame. Returns false if
/// a visit did.
pub(super) fn each_page(
    mut cx: RmapCx<'_>,
    spot: &MappedAt<'_>,
    pfn: Pfn,
    visit: &mut VisitPage<'_>,
) -> bool {
    if !spot.nonlinear {
        return visit(cx, spot);
    }
    let places = spot.space.mapped_at(cx.reborrow(), spot.vma, pfn);
    places
        .into_iter()
        .all(|at| visit(cx.reborrow(), &MappedAt { at, ..*spot }))
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::{RmapTree, SEQ_GAP, SeqCell, VmaPlacement, Vpn, VpnRange, next_seq};
    use crate::rmap::target::Nowhere;
    use std::sync::Weak;

    /// Makes a VMA that starts at page offset 5; `nth` tells them apart.
    fn place(nth: u64) -> VmaPlacement {
        VmaPlacement {
            space: Weak::<Nowhere>::new(),
            range: VpnRange::new(Vpn(nth), Vpn(nth + 3)).unwrap(),
            pgoff: 5,
            flags: 0,
            nonlinear: false,
        }
    }

    /// A number that was drawn before the lock of the tree could be given to a child in between.
    #[test]
    fn a_vma_draws_its_number_under_the_lock_of_its_tree() {
        let tree = RmapTree::new();
        let locked = tree.freeze();
        std::thread::scope(|s| {
            let inserting = s.spawn(|| tree.insert_last(&place(0), None));
            std::thread::sleep(std::time::Duration::from_millis(100));
            let drawn_meanwhile = SeqCell::of(next_seq() * SEQ_GAP);
            drop(locked);
            let inserted = inserting.join().unwrap();
            assert!(inserted.seq() > drawn_meanwhile.seq());
        });
    }

    /// Inserts far more VMAs than a gap can be halved, and compares their order with a list in
    /// which each child is put behind its parent.
    #[test]
    fn forked_vmas_stand_directly_behind_their_parents() {
        let tree = RmapTree::new();
        let mut seqs: Vec<(u64, SeqCell)> = Vec::new();
        let mut line: Vec<u64> = Vec::new();
        let mut x = 7_u64;
        for nth in 0..if cfg!(miri) { 24 } else { 600 } {
            x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            // Some VMAs come last, most are children: of the first VMA, of the last one, of any.
            let parent = match (x >> 33) % 8 {
                0 => None,
                1..4 => seqs.first(),
                4..6 => seqs.last(),
                _ => seqs.get((x >> 40) as usize % seqs.len().max(1)),
            };
            let seq = match parent {
                None => {
                    line.push(nth);
                    tree.insert_last(&place(nth), None)
                }
                Some((parent, seq)) => {
                    let at = line.iter().position(|n| n == parent).unwrap();
                    line.insert(at + 1, nth);
                    tree.insert_after(&place(nth), seq)
                }
            };
            seqs.push((nth, seq));
            if nth % 5 == 4 {
                let (gone, seq) = seqs.remove((x >> 50) as usize % seqs.len());
                tree.remove_at(5, &seq);
                line.retain(|n| *n != gone);
            }
            let stands: Vec<u64> = tree.tree.read().iter().map(|(_, _, r)| r.at.0).collect();
            assert_eq!(stands, line, "after {nth}");
        }
    }
}
