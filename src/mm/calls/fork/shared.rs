//! Forks that share leaf tables: where that is possible, and the counts that it leaves behind. The
//! sharing itself is in [`page_table`](crate::mm::page_table) (ADR 0014).

use crate::ctx::CallCx;
use crate::mm::{
    entry::flags::VmFlags,
    machine::Machine,
    page_table::Pin,
    space::Mm,
    vma::{Vma, layout::Layout},
};
use crate::{
    addr::{TASK_PAGES, Vpn, VpnRange},
    sync::{AtomicBool, Mutex, Ordering},
};
use std::{convert::Infallible, fmt, sync::Weak};

/// What a fork does with page tables. Nobody can tell by the results, the windows, or the entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ForkMode {
    /// Copies them, as Linux does: costs as much as there are pages.
    #[default]
    Copy,
    /// Shares those of private anonymous memory, 2 MiB each, until parent or child touch or change what is in them, who
    /// then copies that one ("On-demand-fork", EuroSys 2021). Costs as much as there are tables. A fault or a move that
    /// needs one may be refused for want of memory then.
    Share,
}

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

/// Address spaces that may have leaves of which the counts of their frames do not know all: each once.
#[derive(Default)]
pub(in crate::mm) struct ForkRegistry(Mutex<Vec<Weak<Mm>>>);

/// Whether an address space is among them.
pub(in crate::mm) struct ForkMember {
    me: Weak<Mm>,
    is: AtomicBool,
}

impl ForkMember {
    pub(in crate::mm) fn new(me: &Weak<Mm>) -> Self {
        Self {
            me: Weak::clone(me),
            is: AtomicBool::new(false),
        }
    }
}

impl Mm {
    pub(in crate::mm) fn list_as_forked(&self) {
        if self.listed.is.swap(true, Ordering::Relaxed) {
            return;
        }
        let mut forks = self.machine().forks.0.lock();
        if forks.len() == forks.capacity() {
            forks.retain(|mm| mm.strong_count() > 0);
        }
        forks.push(Weak::clone(&self.listed.me));
    }
    fn settle_leaves(&self, pin: Pin<'_>) {
        self.listed.is.store(false, Ordering::Relaxed);
        let all = VpnRange::new(Vpn(0), Vpn(TASK_PAGES)).expect("not empty");
        self.table
            .leaves(all, pin, |_, leaf| {
                leaf.settle();
                Ok::<(), Infallible>(())
            })
            .unwrap_or_else(|e| match e {});
    }
}

impl fmt::Debug for ForkRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().finish_non_exhaustive()
    }
}

impl Machine {
    /// Brings the counts of all frames ([`PhysMem::mapcount`](crate::frame::PhysMem::mapcount),
    /// [`refcount`](crate::frame::PhysMem::refcount), and whether a frame is exclusive) to those
    /// after forks that copy. The counts do not tell that a frame is in a shared table
    /// ([`ForkMode::Share`]).
    ///
    /// [`Mm::pagemap`] does this by itself. Takes once the time that those forks saved in counting.
    ///
    /// # Panics
    ///
    /// If the token is of a thread that entered another machine.
    pub fn settle_counts(&self, cx: &mut CallCx<'_>) {
        self.check_token(cx);
        let forks = std::mem::take(&mut *self.forks.0.lock());
        for mm in forks.iter().filter_map(Weak::upgrade) {
            let pinned = cx.pin();
            mm.settle_leaves(mm.table.pin(pinned.guard()));
        }
    }
}
