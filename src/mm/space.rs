//! One address space: its fields, and how it is made.

use super::{
    calls::fork::shared::ForkMember,
    lock::MmapLock,
    machine::Machine,
    page_table::PageTable,
    vma::layout::{Layout, Limits},
};
use crate::ctx::CallCx;

use crate::{
    ctx::{Cx, Sleepable},
    error::BeyondTask,
    notifier::Notifiers,
    rmap::RmapTarget,
};
use std::sync::{Arc, Weak};

/// An address space. Processes are such values: [`fork`](Self::fork) makes another, [`exit`](Self::exit) ends one.
pub struct Mm {
    pub(super) machine: Arc<Machine>,
    /// The mmap lock and what it guards.
    pub(super) layout: MmapLock<Layout>,
    pub(super) table: PageTable,
    pub(super) listed: ForkMember,
    /// One pointer; null until an external MMU is registered.
    pub(super) notifiers: Notifiers,
}

impl Mm {
    /// An empty address space.
    pub fn new(machine: &Arc<Machine>) -> Arc<Self> {
        Self::build(machine, |space| Layout::new(machine, space))
    }
    pub(super) fn build(
        machine: &Arc<Machine>,
        layout: impl FnOnce(Weak<dyn RmapTarget>) -> Layout,
    ) -> Arc<Self> {
        Arc::new_cyclic(|me: &Weak<Self>| Self {
            machine: Arc::clone(machine),
            layout: MmapLock::new(layout(me.clone())),
            table: PageTable::new(machine.mem(), machine.epoch()),
            listed: ForkMember::new(me),
            notifiers: Notifiers::new(),
        })
    }
    /// The machine that it is on.
    pub fn machine(&self) -> &Arc<Machine> {
        &self.machine
    }

    /// Reclamation works only if everyone who walks this table pins the epoch of its machine.
    pub(super) fn check_token<R: crate::ctx::Rank>(&self, cx: &Cx<'_, R, Sleepable>) {
        self.machine.check_token(cx);
    }

    /// The resource limits.
    pub fn limits(&self, cx: &mut CallCx<'_>) -> Limits {
        self.lock_shared(cx).layout.limits
    }
    /// Sets the resource limits.
    pub fn set_limits(&self, cx: &mut CallCx<'_>, limits: Limits) {
        self.lock_exclusive(cx).layout.limits = limits;
    }
    /// Sets the page below which mappings without an address are placed.
    ///
    /// # Errors
    ///
    /// [`BeyondTask`]: above [`TASK_SIZE`](crate::TASK_SIZE); nothing changed.
    pub fn set_mmap_base(&self, cx: &mut CallCx<'_>, addr: u64) -> Result<(), BeyondTask> {
        let base = crate::addr::Vpn::containing(BeyondTask::check(addr)?);
        self.lock_exclusive(cx).layout.mmap_base = base;
        Ok(())
    }
    /// Number of VMAs.
    pub fn map_count(&self, cx: &mut CallCx<'_>) -> usize {
        self.lock_shared_over(cx, None).layout.vmas.len()
    }
    /// Pages mapped, and pages in locked VMAs: `VmSize` and `VmLck`.
    pub fn sizes(&self, cx: &mut CallCx<'_>) -> (u64, u64) {
        let g = self.lock_shared_over(cx, None);
        (g.layout.total_vm, g.layout.locked_vm)
    }
    /// Page-table pages below the root.
    pub fn tables(&self) -> usize {
        self.table.tables()
    }
}

impl std::fmt::Debug for Mm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mm")
            .field("tables", &self.tables())
            .finish_non_exhaustive()
    }
}
