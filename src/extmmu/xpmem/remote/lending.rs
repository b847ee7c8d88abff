//! What an owner does with what it has lent.

use crate::{
    addr::{Vpn, VpnRange},
    ctx::CallCx,
    extmmu::xpmem::owner::Owner,
    frame::{Lender, Loan},
    sync::Ordering::Relaxed,
};
use std::sync::{Arc, Weak};

impl Lender for Weak<Owner> {
    fn recall(&self, cx: &mut CallCx<'_>, page: Vpn) -> bool {
        let owner = self.upgrade();
        let lender = owner.as_ref();
        lender
            .map(|owner| owner.take_back(cx, VpnRange::single(page)))
            .is_some()
    }
}

impl Owner {
    /// Pages that lie in memory that other processes have mapped. They come home with the windows over them, and when a
    /// partition goes that was sent the memory.
    pub fn lent(&self) -> usize {
        self.lent.pages()
    }
    /// Partitions in other processes that are served; those that are cut off among them until what they had is home.
    pub fn connections(&self) -> usize {
        self.seats.load(Relaxed)
    }
    /// A partition goes that was sent this memory: nothing stays there, and nothing comes there again, for who knows what
    /// other process has it mapped by now.
    pub(super) fn abandon(&self, cx: &mut CallCx<'_>, loans: &[Arc<Loan>]) {
        for run in self.lent.abandon(loans) {
            self.take_back(cx, run);
        }
    }
}
