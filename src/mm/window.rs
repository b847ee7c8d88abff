//! The invalidation window of an address space: the only door to destructive page-table operations.
//!
//! Guarantee: while an [`InvalidationWindow`] lives, every registered external MMU has dropped its translations of
//! the range and gets no new ones. Entries are cleared, downgraded or replaced through it alone; filling an empty
//! entry or giving rights back needs none.

use super::{
    entry::{
        pte::{Pte, RawPte, Rights},
        release::{Detached, drop_entry_to},
    },
    page_table::{Bounds, LeafAt, LockedLeaf, Pin},
    space::Mm,
};
use crate::{
    addr::{PMD_PAGES, Vpn, VpnRange},
    ctx::{Atomic, Context, Cx, Sleepable, rank},
    frame::{FrameFlags, PhysMem},
    notifier::{Event, OpenWindow},
};
use smallvec::SmallVec;
use std::convert::Infallible;

/// All external MMUs dropped their references to the range and cannot take new ones.
#[must_use = "the window ends when this is dropped"]
pub struct InvalidationWindow<'w, C: Context> {
    mm: &'w Mm,
    core: OpenWindow<'w, C>,
}

/// The page-table lock of one leaf is held inside a window.
pub struct PteTxn<'p> {
    leaf: LockedLeaf<'p>,
    mem: &'p PhysMem,
    part: VpnRange,
    pin: Pin<'p>,
    _cx: Cx<'p, rank::Ptl, Atomic>,
}

/// One covered entry under the page-table lock.
pub struct PteSlot<'s> {
    leaf: &'s LockedLeaf<'s>,
    mem: &'s PhysMem,
    at: Vpn,
}

impl<'w> InvalidationWindow<'w, Sleepable> {
    /// Token usable inside the window; it may sleep.
    pub fn cx(&mut self) -> Cx<'_, rank::Window, Sleepable> {
        self.core.split().1
    }
    /// Drops what is mapped in `range` (`zap_page_range`).
    pub(super) fn zap(&mut self, range: VpnRange, what: Zap) {
        self.split_edges(range);
        let mut huge: SmallVec<[VpnRange; 2]> = SmallVec::new();
        let mm = self.mm;
        let left = |part: VpnRange, leaf: LeafAt<'_>, _: Pin<'_>| {
            Ok(what == Zap::Mapping && mm.give_up_shared(part, leaf))
        };
        self.leaves_or(range, left, |txn| {
            let mut retired = txn.mem.retired();
            txn.leaf.take_if(
                txn.part,
                |pte| what.takes(pte, txn.mem),
                |pte| drop_entry_to(&mut retired, pte),
            );
            drop(retired);
            if txn.leaf.is_huge() && txn.leaf.is_empty() {
                txn.leaf.set_huge(false);
                huge.push(txn.range());
            }
            Ok::<(), Infallible>(())
        })
        .unwrap_or_else(|e| match e {});
        // What mapped a huge page was no table.
        for part in huge {
            self.free_empty_leaves(part);
        }
    }
    /// A huge page that lies across an end of the range is mapped by small entries from here on, in a window of its own
    /// inside this one.
    pub(super) fn split_edges(&mut self, range: VpnRange) {
        for edge in [range.start(), range.end()] {
            if !edge.is_aligned(PMD_PAGES) {
                self.split_pmd(edge);
            }
        }
    }
    /// Splits the mapping of a huge page at `at`, if there is one, in a window of its own (`split_huge_pmd`).
    pub(super) fn split_pmd(&mut self, at: Vpn) {
        let mm = self.mm;
        if !mm.is_huge(&mut self.core.split().1, at) {
            return;
        }
        let block = super::fault::huge::block(at);
        let Ok(core) = self.core.nested(&mm.notifiers, block, Event::Clear);
        let mut window = InvalidationWindow::new(mm, core);
        window.split_huge(at);
        window.close();
    }
    /// Splits the huge pages of this process alone that lie only partly in `range`.
    pub(super) fn split_own_parts(&mut self, range: VpnRange) {
        let mm = self.mm;
        let mut cx = self.core.split().1;
        for at in mm.large_in(&mut cx, range) {
            if let Some(head) = mm.own_part(&mut cx, range, at) {
                let mut inside = cx.walk_inside();
                if mm.has_alone(&mut inside, head) {
                    mm.split_own(inside, head);
                }
            }
        }
    }
    /// In this window, which covers it, a huge page is mapped by small entries.
    pub(super) fn split_huge(&mut self, at: Vpn) {
        let mem = self.mm.machine().mem();
        let emptied = self.lock_ptes(at, |txn| super::fault::huge::split_leaf(mem, txn.leaf()));
        if emptied == Some(true) {
            self.free_empty_leaves(super::fault::huge::block(at));
        }
    }
}

impl<'w> InvalidationWindow<'w, Atomic> {
    /// Token usable inside the window; it may not sleep.
    pub fn cx(&mut self) -> Cx<'_, rank::Window, Atomic> {
        self.core.split().1
    }
}

impl<'w, C: Context> InvalidationWindow<'w, C> {
    #[inline(always)]
    pub(super) fn new(mm: &'w Mm, core: OpenWindow<'w, C>) -> Self {
        Self { mm, core }
    }
    pub(super) fn mm(&self) -> &'w Mm {
        self.mm
    }
    /// Pages that the window covers.
    pub fn range(&mut self) -> VpnRange {
        self.core.split().0.range()
    }
    /// Visits every leaf table in the window, its lock held. Nothing can sleep inside.
    pub fn for_each_leaf(&mut self, mut f: impl FnMut(&mut PteTxn<'_>)) {
        let range = self.range();
        self.leaves_in(range, |txn| {
            f(txn);
            Ok::<(), Infallible>(())
        })
        .unwrap_or_else(|e| match e {});
    }
    /// [`for_each_leaf`](Self::for_each_leaf) within `range`, which is clipped to the window; stops at an error.
    pub(super) fn leaves_in<E>(
        &mut self,
        range: VpnRange,
        f: impl FnMut(&mut PteTxn<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.leaves_or(range, |_, _, _| Ok(false), f)
    }
    /// The same without those leaves that `instead`, which gets them unlocked and perhaps shared, has dealt with.
    pub(super) fn leaves_or<E>(
        &mut self,
        range: VpnRange,
        mut instead: impl FnMut(VpnRange, LeafAt<'_>, Pin<'_>) -> Result<bool, E>,
        mut f: impl FnMut(&mut PteTxn<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mm = self.mm;
        let (coverage, mut cx) = self.core.split();
        let Some(range) = coverage.range().intersect(range) else {
            return Ok(());
        };
        let mut pinned = cx.pin();
        let (guard, mut cx) = pinned.parts();
        let pin = mm.table.pin(guard);
        mm.table.leaves(range, pin, |part, leaf| {
            if instead(part, leaf, pin)? {
                return Ok(());
            }
            // One that was taken out meanwhile has no entries.
            let Some(leaf) = leaf.lock() else {
                return Ok(());
            };
            f(&mut PteTxn {
                leaf,
                mem: mm.machine().mem(),
                part,
                pin,
                _cx: cx.descend(),
            })
        })
    }
    /// Locks the leaf that holds the entry of `vpn`; `None` if the window does not cover it or no table is there.
    pub fn lock_ptes<T>(&mut self, vpn: Vpn, f: impl FnOnce(&mut PteTxn<'_>) -> T) -> Option<T> {
        if !self.range().contains(vpn) {
            return None;
        }
        let mut f = Some(f);
        let mut out = None;
        self.leaves_in(VpnRange::single(vpn), |txn| {
            out = f.take().map(|f| f(txn));
            Ok::<(), Infallible>(())
        })
        .unwrap_or_else(|e| match e {});
        out
    }
    /// Frees the tables of an emptied range. Inside the window: pages and tables go before its end, so that a driver
    /// which drops its references only then still finds them gone.
    pub(super) fn free_tables(&mut self, range: VpnRange, bounds: Bounds) {
        let mm = self.mm;
        let (_, mut cx) = self.core.split();
        let pinned = cx.pin();
        mm.table
            .free_range(range, bounds, mm.table.pin(pinned.guard()));
    }
    /// Frees the leaves that lie wholly in `range` and have no entry left (`reclaim_pt_is_enabled`).
    pub(super) fn free_empty_leaves(&mut self, range: VpnRange) {
        let mm = self.mm;
        let (_, mut cx) = self.core.split();
        let pinned = cx.pin();
        let pin = mm.table.pin(pinned.guard());
        let mut at = range.start().align_up(PMD_PAGES);
        while at.plus(PMD_PAGES) <= range.end() {
            mm.table.free_if_empty(at, pin);
            at = at.plus(PMD_PAGES);
        }
    }
    /// Ends the window (same as dropping it).
    #[inline(always)]
    pub fn close(self) {}
}

/// What zapping takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Zap {
    /// Everything: the mapping goes.
    Mapping,
    /// All but guard markers (`MADV_DONTNEED`, a file that is cut).
    Pages,
    /// Pages of the object alone, no private copies (a hole).
    ObjectPages,
}

impl Zap {
    #[inline]
    fn takes(self, pte: RawPte, mem: &PhysMem) -> bool {
        match self {
            Self::Mapping => true,
            Self::Pages => !pte.is_guard(),
            // Also those on their way, which come back nowhere then (`should_zap_folio`).
            Self::ObjectPages => pte
                .counted_or_migrating()
                .is_some_and(|pfn| !mem.flags(pfn).contains(FrameFlags::ANON)),
        }
    }
}

impl<'p> PteTxn<'p> {
    /// The entry of `vpn`; `None` when the window does not cover it in this leaf.
    pub fn slot(&mut self, vpn: Vpn) -> Option<PteSlot<'_>> {
        self.part.contains(vpn).then_some(PteSlot {
            leaf: &self.leaf,
            mem: self.mem,
            at: vpn,
        })
    }
    /// Visits every entry of this leaf in the window that is not empty.
    pub fn for_each(&mut self, mut f: impl FnMut(PteSlot<'_>)) {
        for at in self.part.iter() {
            if !self.leaf.get(at).is_none() {
                f(PteSlot {
                    leaf: &self.leaf,
                    mem: self.mem,
                    at,
                });
            }
        }
    }
    pub(super) fn mem(&self) -> &'p PhysMem {
        self.mem
    }
    pub(super) fn leaf(&self) -> &LockedLeaf<'p> {
        &self.leaf
    }
    /// The pin that the walk runs under.
    pub(super) fn pin(&self) -> Pin<'p> {
        self.pin
    }
    /// The part of the window in this leaf.
    pub fn range(&self) -> VpnRange {
        self.part
    }
}

impl<'s> PteSlot<'s> {
    /// Its page.
    pub fn vpn(&self) -> Vpn {
        self.at
    }
    /// Current content.
    pub fn get(&self) -> Pte {
        self.raw().into()
    }
    pub(super) fn raw(&self) -> RawPte {
        self.leaf.get(self.at)
    }
    /// Anything -> none.
    pub fn clear(self) -> Option<Detached<'s>> {
        let pte = self.raw();
        if pte.is_none() {
            return None;
        }
        self.leaf.set(self.at, RawPte::NONE);
        Some(Detached::new(pte, self.mem))
    }
    /// As [`clear`](Self::clear), with what was there seen as `pte`, and `left` in its place.
    pub(super) fn take(self, pte: RawPte, left: RawPte) -> Option<Detached<'s>> {
        self.leaf.set(self.at, left);
        Some(Detached::new(pte, self.mem))
    }
    /// Removes write permission; returns whether it was set.
    pub fn write_protect(self) -> bool {
        let pte = self.raw();
        let was = pte.is_present() && pte.may_write();
        if was {
            self.lose_write(pte);
            self.leaf.set(self.at, pte.wrprotect());
        }
        was
    }
    /// Removes write permission and the dirty mark, so that the next store faults (`page_vma_mkclean_one`).
    pub(super) fn write_protect_clean(self) {
        let pte = self.raw();
        if let Some(pfn) = pte.counted().filter(|_| pte.is_dirty()) {
            self.mem.set_flags(pfn, FrameFlags::DIRTY);
        }
        self.leaf.set(self.at, pte.wrprotect().mkclean());
    }
    /// Gives an entry other rights; one that is not present keeps what it will have of them.
    pub(super) fn protect(self, rights: Rights) {
        let pte = self.raw();
        let new = match pte.is_present() {
            true => pte.with_rights(rights),
            false => pte.reprotected(rights.write),
        };
        if new != pte {
            self.leaf.set(self.at, new);
        }
    }
    /// The entry, which lets write, is about to do so no more: whoever has the frame by number will be told.
    pub(super) fn lose_write(&self, pte: RawPte) {
        if let Some(pfn) = pte.counted() {
            self.mem.lose_write(pfn);
        }
    }
    /// Puts another mapping in the place of this one.
    pub(super) fn replace(self, new: RawPte) -> Option<Detached<'s>> {
        let pte = self.raw();
        self.leaf.set(self.at, new);
        (!pte.is_none()).then(|| Detached::new(pte, self.mem))
    }
    /// Puts other marks or rights on what is there: nothing is dropped.
    pub(super) fn set(self, pte: RawPte) {
        self.leaf.set(self.at, pte);
    }
    pub(super) fn mem(&self) -> &'s PhysMem {
        self.mem
    }
}
