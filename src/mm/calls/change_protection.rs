//! Entries get the rights of their VMA, in windows (`change_protection`).

use crate::mm::{
    entry::pte::Rights,
    window::{Lease, PteSlot, PteTxn},
};
use crate::{
    addr::{PGD_PAGES, VpnRange},
    ctx::{Sleepable, rank},
    frame::FrameFlags,
    notifier::Event,
};
use std::convert::Infallible;

/// The effect of a write to a page of the VMA.
#[derive(Clone, Copy, Debug)]
pub(super) enum Sharing {
    /// The page is copied.
    Private,
    /// The object's page changes.
    Shared,
    /// The object's page changes, and the object must learn of the first write to a clean page.
    Announced,
}

impl Lease<'_, rank::Mmap, Sleepable> {
    /// Sets `done` when every entry has its new rights.
    pub(super) fn change_protection(
        mut self,
        part: VpnRange,
        (rights, sharing): (Rights, Sharing),
        done: &mut bool,
    ) {
        let mut at = part.start();
        while at < part.end() {
            let next = at.align_down(PGD_PAGES).plus(PGD_PAGES).min(part.end());
            let block = VpnRange::new(at, next).expect("next lies above at");
            if let Some(range) = self.with_tables(block) {
                let mut window = self.window(range, Event::ProtectionVma);
                window.split_edges(range);
                window
                    .leaves_in(range, |txn| {
                        change_leaf(txn, rights, sharing);
                        Ok::<(), Infallible>(())
                    })
                    .unwrap_or_else(|e| match e {});
                *done = next == part.end();
            }
            at = next;
        }
        *done = true;
    }
    /// Changes huge pages of a pool in one window, over `wide` (`hugetlb_change_protection`).
    pub(super) fn protect_huge_pages(mut self, wide: VpnRange, part: VpnRange, rights: Rights) {
        let mut window = self.window(wide, Event::ProtectionVma);
        window.for_each_leaf_in(part, |txn| change_leaf(txn, rights, Sharing::Shared));
    }
    /// Returns the part of `block` from its first table of 2-MiB entries on.
    fn with_tables(&mut self, block: VpnRange) -> Option<VpnRange> {
        let mm = self.mm;
        let pinned = self.cx.pin();
        let first = mm.table.first_pmd(block, mm.table.pin(pinned.guard()))?;
        VpnRange::new(first, block.end())
    }
}

/// Gives each entry of a leaf the rights of its VMA.
fn change_leaf(txn: &mut PteTxn<'_>, rights: Rights, sharing: Sharing) {
    // One loop for both, so that the work on an entry is inlined into it.
    let loses_write = !rights.write && txn.mem().has_exported();
    txn.for_each(|slot| {
        if loses_write {
            let pte = slot.raw();
            if pte.may_write() {
                slot.lose_write(pte);
            }
        }
        change_pte(slot, rights, sharing);
    });
}

/// Gives one entry the rights of its VMA; the right to write only if a write neither copies nor
/// must be announced to the object (`can_change_pte_writable`).
#[inline]
fn change_pte(slot: PteSlot<'_>, rights: Rights, sharing: Sharing) {
    let own = |pfn| slot.mem().flags(pfn).contains(FrameFlags::ANON_EXCLUSIVE);
    let silent = match sharing {
        Sharing::Private => slot.raw().counted().is_some_and(own),
        Sharing::Shared => true,
        // Nothing certain is known of a page that moves.
        Sharing::Announced => slot.raw().is_present() && slot.raw().is_dirty(),
    };
    let writable = rights.write && silent;
    slot.protect(Rights {
        write: writable,
        ..rights
    });
}
