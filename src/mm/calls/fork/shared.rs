//! Forks that share leaf tables: where that is possible, and the counts that it leaves behind. The
//! sharing itself is in [`page_table`](crate::mm::page_table) (ADR 0014).

use crate::mm::{
    entry::flags::VmFlags,
    machine::{Machine, SharesLeaves},
    space::Mm,
    vma::{Vma, layout::Layout},
};
use crate::{
    addr::{TASK_PAGES, Vpn, VpnRange},
    ctx::CallCx,
};
use std::sync::Weak;

impl Layout {
    /// Returns the range in which the leaves of a VMA hold nothing but this VMA, if a fork may
    /// share them: private anonymous memory that parent and child do not treat differently.
    pub(in crate::mm) fn shares_tables(&self, vma: &Vma) -> Option<VpnRange> {
        let apart = VmFlags::LOCKED | VmFlags::WIPEONFORK | VmFlags::NONLINEAR;
        if !vma.is_anonymous() || !vma.flags.is_cow() || vma.flags.intersects(apart) {
            return None;
        }
        let below = self.vmas.before(vma.start()).map_or(Vpn(0), Vma::end);
        let above = self.vmas.find(vma.end()).map(Vma::start);
        VpnRange::new(below, above.unwrap_or(Vpn(TASK_PAGES)))
    }
}

impl SharesLeaves for Mm {
    fn settle_leaves(&self, cx: &mut CallCx<'_>) {
        let view = self.table.view(cx);
        self.fork_member.unregister();
        view.for_each_leaf(VpnRange::TASK, |_, leaf| leaf.settle_counts());
    }
}

impl Machine {
    /// Brings the counts of all frames ([`PhysMem::mapcount`](crate::frame::PhysMem::mapcount),
    /// [`refcount`](crate::frame::PhysMem::refcount), and whether a frame is exclusive) to those
    /// after forks that copy. The counts do not tell that a frame is in a shared table
    /// ([`ForkMode::Share`](crate::mm::ForkMode::Share)).
    ///
    /// [`Mm::pagemap`] does this by itself. Takes once the time that those forks saved in counting.
    ///
    /// # Panics
    ///
    /// If the token is of a thread that entered another machine.
    pub fn settle_counts(&self, cx: &mut CallCx<'_>) {
        self.check_token(cx);
        for space in self.forks.take_all().iter().filter_map(Weak::upgrade) {
            space.settle_leaves(cx);
        }
    }
}
