//! [`LeafAt`]: a leaf as it was found in its slot, perhaps shared with other address spaces.
//!
//! Guarantee: a fork that shares leaves cannot be told from one that copied. A reader of an entry
//! sees the value that the copy would hold; a caller that wants the lock of a shared leaf gets the
//! lock of a leaf of its own, made then. Only the counts of a frame, read by its number, are behind
//! until a sharer has unshared the leaf, or until [`LeafAt::settle_counts`].
//!
//! How: a shared leaf is in a slot of each sharer's table. The slot is marked, as the R/W bit of a
//! directory's entry protects everything below it. The entries keep their rights and are read as if
//! they had none. The lock of the leaf guards [`Sharers`] and the marks. Entries of a shared leaf
//! never change visibly. So a reader without a lock, whose leaf may have become another table's
//! meanwhile, looks at its slot again after it read an entry: if the mark is still there, the entry
//! was valid. `docs/adr/0014-a-shared-table-is-marked-in-its-slots.md` has the whole protocol.

use super::{
    leaf::{Leaf, LockedLeaf, Sharers},
    node::{Marks, Pin, Pmd, SlotValue},
};
use crate::{
    addr::{PMD_PAGES, Vpn, VpnRange},
    error::NoMemory,
    frame::{AllocKind, PhysMem},
    mm::entry::pte::RawPte,
};

/// The 512 pages from page 0 on: every entry of a leaf, whatever pages it maps.
fn whole() -> VpnRange {
    VpnRange::new(Vpn(0), Vpn(PMD_PAGES)).expect("not empty")
}

/// Adds `more` references to the frame or slot of an entry, for as many copies of it. The page is
/// not exclusive afterwards.
#[inline]
pub(in crate::mm) fn count_copies(mem: &PhysMem, pte: RawPte, more: u32) {
    if let Some(pfn) = pte.mapped() {
        mem.share_private(pfn, more);
    } else if let Some(slot) = pte.swap_slot() {
        (0..more).for_each(|_| mem.swap_dup(slot));
    }
}

/// The value of an entry as seen through a slot with these marks.
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

/// A leaf as it was found in a slot of a table.
#[derive(Clone, Copy)]
pub(in crate::mm) struct LeafAt<'g> {
    mem: &'g PhysMem,
    pub(super) pmd: &'g Pmd,
    pub(super) i: usize,
    pin: Pin<'g>,
    pub(super) seen: SlotValue<'g>,
}

impl<'g> LeafAt<'g> {
    /// Reads slot `i` of `pmd`; `None` if it is empty.
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
    /// The leaf that is in the slot now.
    fn again(self) -> Option<Self> {
        Self::find(self.mem, self.pmd, self.i, self.pin)
    }
    /// Returns true if other tables had the leaf as well when it was found.
    #[inline]
    pub(in crate::mm) fn is_shared(&self) -> bool {
        self.seen.marks().is_shared()
    }
    /// Returns true if the slot still has this leaf with these marks.
    pub(super) fn is_still_there(&self) -> bool {
        self.pmd.has_still(self.i, self.seen)
    }
    /// Returns true if the leaf maps a huge page as one. A shared leaf never does; the test of the
    /// marks comes first because the leaf may become another table's and then map one.
    #[inline]
    pub(in crate::mm) fn is_huge(&self) -> bool {
        !self.is_shared() && self.seen.leaf.is_huge()
    }
    /// Reads one entry without the lock, as a hardware walk does.
    #[inline]
    pub(in crate::mm) fn peek(&self, at: Vpn) -> RawPte {
        if self.is_shared() {
            return self.peek_shared(at);
        }
        self.seen.leaf.peek(at)
    }
    /// Reads each entry of `part` that is not empty, without the lock.
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
    /// Reads one entry of a shared leaf without the second look at the slot: a mistake, for the
    /// test that shows it.
    #[cfg(test)]
    pub(super) fn peek_blindly(&self, at: Vpn) -> RawPte {
        view(self.seen.leaf.peek(at), self.seen.marks())
    }
    #[cold]
    fn peek_shared(self, at: Vpn) -> RawPte {
        let mut now = self;
        loop {
            let pte = now.seen.leaf.peek(at);
            // Another table may own the leaf by now and have changed the entry. Then this slot had
            // lost the leaf before that (acquire in `has_still`): look again.
            if !now.is_shared() || now.is_still_there() {
                return view(pte, now.seen.marks());
            }
            match now.again() {
                Some(found) => now = found,
                None => return RawPte::NONE,
            }
        }
    }
    /// Locks the leaf, unsharing it first if it is shared. Returns `None` if the slot is empty by
    /// now.
    ///
    /// Unsharing asks for no permission to allocate here: operations that must not fail use this.
    pub(in crate::mm) fn lock(self) -> Option<LockedLeaf<'g>> {
        self.lock_if(|| Ok(())).unwrap_or(None)
    }
    /// Locks the leaf as [`lock`](Self::lock) does, for an operation that may still fail.
    ///
    /// # Errors
    ///
    /// [`NoMemory::Table`]: the leaf is shared, and a table of its own was refused.
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
        match self.lock_own() {
            Some(locked) => Ok(Some(locked)),
            None => self.lock_again(ask),
        }
    }
    /// Locks the leaf if it is this table's alone and still in its slot, as nearly every one is.
    #[inline]
    fn lock_own(&self) -> Option<LockedLeaf<'g>> {
        if self.is_shared() {
            return None;
        }
        let locked = self.seen.leaf.lock();
        self.is_still_there().then_some(locked)
    }
    #[cold]
    fn lock_again(
        mut self,
        ask: impl Fn() -> Result<(), NoMemory>,
    ) -> Result<Option<LockedLeaf<'g>>, NoMemory> {
        loop {
            if self.is_shared() {
                self.unshare(&ask)?;
            }
            match self.again() {
                Some(found) => self = found,
                None => return Ok(None),
            }
            if let Some(locked) = self.lock_own() {
                return Ok(Some(locked));
            }
        }
    }
    /// Locks two leaves that no other operation can take out of their slots meanwhile; locks once
    /// if they are the same.
    ///
    /// # Errors
    ///
    /// As [`try_lock`](Self::try_lock).
    ///
    /// # Panics
    ///
    /// If one was taken out all the same.
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

    /// Replaces the shared leaf by one of this table alone; does nothing if another thread was
    /// first.
    #[cold]
    fn unshare(self, ask: impl Fn() -> Result<(), NoMemory>) -> Result<(), NoMemory> {
        let mut locked = self.seen.leaf.lock();
        if !self.is_still_there() {
            return Ok(());
        }
        let marks = self.seen.marks();
        if locked.sharers().tables == 1 {
            // The last sharer takes the leaf as it is.
            settle_counts(&mut locked, self.mem);
            locked.change_all(|pte| view(pte, marks));
            let _moved = self.pmd.remark(self.i, self.seen, Marks::NONE);
            return Ok(());
        }
        ask()?;
        settle_counts(&mut locked, self.mem);
        let own = Leaf::new();
        locked.copy_to_new(&own, whole(), |pte| (pte, view(pte, marks)));
        if self.pmd.leave(self.i, self.seen, Some(own)) {
            let sharers = locked.sharers();
            sharers.tables -= 1;
            sharers.counted -= 1;
        }
        Ok(())
    }
    /// Makes the counts of the frames in a shared leaf those of a fork that copied.
    pub(in crate::mm) fn settle_counts(self) {
        if self.is_shared() {
            let mut locked = self.seen.leaf.lock();
            if self.is_still_there() {
                settle_counts(&mut locked, self.mem);
            }
        }
    }
}

/// Adds the sharers that the counts of the frames do not know of, and marks the entries as a fork
/// that copies would.
fn settle_counts(locked: &mut LockedLeaf<'_>, mem: &PhysMem) {
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
