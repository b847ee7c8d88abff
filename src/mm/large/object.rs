//! Dropping mappings of huge pages of objects, as a whole.
//!
//! Guarantee: a fault maps such a page as one only while it holds the lock of the first frame, and
//! after it saw that the page is whole. An operation that splits the page, or gives it up, holds
//! that lock as well, and drops the mappings before. So a fault that comes too late finds small
//! pages, or none.

use crate::mm::{
    entry::{flags::VmFlags, pte::RawPte, release::RemovedPte},
    page_table::LockedLeaf,
    space::Mm,
    vma::WRITTEN,
    window::{InvalidationWindow, Lease},
};
use crate::{
    addr::{Pfn, Vpn, VpnRange},
    ctx::{Below, Rank, Sleepable, rank},
    frame::HUGE,
    notifier::Event,
    rmap::{MappedAt, RmapCx},
};

/// VMAs whose tables stay: those in which private pages were written, and those with markers.
const KEEPS_TABLES: VmFlags = WRITTEN.union(VmFlags::MAYBE_GUARD).union(VmFlags::UFFD_WP);

/// The reasons why a table cannot give way to a huge page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::mm) enum TableStays {
    /// An entry maps no page, and is not empty.
    NotPresent,
    /// An entry maps a page that is not part of the huge page, or the leaf is huge already.
    OtherPage,
}

/// Checks that the leaf maps only pages of the huge page that begins with `head`, each in its
/// place.
pub(in crate::mm) fn check_parts(
    leaf: &LockedLeaf<'_>,
    at: Vpn,
    head: Pfn,
) -> Result<(), TableStays> {
    for (i, page) in (0..HUGE).zip(VpnRange::block_of(at).iter()) {
        let pte = leaf.get(page);
        if pte.is_other() {
            return Err(TableStays::NotPresent);
        }
        if !pte.is_none() && pte.counted() != Some(head.nth(i)) {
            return Err(TableStays::OtherPage);
        }
    }
    Ok(())
}

impl<R: Rank + Below<rank::Window>> Lease<'_, R, Sleepable> {
    /// Drops the mapping of the huge page that has the locked frame `pfn` at `at`, and its table,
    /// in a window over the block. If it was split meanwhile, only that frame is dropped, where it
    /// is mapped still: the block may have private copies.
    pub(in crate::mm) fn drop_huge(&mut self, at: Vpn, pfn: Pfn) {
        let block = VpnRange::block_of(at);
        let mut window = self.window(block, Event::Clear);
        window.lock_ptes(at, |txn| {
            if txn.leaf().get(at).counted() != Some(pfn) {
                return;
            }
            if txn.leaf().is_huge() {
                txn.remove(block, |_| Some(RawPte::NONE));
                txn.leaf().set_huge(false);
            } else if let Some(slot) = txn.entry(at) {
                RemovedPte::give_up_locked(slot.clear());
            }
        });
        window.free_empty_leaves(block);
        window.close();
    }
}

impl Mm {
    /// Drops the mappings in `part` of an object's huge page that begins with `head`, in a window
    /// over `part` (`try_to_unmap_one`).
    pub(super) fn drop_parts(&self, cx: RmapCx<'_>, part: VpnRange, head: Pfn) {
        let mut window = Lease { mm: self, cx }.into_window(part, Event::Clear);
        let mut was_one = false;
        let is_part = |pte: RawPte| pte.counted().is_some_and(|pfn| pfn.head() == head);
        window.for_each_leaf_in(part, |txn| {
            let range = txn.range();
            txn.remove(range, |pte| is_part(pte).then_some(RawPte::NONE));
            if txn.leaf().is_huge() && txn.leaf().is_empty() {
                txn.leaf().set_huge(false);
                was_one = true;
            }
        });
        if was_one {
            window.free_empty_leaves(part);
        }
        window.close();
    }
    /// Drops the table of a block that became huge in its object; see
    /// [`RmapTarget::retract`](crate::rmap::RmapTarget::retract).
    pub(in crate::mm) fn retract_at(&self, mut cx: RmapCx<'_>, spot: &MappedAt<'_>, head: Pfn) {
        let flags = VmFlags::from_bits_retain(spot.flags);
        if flags.intersects(KEEPS_TABLES) {
            return;
        }
        let has_small = self.with_leaf_of(&mut cx, spot.at, |leaf| !leaf.is_huge());
        if has_small == Some(true) {
            let block = VpnRange::block_of(spot.at);
            let window = Lease { mm: self, cx }.into_window(block, Event::Clear);
            let _kept = window.drop_table(spot.at, head);
        }
    }
}

impl InvalidationWindow<'_, Sleepable> {
    /// Drops the table of a block and ends the window. The table stays if it maps other pages than
    /// those of the huge page that begins with `head`.
    pub(in crate::mm) fn drop_table(mut self, at: Vpn, head: Pfn) -> Result<(), TableStays> {
        let block = VpnRange::block_of(at);
        let dropped = self.lock_ptes(at, |txn| {
            if txn.leaf().is_huge() {
                return Err(TableStays::OtherPage); // Another thread was first.
            }
            check_parts(txn.leaf(), at, head)?;
            txn.remove(block, |_| Some(RawPte::NONE));
            Ok(())
        });
        self.free_empty_leaves(block);
        self.close();
        dropped.unwrap_or(Ok(()))
    }
}
