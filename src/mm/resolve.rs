//! How an external MMU comes by a frame: it hands in the ticket that it drew before looking, and gets back something
//! that it can only have admitted under its own lock.

use super::{Mm, pte::RawPte};
use crate::{
    addr::Vpn,
    ctx::{Below, Cx, Sleepable, rank},
    error::FaultError,
    notifier::{Access, Pending, Seated, Ticket},
};

impl Mm {
    /// Makes the ticket's page present for its access, as a fault would, and returns its frame, still unreadable
    /// (`get_user_pages`, without keeping a reference).
    ///
    /// # Errors
    ///
    /// [`FaultError`]: what the access would have met; a ticket of another address space.
    pub fn resolve<'g, G: Seated, R: Below<rank::Mmap>>(
        &self,
        cx: &mut Cx<'_, R, Sleepable>,
        ticket: Ticket<'g, G>,
    ) -> Result<Pending<'g, G>, FaultError> {
        if !ticket.is_of(&self.notifiers) {
            return Err(FaultError::WrongAddressSpace);
        }
        let (at, access) = (ticket.vpn(), ticket.access());
        loop {
            if let Some(pte) = self.peek(cx, at)
                && (access == Access::Read || pte.may_write())
            {
                let pfn = pte.pfn();
                // Read after the entry: a frame retired in between fails validation, as its window has closed.
                let generation = self.machine().mem().generation(pfn);
                return Ok(ticket.fill(pfn, generation));
            }
            self.fault_in(cx, at, at.addr(), access)?;
        }
    }
    /// The entry of `at` if it is present and readable.
    fn peek<R: Below<rank::Mmap>>(&self, cx: &mut Cx<'_, R, Sleepable>, at: Vpn) -> Option<RawPte> {
        let pinned = cx.pin();
        let leaf = self.table.leaf(at, self.table.pin(pinned.guard()))?;
        let pte = leaf.peek(at);
        (pte.is_present() && pte.may_read()).then_some(pte)
    }
}
