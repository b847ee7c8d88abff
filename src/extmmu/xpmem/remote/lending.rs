//! The owner's part in lending: recalls by the memory that a page lies in, and the end of a
//! partition.

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
    /// Returns the number of pages that lie in memory which other processes have mapped. A page
    /// comes home with a window over it, and when a partition ends that has the memory.
    pub fn lent(&self) -> usize {
        self.lent.pages()
    }
    /// Returns the number of partitions in other processes that are served. One that is cut off
    /// counts until its pages are home.
    pub fn connections(&self) -> usize {
        self.seats.load(Relaxed)
    }
    /// Ends memory that a partition which goes was sent, and takes its pages home. No page comes
    /// there again: other processes may have the memory mapped by now.
    pub(super) fn abandon(&self, cx: &mut CallCx<'_>, loans: &[Arc<Loan>]) {
        for run in self.lent.abandon(loans) {
            self.take_back(cx, run);
        }
    }
}
