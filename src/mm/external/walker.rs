//! What a hardware walker does: it follows the tables and takes no lock.

use crate::mm::{entry::pte::Pte, page_table::Pin, space::Mm};
use crate::{
    addr::{TASK_PAGES, Vpn},
    ctx::{Below, Context, Cx, Pinned, rank},
};

impl Mm {
    /// Pins the page table for reading: any number of lookups, each of which takes no lock and waits for nobody. Nothing
    /// may sleep while the walker lives.
    ///
    /// # Panics
    ///
    /// If the token is of a thread that entered another machine.
    pub fn walker<'w, R: Below<rank::Ptl>, C: Context>(
        &'w self,
        cx: &'w mut Cx<'_, R, C>,
    ) -> Walker<'w, R> {
        let pinned = cx.pin();
        // Checked once here rather than at every lookup.
        let _of_this_machine = self.table.pin(pinned.guard());
        Walker { mm: self, pinned }
    }
}

/// A page table under an epoch pin: what was reachable when it was taken can be read, and may have changed since.
pub struct Walker<'w, R: crate::ctx::Rank> {
    mm: &'w Mm,
    pinned: Pinned<'w, R>,
}

impl<R: crate::ctx::Rank> Walker<'_, R> {
    /// What the entry of `at` says at this moment. The frame number is a number: whoever wants the frame draws a
    /// [`Ticket`](crate::notifier::Ticket). `Pte::None` above the end of the address space.
    #[inline]
    pub fn pte(&self, at: Vpn) -> Pte {
        if at.0 >= TASK_PAGES {
            return Pte::None;
        }
        let leaf = self.mm.table.leaf(at, self.pin());
        leaf.map_or(Pte::None, |leaf| leaf.peek(at).into())
    }
    fn pin(&self) -> Pin<'_> {
        self.mm.table.checked(self.pinned.guard())
    }
}

impl<R: crate::ctx::Rank> std::fmt::Debug for Walker<'_, R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Walker").field("mm", self.mm).finish()
    }
}
