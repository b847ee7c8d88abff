//! [`PageTable`]: the way down to a leaf, growth, and the walk over the leaves of a range.

use super::{
    index::{root_slot, slot},
    leaf::{Leaf, LockedLeaf},
    node::{Child, Dir, Pgd, Pin, Pmd, Pud},
    slot::LeafAt,
};
use crate::{
    addr::{PGD_PAGES, PMD_PAGES, PUD_PAGES, TASK_PAGES, Vpn, VpnRange},
    ctx::{Context, Cx, Epoch, Rank},
    error::NoMemory,
    frame::{AllocKind, PhysMem},
    sync::{AtomicUsize, CachePadded, Ordering},
};
use crossbeam_epoch::Guard;
use std::{convert::Infallible, sync::Arc};

/// The tables above a range of pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::mm) enum Tables {
    /// None but the root.
    None,
    /// Tables of the third level alone: nothing is mapped. A range that was moved as a whole leaves
    /// them.
    Upper,
    /// Tables of 2-MiB entries, which may have leaves.
    Middle,
}

/// The page table of one address space.
pub(in crate::mm) struct PageTable {
    pub(super) root: Box<Pgd>,
    epoch: Epoch,
    pub(super) mem: Arc<PhysMem>,
    /// Table pages below the root; on lines of its own, as every walk reads the fields around it.
    tables: CachePadded<AtomicUsize>,
}

impl PageTable {
    /// Creates a table without any page below the root.
    pub(in crate::mm) fn new(mem: &Arc<PhysMem>, epoch: &Epoch) -> Self {
        Self {
            root: Dir::new(),
            epoch: epoch.clone(),
            mem: Arc::clone(mem),
            tables: CachePadded(AtomicUsize::new(0)),
        }
    }
    /// Returns how many table pages there are below the root.
    pub(in crate::mm) fn tables(&self) -> usize {
        self.tables.0.load(Ordering::Relaxed)
    }
    /// Counts one more table page, here and in the machine.
    pub(super) fn take_table(&self) -> Result<(), NoMemory> {
        self.mem.take_table()?;
        self.tables.0.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
    /// Counts fewer table pages, here and in the machine.
    pub(super) fn give_tables(&self, count: usize) {
        self.tables.0.fetch_sub(count, Ordering::Relaxed);
        self.mem.give_tables(count as u64);
    }
    /// Makes a table pin of an epoch pin.
    ///
    /// # Panics
    ///
    /// If the guard is of another machine's epoch.
    pub(in crate::mm) fn pin<'g>(&self, guard: &'g Guard) -> Pin<'g> {
        Pin::new(&self.epoch, guard)
    }
    /// Makes a table pin of an epoch pin that was checked by [`pin`](Self::pin) before.
    #[inline]
    pub(super) fn checked<'g>(&self, guard: &'g Guard) -> Pin<'g> {
        Pin::checked(&self.epoch, guard)
    }

    /// The third-level table for `at`. Every walk starts here.
    #[inline]
    pub(super) fn third<'g>(&'g self, at: Vpn, pin: Pin<'g>) -> Option<&'g Pud> {
        self.root.child(root_slot(at)?, pin)
    }
    /// The table of 2-MiB entries for `at`.
    #[inline]
    pub(super) fn pmd<'g>(&'g self, at: Vpn, pin: Pin<'g>) -> Option<&'g Pmd> {
        self.third(at, pin)?.child(slot(at, PUD_PAGES), pin)
    }
    /// The leaf that holds the entry of `at`, as found now.
    #[inline]
    pub(in crate::mm) fn leaf<'g>(&'g self, at: Vpn, pin: Pin<'g>) -> Option<LeafAt<'g>> {
        LeafAt::find(&self.mem, self.pmd(at, pin)?, slot(at, PMD_PAGES), pin)
    }
    /// Returns true if the third-level table above `at` exists.
    pub(in crate::mm) fn has_pud(&self, at: Vpn, pin: Pin<'_>) -> bool {
        self.third(at, pin).is_some()
    }
    /// Returns true if the table of 2-MiB entries above `at` exists (`mm_find_pmd`).
    pub(in crate::mm) fn has_pmd(&self, at: Vpn, pin: Pin<'_>) -> bool {
        self.third(at, pin)
            .is_some_and(|pud| pud.has(slot(at, PUD_PAGES)))
    }

    /// The child in slot `i`, made if there is none.
    fn grow<'g, C: Child>(
        &self,
        dir: &'g Dir<C>,
        i: usize,
        pin: Pin<'g>,
        new: impl Fn() -> Box<C>,
    ) -> Result<&'g C, NoMemory> {
        // A large MADV_DONTNEED may free the leaf that was just made: look again.
        loop {
            if let Some(child) = dir.child(i, pin) {
                return Ok(child);
            }
            let inject = self.mem.inject();
            inject
                .check(AllocKind::Table)
                .map_err(|_| NoMemory::Table)?;
            self.take_table()?;
            if !dir.install(i, new()) {
                self.give_tables(1);
            }
        }
    }
    /// The third-level table for `at`, made if there is none (`pud_alloc`).
    pub(super) fn make_pud<'g>(&'g self, at: Vpn, pin: Pin<'g>) -> Result<&'g Pud, NoMemory> {
        // No VMA lies there, so no caller may ask for it.
        assert!(
            at.0 < TASK_PAGES,
            "the page at {:#x} is no user page",
            at.addr()
        );
        self.grow(&self.root, slot(at, PGD_PAGES), pin, Dir::new)
    }
    /// Makes the third-level table for `at` and none below it.
    pub(in crate::mm) fn make_pud_for(&self, at: Vpn, pin: Pin<'_>) -> Result<(), NoMemory> {
        self.make_pud(at, pin).map(|_| ())
    }
    /// The table of 2-MiB entries for `at`, made with the tables above it if there is none
    /// (`pmd_alloc`).
    pub(in crate::mm) fn make_pmd<'g>(
        &'g self,
        at: Vpn,
        pin: Pin<'g>,
    ) -> Result<&'g Pmd, NoMemory> {
        let pud = self.make_pud(at, pin)?;
        self.grow(pud, slot(at, PUD_PAGES), pin, Dir::new)
    }
    /// The leaf for `at`, made with the tables above it if there is none (`pte_alloc`).
    #[inline]
    pub(in crate::mm) fn make_leaf<'g>(
        &'g self,
        at: Vpn,
        pin: Pin<'g>,
    ) -> Result<LeafAt<'g>, NoMemory> {
        match self.leaf(at, pin) {
            Some(leaf) => Ok(leaf),
            None => self.grow_leaf(at, pin),
        }
    }
    #[cold]
    fn grow_leaf<'g>(&'g self, at: Vpn, pin: Pin<'g>) -> Result<LeafAt<'g>, NoMemory> {
        let pmd = self.make_pmd(at, pin)?;
        let i = slot(at, PMD_PAGES);
        // A large MADV_DONTNEED may free the leaf that was just made: make another.
        loop {
            let _made = self.grow(pmd, i, pin, Leaf::new)?;
            if let Some(leaf) = LeafAt::find(&self.mem, pmd, i, pin) {
                return Ok(leaf);
            }
        }
    }

    /// Visits every leaf that overlaps `range`, ascending, with its part of the range; stops at the
    /// first error.
    ///
    /// Costs one step for each table and for each run of empty slots; nothing above the address
    /// space.
    pub(in crate::mm) fn leaves<E>(
        &self,
        range: VpnRange,
        pin: Pin<'_>,
        mut visit: impl FnMut(VpnRange, LeafAt<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut at = range.start();
        let end = range.end().min(Vpn(TASK_PAGES));
        while at < end {
            let after = |span, count| at.align_down(span).plus(count * span);
            let (next, leaf) = match self.third(at, pin) {
                None => (after(PGD_PAGES, 1), None),
                Some(pud) => match pud.child(slot(at, PUD_PAGES), pin) {
                    None => (after(PUD_PAGES, 1), None),
                    Some(pmd) => match LeafAt::find(&self.mem, pmd, slot(at, PMD_PAGES), pin) {
                        None => (after(PMD_PAGES, pmd.empty(slot(at, PMD_PAGES))), None),
                        leaf => (after(PMD_PAGES, 1), leaf),
                    },
                },
            };
            let next = next.min(end);
            if let Some(leaf) = leaf {
                let part = VpnRange::new(at, next).expect("next lies above at");
                visit(part, leaf)?;
            }
            at = next;
        }
        Ok(())
    }
    /// Visits every leaf that overlaps `range`, ascending, with its part of the range.
    pub(in crate::mm) fn for_each_leaf(
        &self,
        range: VpnRange,
        pin: Pin<'_>,
        mut visit: impl FnMut(VpnRange, LeafAt<'_>),
    ) {
        let Ok(()) = self.leaves(range, pin, |part, leaf| {
            visit(part, leaf);
            Ok::<(), Infallible>(())
        });
    }
    /// Visits every leaf that overlaps `range` with its lock held, ascending. A leaf that is taken
    /// out of its slot meanwhile has no entries and is skipped.
    pub(in crate::mm) fn for_each_locked_leaf(
        &self,
        range: VpnRange,
        pin: Pin<'_>,
        mut visit: impl FnMut(VpnRange, LockedLeaf<'_>),
    ) {
        self.for_each_leaf(range, pin, |part, leaf| {
            if let Some(leaf) = leaf.lock() {
                visit(part, leaf);
            }
        });
    }
    /// Returns the tables above `range`. Takes an epoch pin only if there are any.
    #[inline]
    pub(in crate::mm) fn above<R: Rank, C: Context>(
        &self,
        range: VpnRange,
        cx: &mut Cx<'_, R, C>,
    ) -> Tables {
        let slots = slot(range.start(), PGD_PAGES)..=slot(Vpn(range.end().0 - 1), PGD_PAGES);
        if !slots.into_iter().any(|i| self.root.has(i)) {
            return Tables::None;
        }
        match self.view(cx).first_pmd(range) {
            Some(_) => Tables::Middle,
            None => Tables::Upper,
        }
    }
    /// Start of the first 1-GiB block of `range` that has a table of 2-MiB entries, clipped to the
    /// range.
    pub(in crate::mm) fn first_pmd(&self, range: VpnRange, pin: Pin<'_>) -> Option<Vpn> {
        let mut at = range.start();
        while at < range.end().min(Vpn(TASK_PAGES)) {
            let span = match self.third(at, pin) {
                None => PGD_PAGES,
                Some(pud) if pud.has(slot(at, PUD_PAGES)) => return Some(at),
                Some(_) => PUD_PAGES,
            };
            at = at.align_down(span).plus(span);
        }
        None
    }
}

impl Drop for PageTable {
    /// Gives back the count of the table pages that the root still owns.
    fn drop(&mut self) {
        self.mem.give_tables(self.tables() as u64);
    }
}
