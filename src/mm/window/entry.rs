//! Entries inside a window: the lock of one leaf ([`PteTxn`]) and one entry under it ([`PteSlot`]).
//!
//! These are the only public way to clear, downgrade or replace an entry. A [`PteTxn`] exists only
//! inside the closure of a window's walk, under an epoch pin and the leaf's lock, with an atomic
//! context: nothing can sleep while entries are locked
//! (`docs/adr/0002-leaf-locks-and-closures.md`). Entries outside the window's range cannot be
//! reached.

use crate::mm::{
    entry::{
        pte::{Pte, RawPte, Rights},
        release::{RemovedPte, drop_entry_to},
    },
    page_table::{LockedLeaf, Pin},
};
use crate::{
    addr::{Vpn, VpnRange},
    frame::{FrameFlags, PhysMem, Retired},
    notifier::Flusher,
};
use std::cell::Cell;

/// The locked part of one leaf table that lies in a window.
pub struct PteTxn<'p> {
    pub(super) leaf: LockedLeaf<'p>,
    pub(super) mem: &'p PhysMem,
    pub(super) part: VpnRange,
    pub(super) pin: Pin<'p>,
    pub(super) flusher: Flusher<'p>,
    /// Set if entries may have lost rights that are not flushed yet.
    pub(super) owes: Cell<bool>,
}

/// One entry in a window, under the lock of its leaf.
///
/// The locks of an address space give none; an
/// [`InvalidationWindow`](crate::mm::InvalidationWindow) does:
///
/// ```compile_fail,E0599
/// use emmu::{addr::Vpn, mm::MmapWriteGuard};
///
/// fn unmap(guard: &mut MmapWriteGuard<'_>, page: Vpn) {
///     guard.lock_ptes(page, |entries| entries.slot(page)); // open a window: `guard.lease()`
/// }
/// ```
pub struct PteSlot<'s> {
    leaf: &'s LockedLeaf<'s>,
    mem: &'s PhysMem,
    at: Vpn,
    flusher: Flusher<'s>,
    owes: &'s Cell<bool>,
}

impl<'p> PteTxn<'p> {
    /// The entry of `vpn`; `None` unless that page is in the window and in this leaf.
    ///
    /// A huge page of a pool has one entry on Linux, never a part of it: `None` as well. The calls
    /// on its mapping change such a page.
    pub fn slot(&mut self, vpn: Vpn) -> Option<PteSlot<'_>> {
        self.entry(vpn).filter(|slot| !slot.is_of_pool())
    }
    /// Visits every entry of this leaf that lies in the window and is not empty, but those of huge
    /// pages of a pool.
    pub fn for_each(&mut self, mut f: impl FnMut(PteSlot<'_>)) {
        self.each_entry(|slot| {
            if !slot.is_of_pool() {
                f(slot);
            }
        });
    }
    /// The entry of `vpn`, of any page; `None` unless that page is in the window and in this leaf.
    pub(in crate::mm) fn entry(&mut self, vpn: Vpn) -> Option<PteSlot<'_>> {
        self.part.contains(vpn).then(|| PteSlot {
            leaf: &self.leaf,
            mem: self.mem,
            at: vpn,
            flusher: self.flusher.reborrow(),
            owes: &self.owes,
        })
    }
    /// Visits every entry of this leaf that lies in the window and is not empty.
    pub(in crate::mm) fn each_entry(&mut self, mut f: impl FnMut(PteSlot<'_>)) {
        for at in self.part.iter() {
            if !self.leaf.get(at).is_none() {
                f(PteSlot {
                    leaf: &self.leaf,
                    mem: self.mem,
                    at,
                    flusher: self.flusher.reborrow(),
                    owes: &self.owes,
                });
            }
        }
    }
    pub(in crate::mm) fn mem(&self) -> &'p PhysMem {
        self.mem
    }
    /// The leaf, whose entries may be changed: lost rights are flushed before it is unlocked.
    pub(in crate::mm) fn leaf(&self) -> &LockedLeaf<'p> {
        self.owes.set(true);
        &self.leaf
    }
    /// Takes entries of `part` out of the leaf, and gives up their pages after a flush: `left`
    /// returns the entry that stays in the place of one, or `None` if that stays itself.
    // Always: the loop over a leaf is then made for each caller.
    #[inline(always)]
    pub(in crate::mm) fn remove(
        &mut self,
        part: VpnRange,
        left: impl Fn(RawPte) -> Option<RawPte>,
    ) {
        let mut retired = self.mem.retired();
        let mut debt = FlushDebt::new(part);
        let nothing_cached = self.flusher.nothing_cached();
        self.leaf
            .replace_if(part, left, |pte| match nothing_cached {
                Some(flushed) => drop_entry_to(&mut retired, pte, flushed),
                None => debt.owe(pte),
            });
        debt.pay(&mut self.flusher, &mut retired);
    }
    /// Returns the leaf, and the right to flush.
    pub(in crate::mm) fn parts(&mut self) -> (&LockedLeaf<'p>, Flusher<'_>) {
        self.owes.set(true);
        (&self.leaf, self.flusher.reborrow())
    }
    /// Returns true if the leaf maps a huge page that lies in the window in part only. One that was
    /// split is a huge page again if a fault has mapped one before this leaf was locked
    /// (`zap_pmd_range`, `change_pmd_range`).
    pub(in crate::mm) fn cuts_huge(&self) -> bool {
        self.leaf.is_huge() && self.part != VpnRange::block_of(self.part.start())
    }
    /// The epoch pin that the walk runs under.
    pub(in crate::mm) fn pin(&self) -> Pin<'p> {
        self.pin
    }
    /// The pages of the window that this leaf maps.
    pub fn range(&self) -> VpnRange {
        self.part
    }
}

/// Rights that entries have lost are flushed before the leaf is unlocked.
impl Drop for PteTxn<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.owes.get() {
            // The leaf may have changed beside the part as well.
            let all = VpnRange::block_of(self.part.start());
            let _no_frame_goes = self.flusher.flush(all);
        }
    }
}

/// Entries that were taken out of a leaf. Their frames may go once the secondary TLBs are flushed.
#[must_use = "pay it: the frames are not given up before"]
struct FlushDebt {
    range: VpnRange,
    ptes: Vec<RawPte>,
    present: bool,
}

impl FlushDebt {
    fn new(range: VpnRange) -> Self {
        let (ptes, present) = (Vec::new(), false);
        Self {
            range,
            ptes,
            present,
        }
    }
    fn owe(&mut self, pte: RawPte) {
        self.present |= pte.is_present();
        self.ptes.push(pte);
    }
    /// Flushes once for all entries, and gives up their pages.
    fn pay(self, flusher: &mut Flusher<'_>, retired: &mut Retired<'_>) {
        let flushed = flusher.flush_if(self.present, self.range);
        for pte in self.ptes {
            drop_entry_to(retired, pte, flushed);
        }
    }
}

impl<'s> PteSlot<'s> {
    /// The page that the entry maps.
    pub fn vpn(&self) -> Vpn {
        self.at
    }
    /// Content of the entry.
    pub fn get(&self) -> Pte {
        self.raw().into()
    }
    pub(in crate::mm) fn raw(&self) -> RawPte {
        self.leaf.get(self.at)
    }
    /// Returns true if the entry is part of a huge page of a pool.
    fn is_of_pool(&self) -> bool {
        let mapped = self.raw().counted();
        mapped.is_some_and(|pfn| self.mem.is_of_pool(pfn))
    }
    /// Empties the entry and returns its contents; `None` if it was empty.
    pub fn clear(self) -> Option<RemovedPte<'s>> {
        let pte = self.raw();
        if pte.is_none() {
            return None;
        }
        self.put(RawPte::NONE);
        Some(self.removed(pte))
    }
    /// Returns the contents of this entry, which was changed, after a flush (`ptep_clear_flush`).
    fn removed(self, pte: RawPte) -> RemovedPte<'s> {
        let (mem, range) = (self.mem, VpnRange::single(self.at));
        RemovedPte::new(pte, mem, self.flusher.into_flushed(pte.is_present(), range))
    }
    /// Flushes this entry, which has lost a right, before anything relies on that.
    fn flush(&mut self) {
        let _no_frame_goes = self.flusher.flush(VpnRange::single(self.at));
    }
    /// Changes this entry alone: a leaf that was marked huge has small entries from now on. Else a
    /// look-up of the huge page would take the first entry's frame and rights for all of them.
    fn put(&self, pte: RawPte) {
        if self.leaf.is_huge() {
            self.leaf.set_huge(false);
        }
        self.leaf.set(self.at, pte);
    }
    /// Replaces the entry, which the caller read as `pte`, by `left`, and returns the contents of
    /// `pte`.
    pub(in crate::mm) fn take(self, pte: RawPte, left: RawPte) -> Option<RemovedPte<'s>> {
        self.put(left);
        Some(self.removed(pte))
    }
    /// Removes write permission and returns whether it was set.
    pub fn write_protect(mut self) -> bool {
        let pte = self.raw();
        let was = pte.is_present() && pte.may_write();
        if was {
            self.lose_write(pte);
            self.put(pte.wrprotect());
            self.flush();
        }
        was
    }
    /// Removes write permission and the dirty mark, so that the next store faults
    /// (`page_vma_mkclean_one`).
    pub(in crate::mm) fn write_protect_clean(mut self) {
        let pte = self.raw();
        if let Some(pfn) = pte.counted().filter(|_| pte.is_dirty()) {
            self.mem.set_flags(pfn, FrameFlags::DIRTY);
        }
        self.put(pte.wrprotect().mkclean());
        self.flush();
    }
    /// Replaces the entry by `pte`, of the same page, with these rights. An entry that is not
    /// present notes the rights that its page will come back with.
    pub(in crate::mm) fn protect_as(self, pte: RawPte, rights: Rights) {
        let new = match pte.is_present() {
            true => pte.with_rights(rights),
            false => pte.reprotected(rights),
        };
        if new != self.raw() {
            self.owes.set(true);
            self.leaf.set(self.at, new);
        }
    }
    /// Notes that a writable entry is about to become read-only: drivers that have the frame
    /// exported are notified later.
    pub(in crate::mm) fn lose_write(&self, pte: RawPte) {
        if let Some(pfn) = pte.counted() {
            self.mem.lose_write(pfn);
        }
    }
    /// Replaces the mapping and returns the old contents; `None` if the entry was empty.
    pub(in crate::mm) fn replace(self, new: RawPte) -> Option<RemovedPte<'s>> {
        let pte = self.raw();
        self.put(new);
        (!pte.is_none()).then(|| self.removed(pte))
    }
    /// Changes marks or rights of the page that is mapped: no reference is dropped.
    pub(in crate::mm) fn set(self, pte: RawPte) {
        self.owes.set(true);
        self.leaf.set(self.at, pte);
    }
    pub(in crate::mm) fn mem(&self) -> &'s PhysMem {
        self.mem
    }
}
