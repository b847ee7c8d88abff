//! The address space: VMAs, page table, faults, and one file for each operation.
//!
//! | question | file |
//! | --- | --- |
//! | when do VMAs merge, how are they split? | `merge`, `split` |
//! | where does a mapping go? | `placement` |
//! | where is copy-on-write decided? | `cow` (faults), `fork` (sharing) |
//! | where does a window open? | `window`; every opening goes through a [`Lease`] of `guard` |
//! | which table pages exist? | `page_table` |
//! | which lock guards a VMA? | the mmap lock, in `mmap_lock` and `guard`; entries, the lock of their leaf in `page_table` |

mod access;
mod age;
mod audit;
mod brk;
mod collapse;
mod copy_between;
mod cow;
mod detached;
mod discard;
mod exec;
mod exit;
mod export;
mod fault;
mod fault_file;
mod file_bytes;
mod flags;
mod fork;
mod fork_shared;
mod fremap;
mod guard;
mod huge;
mod hugetlb;
mod inspect;
mod ksm;
mod ksmd;
mod label;
mod later;
mod layout;
mod machine;
mod madvise;
mod maps;
mod merge;
mod mergeable;
mod migrate;
mod mlock;
mod mmap;
mod mmap_lock;
mod mprotect;
mod mremap;
mod mremap_move;
mod msync;
mod munmap;
mod nonlinear;
mod not_present;
mod page_table;
mod pageout;
mod patience;
mod placement;
mod populate;
mod pte;
#[cfg(feature = "internals")]
pub mod raw;
mod register;
mod relocate;
mod remove;
mod resolve;
mod rmap;
mod split;
mod split_folio;
mod swap_in;
mod try_to_unmap;
mod vma;
mod vma_tree;
mod walk;
mod will_need;
mod window;

pub use detached::Detached;
pub use exec::Segment;
pub use flags::{
    Advice, MapFlags, MlockFlags, MlockallFlags, MremapFlags, MsyncFlags, Prot, VmFlags,
};
pub use fork_shared::ForkMode;
pub use fremap::RemapMode;
pub use guard::{Lease, MmapReadGuard, MmapWriteGuard};
pub use inspect::Mapping;
pub use ksmd::Merger;
pub use layout::Limits;
pub use machine::{Machine, MachineConfig};
pub use maps::{MapsLine, PageState};
pub use mmap::MmapArgs;
pub use mremap::MremapArgs;
pub use pte::Pte;
pub use walk::Walker;
pub use window::{InvalidationWindow, PteSlot, PteTxn};

use crate::{
    addr::VpnRange,
    ctx::{Below, Cx, Sleepable, rank},
    error::BeyondTask,
    notifier::Notifiers,
    rmap::Space,
};
use fork_shared::Listed;
use layout::Layout;
use mmap_lock::MmapLock;
use page_table::PageTable;
use std::sync::{Arc, Weak};

/// An address space. Processes are such values: [`fork`](Self::fork) makes another, [`exit`](Self::exit) ends one.
pub struct Mm {
    machine: Arc<Machine>,
    /// The mmap lock and what it guards.
    layout: MmapLock<Layout>,
    table: PageTable,
    listed: Listed,
    /// One pointer; null until an external MMU is registered.
    notifiers: Notifiers,
}

impl Mm {
    /// An empty address space.
    pub fn new(machine: &Arc<Machine>) -> Arc<Self> {
        Self::build(machine, |space| Layout::new(machine, space))
    }
    fn build(machine: &Arc<Machine>, layout: impl FnOnce(Weak<dyn Space>) -> Layout) -> Arc<Self> {
        Arc::new_cyclic(|me: &Weak<Self>| Self {
            machine: Arc::clone(machine),
            layout: MmapLock::new(layout(me.clone())),
            table: PageTable::new(machine.mem(), machine.epoch()),
            listed: Listed::new(me),
            notifiers: Notifiers::new(),
        })
    }
    /// The machine that it is on.
    pub fn machine(&self) -> &Arc<Machine> {
        &self.machine
    }

    /// Takes the mmap lock shared.
    ///
    /// # Panics
    ///
    /// If the token is of a thread that entered another machine.
    pub fn read<'g, R: Below<rank::Mmap>>(
        &'g self,
        cx: &'g mut Cx<'_, R, Sleepable>,
    ) -> MmapReadGuard<'g> {
        self.read_over(cx, Some(VpnRange::ALL))
    }
    /// The same to work on the pages of `range` alone, or to look at the layout alone: an operation that is at work on other
    /// pages is not waited for.
    #[inline]
    fn read_over<'g, R: Below<rank::Mmap>>(
        &'g self,
        cx: &'g mut Cx<'_, R, Sleepable>,
        range: Option<VpnRange>,
    ) -> MmapReadGuard<'g> {
        self.check_token(cx);
        MmapReadGuard {
            mm: self,
            layout: self.layout.read(range),
            cx: cx.descend(),
        }
    }
    /// Takes the mmap lock exclusively.
    ///
    /// # Panics
    ///
    /// If the token is of a thread that entered another machine.
    pub fn write<'g, R: Below<rank::Mmap>>(
        &'g self,
        cx: &'g mut Cx<'_, R, Sleepable>,
    ) -> MmapWriteGuard<'g> {
        let mut g = self.write_some(cx);
        g.settle_alone();
        g
    }
    /// The same for an operation that says with [`settle`](MmapWriteGuard::settle) which pages it works on.
    fn write_some<'g, R: Below<rank::Mmap>>(
        &'g self,
        cx: &'g mut Cx<'_, R, Sleepable>,
    ) -> MmapWriteGuard<'g> {
        self.check_token(cx);
        MmapWriteGuard::new(self, self.layout.write(), cx.descend())
    }
    /// Reclamation works only if everyone who walks this table pins the epoch of its machine.
    fn check_token<R: crate::ctx::Rank>(&self, cx: &Cx<'_, R, Sleepable>) {
        self.machine.check_token(cx);
    }

    /// The resource limits.
    pub fn limits(&self, cx: &mut Cx<'_, rank::Idle, Sleepable>) -> Limits {
        self.read(cx).layout.limits
    }
    /// Sets the resource limits.
    pub fn set_limits(&self, cx: &mut Cx<'_, rank::Idle, Sleepable>, limits: Limits) {
        self.write(cx).layout.limits = limits;
    }
    /// Sets the page below which mappings without an address are placed.
    ///
    /// # Errors
    ///
    /// [`BeyondTask`]: above [`TASK_SIZE`](crate::TASK_SIZE); nothing changed.
    pub fn set_mmap_base(
        &self,
        cx: &mut Cx<'_, rank::Idle, Sleepable>,
        addr: u64,
    ) -> Result<(), BeyondTask> {
        let base = crate::addr::Vpn::containing(BeyondTask::check(addr)?);
        self.write(cx).layout.mmap_base = base;
        Ok(())
    }
    /// Number of VMAs.
    pub fn map_count(&self, cx: &mut Cx<'_, rank::Idle, Sleepable>) -> usize {
        self.read_over(cx, None).layout.vmas.len()
    }
    /// Pages mapped, and pages in locked VMAs: `VmSize` and `VmLck`.
    pub fn sizes(&self, cx: &mut Cx<'_, rank::Idle, Sleepable>) -> (u64, u64) {
        let g = self.read_over(cx, None);
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
