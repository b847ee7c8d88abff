//! The page table: four levels of 512 entries, as x86-64 has them.
//!
//! Guarantee: a lookup takes no lock and waits for nobody; it needs an epoch pin, and table pages outlive it. Which
//! table pages exist is as on Linux at every moment, since Linux lets it show: a window is opened or not, a move is
//! done by entry or by table.
//!
//! No page above the address space has an entry, whoever asks: the index into the root is compared, not masked
//! ([`PageTable::third`]), ranges are cut at the end of the address space, and nothing is made above it. Below the root an
//! index is masked, since the root has said which page it is of.

#[cfg(feature = "internals")]
pub mod bench_table;

mod free;
mod leaf;
mod node;
mod relocate;
mod share;
#[cfg(test)]
mod tests;

pub(super) use free::Bounds;
pub(super) use leaf::LockedLeaf;
pub(super) use node::Pin;
pub(super) use share::{LeafAt, count_copies};

use crate::{
    addr::{PGD_PAGES, PMD_PAGES, PUD_PAGES, TASK_PAGES, Vpn, VpnRange},
    ctx::Epoch,
    error::NoMemory,
    frame::{AllocKind, PhysMem},
    sync::{AtomicUsize, Ordering},
};
use crossbeam_epoch::Guard;
use leaf::Leaf;
use node::{Child, Dir, ENTRIES};
use std::sync::Arc;

type Pmd = Dir<Leaf>;
type Pud = Dir<Pmd>;
type Pgd = Dir<Pud>;

/// Page table of one address space.
pub(super) struct PageTable {
    root: Box<Pgd>,
    epoch: Epoch,
    mem: Arc<PhysMem>,
    /// Table pages below the root.
    tables: AtomicUsize,
}

/// The place in the root of the table that has `at`; `None` above what four levels can hold.
#[inline]
fn root_slot(at: Vpn) -> Option<usize> {
    let i = usize::try_from(at.0 / PGD_PAGES).ok()?;
    (i < ENTRIES).then_some(i)
}

/// The place in a lower table, which holds 512 spans.
#[inline]
#[allow(clippy::cast_possible_truncation)]
const fn slot(at: Vpn, span: u64) -> usize {
    (at.0 / span) as usize & (ENTRIES - 1)
}

impl PageTable {
    pub(super) fn new(mem: &Arc<PhysMem>, epoch: &Epoch) -> Self {
        Self {
            root: Dir::new(),
            epoch: epoch.clone(),
            mem: Arc::clone(mem),
            tables: AtomicUsize::new(0),
        }
    }
    /// Table pages below the root.
    pub(super) fn tables(&self) -> usize {
        self.tables.load(Ordering::Relaxed)
    }
    /// One more of them.
    fn take_table(&self) -> Result<(), NoMemory> {
        self.mem.take_table()?;
        self.tables.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
    fn give_tables(&self, count: usize) {
        self.tables.fetch_sub(count, Ordering::Relaxed);
        self.mem.give_tables(count as u64);
    }
    pub(super) fn pin<'g>(&self, guard: &'g Guard) -> Pin<'g> {
        Pin::new(&self.epoch, guard)
    }
    /// [`pin`](Self::pin) with a guard that has been through it before.
    #[inline]
    pub(super) fn checked<'g>(&self, guard: &'g Guard) -> Pin<'g> {
        Pin::checked(&self.epoch, guard)
    }

    /// The third level for `at`. The one way down from the root.
    #[inline]
    fn third<'g>(&'g self, at: Vpn, pin: Pin<'g>) -> Option<&'g Pud> {
        self.root.child(root_slot(at)?, pin)
    }
    #[inline]
    fn pmd<'g>(&'g self, at: Vpn, pin: Pin<'g>) -> Option<&'g Pmd> {
        self.third(at, pin)?.child(slot(at, PUD_PAGES), pin)
    }
    /// The leaf that holds the entry of `at`.
    #[inline]
    pub(super) fn leaf<'g>(&'g self, at: Vpn, pin: Pin<'g>) -> Option<LeafAt<'g>> {
        LeafAt::find(&self.mem, self.pmd(at, pin)?, slot(at, PMD_PAGES), pin)
    }
    /// Whether the table of 2-MiB entries above `at` exists (`mm_find_pmd`).
    pub(super) fn has_pmd(&self, at: Vpn, pin: Pin<'_>) -> bool {
        self.third(at, pin)
            .is_some_and(|pud| pud.has(slot(at, PUD_PAGES)))
    }

    /// The child in a slot, made if there is none.
    fn grow<'g, C: Child>(
        &self,
        dir: &'g Dir<C>,
        i: usize,
        pin: Pin<'g>,
        new: impl Fn() -> Box<C>,
    ) -> Result<&'g C, NoMemory> {
        // Again if the leaf went that was just made, which a large MADV_DONTNEED may do.
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
    /// The third level for `at` (`pud_alloc`).
    fn make_pud<'g>(&'g self, at: Vpn, pin: Pin<'g>) -> Result<&'g Pud, NoMemory> {
        // No VMA lies there, so nobody may ask for it.
        assert!(at.0 < TASK_PAGES, "{at:?} is no user page");
        self.grow(&self.root, slot(at, PGD_PAGES), pin, Dir::new)
    }
    /// Makes the third level for `at`, and no more.
    pub(super) fn make_pud_for(&self, at: Vpn, pin: Pin<'_>) -> Result<(), NoMemory> {
        self.make_pud(at, pin).map(|_| ())
    }
    /// The second level for `at`, made with those above it if need be (`pmd_alloc`).
    pub(super) fn make_pmd<'g>(&'g self, at: Vpn, pin: Pin<'g>) -> Result<&'g Pmd, NoMemory> {
        let pud = self.make_pud(at, pin)?;
        self.grow(pud, slot(at, PUD_PAGES), pin, Dir::new)
    }
    /// The leaf for `at`, made with the levels above it if need be (`pte_alloc`).
    #[inline]
    pub(super) fn make_leaf<'g>(&'g self, at: Vpn, pin: Pin<'g>) -> Result<LeafAt<'g>, NoMemory> {
        match self.leaf(at, pin) {
            Some(leaf) => Ok(leaf),
            None => self.grow_leaf(at, pin),
        }
    }
    #[cold]
    fn grow_leaf<'g>(&'g self, at: Vpn, pin: Pin<'g>) -> Result<LeafAt<'g>, NoMemory> {
        let pmd = self.make_pmd(at, pin)?;
        let i = slot(at, PMD_PAGES);
        // Again if the leaf went that was just made, which a large MADV_DONTNEED may do.
        loop {
            let _made = self.grow(pmd, i, pin, Leaf::new)?;
            if let Some(leaf) = LeafAt::find(&self.mem, pmd, i, pin) {
                return Ok(leaf);
            }
        }
    }

    /// Visits every leaf that overlaps `range`, ascending, with its part of the range. Takes a step for each table that is
    /// there, and for each run of slots that have none; above the address space it takes none.
    pub(super) fn leaves<E>(
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
    /// First 1-GiB block of `range` with a table of 2-MiB entries, clipped to the range.
    pub(super) fn first_pmd(&self, range: VpnRange, pin: Pin<'_>) -> Option<Vpn> {
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
    /// What nobody freed goes with the root.
    fn drop(&mut self) {
        self.mem.give_tables(self.tables() as u64);
    }
}
