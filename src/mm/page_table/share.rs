//! Leaves that several address spaces share until one of them wants its own: fork without copying tables (Zhao et al.,
//! "On-demand-fork", EuroSys 2021).
//!
//! Guarantee: nobody can tell it from a fork that copied. Whoever looks at an entry sees what the copy would hold;
//! whoever wants the lock of a shared leaf gets that of a leaf of his own, made then. Only the counts of a frame, read by
//! its number, are behind until somebody did that, or [`LeafAt::settle`].
//!
//! How: a shared leaf is in a slot of each of its tables, marked there, as the R/W bit of a directory's entry protects all
//! below it; its entries keep their rights, and are read as if they had none. The leaf's lock guards who has it, and the
//! slots that are marked. Entries of a shared leaf change in nothing that shows. So a reader without a lock, who may be
//! about to read an entry of a leaf that meanwhile became another's, looks at its slot again: if the mark is still there,
//! what he read was so.

use super::{
    PageTable, Pin, Pmd,
    leaf::{Leaf, LockedLeaf},
    node::{Marks, Seen},
    slot,
};
use crate::{
    addr::{PMD_PAGES, Vpn, VpnRange},
    error::NoMemory,
    frame::{AllocKind, PhysMem},
    mm::entry::pte::RawPte,
};

/// Who has a leaf. Guarded by its lock.
pub(super) struct Sharers {
    /// Slots that it is in.
    tables: u32,
    /// Of them, those that the counts of its frames know of. If not all: as many as when it was last settled, less those
    /// that left by then.
    counted: u32,
    /// It was forked since it was settled: entries may still have rights, and frames be exclusive.
    forked: bool,
}

impl Default for Sharers {
    fn default() -> Self {
        Self {
            tables: 1,
            counted: 1,
            forked: false,
        }
    }
}

/// The 2 MiB around page 0, as every leaf sees its own.
fn whole() -> VpnRange {
    VpnRange::new(Vpn(0), Vpn(PMD_PAGES)).expect("not empty")
}

/// The counts of what an entry refers to go up, as `more` copies of it are made; it is nobody's own from here on.
#[inline]
pub(in crate::mm) fn count_copies(mem: &PhysMem, pte: RawPte, more: u32) {
    if let Some(pfn) = pte.counted() {
        mem.share_private(pfn, more);
    } else if let Some(slot) = pte.swap_slot() {
        (0..more).for_each(|_| mem.swap_dup(slot));
    }
}

/// What an entry of a leaf with these marks is to who looks at it through them.
#[inline]
fn view(pte: RawPte, marks: Marks) -> RawPte {
    if marks.is_inherited() {
        pte.forked().inherited()
    } else if marks.is_shared() {
        pte.forked()
    } else {
        pte
    }
}

/// A leaf as it was found in a table, and where.
#[derive(Clone, Copy)]
pub(in crate::mm) struct LeafAt<'g> {
    mem: &'g PhysMem,
    pmd: &'g Pmd,
    i: usize,
    pin: Pin<'g>,
    seen: Seen<'g>,
}

impl<'g> LeafAt<'g> {
    #[inline]
    pub(super) fn find(mem: &'g PhysMem, pmd: &'g Pmd, i: usize, pin: Pin<'g>) -> Option<Self> {
        let seen = pmd.seen(i, pin)?;
        Some(Self {
            mem,
            pmd,
            i,
            pin,
            seen,
        })
    }
    /// What is in the slot by now.
    fn again(self) -> Option<Self> {
        Self::find(self.mem, self.pmd, self.i, self.pin)
    }
    #[inline]
    pub(in crate::mm) fn is_shared(&self) -> bool {
        self.seen.marks().is_shared()
    }
    fn is_still_there(&self) -> bool {
        self.pmd.has_still(self.i, self.seen)
    }
    /// Whether it maps a huge page as one; a shared one does not, but may become another's that does.
    #[inline]
    pub(in crate::mm) fn is_huge(&self) -> bool {
        !self.is_shared() && self.seen.leaf.is_huge()
    }
    /// Reads one entry without the lock: what a hardware walk sees.
    #[inline]
    pub(in crate::mm) fn peek(&self, at: Vpn) -> RawPte {
        if self.is_shared() {
            return self.peek_shared(at);
        }
        self.seen.leaf.peek(at)
    }
    /// Reads each entry of `part` that there is, without the lock.
    #[inline]
    pub(in crate::mm) fn peek_each(&self, part: VpnRange, mut visit: impl FnMut(Vpn, RawPte)) {
        if !self.is_shared() {
            return self.seen.leaf.peek_each(part, visit);
        }
        for at in part.iter() {
            let pte = self.peek_shared(at);
            if !pte.is_none() {
                visit(at, pte);
            }
        }
    }
    /// The mistake: without another look at the slot.
    #[cfg(test)]
    pub(super) fn peek_blindly(&self, at: Vpn) -> RawPte {
        view(self.seen.leaf.peek(at), self.seen.marks())
    }
    #[cold]
    fn peek_shared(self, at: Vpn) -> RawPte {
        let mut now = self;
        loop {
            let pte = now.seen.leaf.peek(at);
            // Another's by now, and changed by him? Then the mark went before the entry was written.
            if !now.is_shared() || now.is_still_there() {
                return view(pte, now.seen.marks());
            }
            match now.again() {
                Some(found) => now = found,
                None => return RawPte::NONE,
            }
        }
    }
    /// The lock of the leaf, which is this table's own then; `None`: it was taken out of its place, and no other is there.
    pub(in crate::mm) fn lock(self) -> Option<LockedLeaf<'g>> {
        self.lock_if(|| Ok(())).unwrap_or(None)
    }
    /// The same where the operation may still be refused.
    ///
    /// # Errors
    ///
    /// [`NoMemory::Table`]: the leaf is shared, and no other could be had.
    pub(in crate::mm) fn try_lock(self) -> Result<Option<LockedLeaf<'g>>, NoMemory> {
        self.lock_if(|| self.ask())
    }
    fn ask(&self) -> Result<(), NoMemory> {
        let refused = |_| NoMemory::Table;
        self.mem.inject().check(AllocKind::Table).map_err(refused)
    }
    #[inline]
    fn lock_if(
        self,
        ask: impl Fn() -> Result<(), NoMemory>,
    ) -> Result<Option<LockedLeaf<'g>>, NoMemory> {
        let mut now = self;
        loop {
            if now.is_shared() {
                now.unshare(&ask)?;
            } else {
                let locked = now.seen.leaf.lock();
                if now.is_still_there() {
                    return Ok(Some(locked));
                }
            }
            match now.again() {
                Some(found) => now = found,
                None => return Ok(None),
            }
        }
    }
    /// The locks of two leaves that nobody can take out of their places meanwhile; one, if they are the same.
    ///
    /// # Errors
    ///
    /// As [`try_lock`](Self::try_lock).
    ///
    /// # Panics
    ///
    /// If one was taken out.
    pub(in crate::mm) fn lock_pair(
        a: Self,
        b: Self,
    ) -> Result<(LockedLeaf<'g>, Option<LockedLeaf<'g>>), NoMemory> {
        let own = |at: Self| -> Result<&'g Leaf, NoMemory> {
            drop(at.try_lock()?);
            let at = at.again().expect("nobody frees tables now");
            Ok(at.seen.leaf)
        };
        let (a, b) = (own(a)?, own(b)?);
        if std::ptr::eq(a, b) {
            return Ok((a.lock(), None));
        }
        let (a, b) = Leaf::lock_pair(a, b);
        Ok((a, Some(b)))
    }

    /// Gives the table a leaf of its own in the place of the shared one. Does nothing if another thread was first.
    #[cold]
    fn unshare(self, ask: impl Fn() -> Result<(), NoMemory>) -> Result<(), NoMemory> {
        let mut locked = self.seen.leaf.lock();
        if !self.is_still_there() {
            return Ok(());
        }
        let marks = self.seen.marks();
        if locked.sharers().tables == 1 {
            // The last one takes it as it is.
            settle(&mut locked, self.mem);
            locked.change_all(|pte| view(pte, marks));
            let _moved = self.pmd.remark(self.i, self.seen, Marks::NONE);
            return Ok(());
        }
        ask()?;
        settle(&mut locked, self.mem);
        let own = Leaf::new();
        locked.copy_to_new(&own, whole(), |pte| (pte, view(pte, marks)));
        if self.pmd.leave(self.i, self.seen, Some(own)) {
            let sharers = locked.sharers();
            sharers.tables -= 1;
            sharers.counted -= 1;
        }
        Ok(())
    }
    /// Makes the counts of its frames those of a fork that copied.
    pub(in crate::mm) fn settle(self) {
        if self.is_shared() {
            let mut locked = self.seen.leaf.lock();
            if self.is_still_there() {
                settle(&mut locked, self.mem);
            }
        }
    }
}

fn settle(locked: &mut LockedLeaf<'_>, mem: &PhysMem) {
    let Sharers {
        tables,
        counted,
        forked,
    } = *locked.sharers();
    if !forked {
        return;
    }
    locked.change_all(|pte| {
        count_copies(mem, pte, tables - counted);
        pte.forked()
    });
    *locked.sharers() = Sharers {
        tables,
        counted: tables,
        forked: false,
    };
}

impl PageTable {
    /// Puts a leaf of another table, found at `at` there, at the same place here, to be shared from now on. `false`: it
    /// cannot be, or not now.
    pub(in crate::mm) fn share(
        &self,
        at: Vpn,
        leaf: LeafAt<'_>,
        pin: Pin<'_>,
    ) -> Result<bool, NoMemory> {
        let pmd = self.make_pmd(at, pin)?;
        if pmd.has(slot(at, PMD_PAGES)) {
            return Ok(false);
        }
        let mut locked = leaf.seen.leaf.lock();
        if !leaf.is_still_there() || locked.is_huge() {
            return Ok(false);
        }
        self.take_table()?;
        if !leaf.is_shared() && !leaf.pmd.remark(leaf.i, leaf.seen, Marks::SHARED) {
            self.give_tables(1);
            return Ok(false);
        }
        let sharers = locked.sharers();
        sharers.tables += 1;
        sharers.forked = true;
        pmd.join(slot(at, PMD_PAGES), leaf.seen);
        Ok(true)
    }
    /// Takes a leaf out that others keep; `gone` gets each entry that was counted for this table. `false`: it is not shared.
    pub(in crate::mm) fn leave(&self, leaf: LeafAt<'_>, mut gone: impl FnMut(RawPte)) -> bool {
        if !leaf.is_shared() {
            return false;
        }
        let mut locked = leaf.seen.leaf.lock();
        if locked.sharers().tables == 1 || !leaf.pmd.leave(leaf.i, leaf.seen, None) {
            return false;
        }
        if locked.sharers().counted == locked.sharers().tables {
            locked.change_all(|pte| {
                gone(pte);
                pte
            });
            locked.sharers().counted -= 1;
        }
        locked.sharers().tables -= 1;
        self.give_tables(1);
        true
    }
}
