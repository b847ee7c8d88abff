//! What is in the hands of whoever took an entry out of a table.

use super::pte::RawPte;
use crate::{
    addr::Pfn,
    frame::{AccessBits, PhysMem, Retired, SwapSlot},
};

/// What an entry held, taken out of the table. Dropping it gives up the mapping: the frame is retired when that was
/// the last reference.
#[must_use = "dropping it gives up the mapping; say so with `drop`"]
pub struct Detached<'m> {
    pte: RawPte,
    mem: &'m PhysMem,
}

impl<'m> Detached<'m> {
    #[inline]
    pub(in crate::mm) fn new(pte: RawPte, mem: &'m PhysMem) -> Self {
        Self { pte, mem }
    }
}

impl Detached<'_> {
    /// The frame that was mapped; none for the zero page and for markers.
    pub fn pfn(&self) -> Option<Pfn> {
        self.pte.counted()
    }
    /// Gives up a mapping, if there was one, of a frame that the caller has locked: whoever has it by number is told by the
    /// caller.
    pub(in crate::mm) fn give_up_locked(gone: Option<Self>) {
        let Some(gone) = gone.map(std::mem::ManuallyDrop::new) else {
            return;
        };
        if let Some(pfn) = gone.pte.counted() {
            let (young, dirty) = (gone.pte.is_young(), gone.pte.is_dirty());
            let mut retired = gone.mem.retired();
            retired.unmap_locked(pfn, AccessBits { young, dirty });
        }
    }
}

/// Gives up what an entry held that is no longer in a table.
pub(in crate::mm) fn drop_entry(mem: &PhysMem, pte: RawPte) {
    drop_entry_to(&mut mem.retired(), pte);
}
/// The same; a frame that nobody else has is put back with others.
#[inline(always)]
pub(in crate::mm) fn drop_entry_to(retired: &mut Retired<'_>, pte: RawPte) {
    if let Some(pfn) = pte.counted() {
        let (young, dirty) = (pte.is_young(), pte.is_dirty());
        retired.unmap(pfn, AccessBits { young, dirty });
    } else if let Some(slot) = pte.swap_slot() {
        drop_slot(retired, slot);
    }
}
#[inline(never)]
fn drop_slot(retired: &mut Retired<'_>, slot: SwapSlot) {
    retired.put_back();
    retired.mem().swap_free(slot);
}

impl Drop for Detached<'_> {
    fn drop(&mut self) {
        drop_entry(self.mem, self.pte);
    }
}
