//! The contents of an entry after it left its table, and the ways to give them up.
//!
//! An entry of a present page, or of one on a device, holds one reference and one mapping count of
//! its frame; an entry of a page in swap holds a count on its slot. The code that clears an entry
//! takes these over, as a [`RemovedPte`] or as the bare word, and must give them up here; a value
//! does so when it is dropped (`docs/adr/0003-drop-is-the-other-half.md`). A frame whose last
//! reference goes returns to the free list, alone or in a batch ([`Retired`]).
//!
//! A frame goes against a [`Flushed`]: the secondary TLBs have been flushed since the entry left
//! its table (`docs/adr/0033-frames-go-against-a-flush.md`).

use super::pte::RawPte;
use crate::{
    addr::Pfn,
    frame::{AccessBits, PhysMem, Retired, SwapSlot},
    notifier::Flushed,
};

/// The contents of an entry that was taken out of a table.
///
/// Dropping it gives up the mapping, and frees the frame if that was its last reference.
#[must_use = "dropping it gives up the mapping; say so with `drop`"]
pub struct RemovedPte<'m> {
    pte: RawPte,
    mem: &'m PhysMem,
    flushed: Flushed<'m>,
}

impl<'m> RemovedPte<'m> {
    #[inline]
    pub(in crate::mm) fn new(pte: RawPte, mem: &'m PhysMem, flushed: Flushed<'m>) -> Self {
        Self { pte, mem, flushed }
    }
}

impl RemovedPte<'_> {
    /// The frame that was mapped; `None` for the zero page and for entries of pages that are not in
    /// memory.
    pub fn pfn(&self) -> Option<Pfn> {
        self.pte.counted()
    }
    /// Gives up a mapping, if there was one, of a frame that the caller has locked. The caller
    /// notifies the drivers that have this frame exported.
    pub(in crate::mm) fn give_up_locked(gone: Option<Self>) {
        let Some(gone) = gone.map(std::mem::ManuallyDrop::new) else {
            return;
        };
        if let Some(pfn) = gone.pte.mapped() {
            let (young, dirty) = (gone.pte.is_young(), gone.pte.is_dirty());
            let mut retired = gone.mem.retired();
            retired.unmap_locked(pfn, AccessBits { young, dirty });
        }
    }
}

/// Gives up the contents of an entry that is no longer in a table: its mapping, and the frame if
/// that was the last reference.
pub(in crate::mm) fn drop_entry(mem: &PhysMem, pte: RawPte, flushed: Flushed<'_>) {
    drop_entry_to(&mut mem.retired(), pte, flushed);
}
/// Gives up the contents of one of many entries, as [`drop_entry`] does: `retired` collects the
/// frames whose last reference goes and frees them in batches.
#[inline(always)]
pub(in crate::mm) fn drop_entry_to(retired: &mut Retired<'_>, pte: RawPte, flushed: Flushed<'_>) {
    let _owed_before = flushed;
    if let Some(pfn) = pte.counted() {
        let (young, dirty) = (pte.is_young(), pte.is_dirty());
        retired.unmap(pfn, AccessBits { young, dirty });
    } else if let Some(slot) = pte.swap_slot() {
        drop_slot(retired, slot);
    } else if let Some(pfn) = pte.of_device() {
        retired.unmap(pfn, AccessBits::default());
    }
}
#[inline(never)]
fn drop_slot(retired: &mut Retired<'_>, slot: SwapSlot) {
    retired.put_back();
    retired.mem().swap_free(slot);
}

impl Drop for RemovedPte<'_> {
    fn drop(&mut self) {
        drop_entry(self.mem, self.pte, self.flushed);
    }
}

impl std::fmt::Debug for RemovedPte<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RemovedPte")
            .field("pfn", &self.pfn())
            .finish_non_exhaustive()
    }
}
