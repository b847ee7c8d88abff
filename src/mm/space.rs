//! [`Mm`]: the fields of an address space, and their construction.

use super::{
    entry::pte::RawPte,
    lock::MmapLock,
    machine::{ForkMember, Machine, Space},
    page_table::{LockedLeaf, PageTable},
    vma::{
        layout::{Layout, Limits},
        userfault,
    },
};
use crate::{
    addr::{Vpn, VpnRange},
    ctx::{CallCx, Context, Cx, Rank, Sleepable},
    error::BeyondTask,
    notifier::{Notifiers, SecondaryTlbs},
    rmap::RmapTarget,
    sync::Mutex,
};
use std::sync::{Arc, Weak};

/// An address space: the memory of a process. [`fork`](Self::fork) makes a copy,
/// [`exit`](Self::exit) ends it.
///
/// Threads share it as `Arc<Mm>`; every call takes the caller's token. The mmap lock guards the
/// VMAs, a lock in each leaf table guards its entries, and an external MMU is called by an
/// invalidation window before an entry loses rights or its page.
pub struct Mm {
    pub(super) machine: Arc<Machine>,
    /// The mmap lock, and the VMAs that it guards.
    pub(super) layout: MmapLock<Layout>,
    /// Shared by faults and windows; each leaf has a lock of its own.
    pub(super) table: PageTable,
    pub(super) fork_member: ForkMember,
    /// This address space, for handles that do not keep it.
    pub(super) me: Weak<Self>,
    /// The chain of drivers: one pointer, null until an external MMU is registered.
    pub(super) notifiers: Notifiers,
    /// Devices that walk the table: one pointer, null until one is registered.
    pub(super) tlbs: SecondaryTlbs,
    /// The userfaultfds whose answers threads wait for, once for each thread.
    pub(super) awaited: Mutex<Vec<Arc<userfault::Context>>>,
}

impl Mm {
    /// Creates an empty address space on `machine`.
    ///
    /// # Examples
    ///
    /// ```
    /// use emmu::{FaultError, Mm, PAGE_SIZE, mm::MmapArgs};
    /// # let machine = emmu::Machine::new(Default::default());
    /// # let mut thread = machine.enter()?;
    /// # let mut cx = thread.cx();
    ///
    /// let (one, other) = (Mm::new(&machine), Mm::new(&machine));
    /// let at = one.mmap(&mut cx, &MmapArgs::anonymous(PAGE_SIZE))?;
    /// one.store(&mut cx, at, 7)?;
    /// assert_eq!(other.load(&mut cx, at), Err(FaultError::NotMapped(at)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn new(machine: &Arc<Machine>) -> Arc<Self> {
        Self::build(machine, |space| Layout::new(machine, space))
    }
    /// Creates an address space whose layout is made by `layout`, which gets the address space for
    /// the reverse maps.
    pub(super) fn build(
        machine: &Arc<Machine>,
        layout: impl FnOnce(Weak<dyn RmapTarget>) -> Layout,
    ) -> Arc<Self> {
        let mm = Arc::new_cyclic(|me: &Weak<Self>| Self {
            machine: Arc::clone(machine),
            layout: MmapLock::new(layout(me.clone())),
            table: PageTable::new(machine.mem(), machine.epoch()),
            fork_member: ForkMember::new(me.clone()),
            me: me.clone(),
            notifiers: Notifiers::new(),
            tlbs: SecondaryTlbs::new(),
            awaited: Mutex::default(),
        });
        let space: Arc<dyn Space> = mm.clone();
        machine.spaces.add(Arc::downgrade(&space));
        mm
    }
    /// The machine that the address space was made on.
    pub fn machine(&self) -> &Arc<Machine> {
        &self.machine
    }

    /// Panics unless the token's thread entered this machine: only pins of this machine's epoch
    /// keep its table pages.
    pub(super) fn check_token<R: Rank>(&self, cx: &Cx<'_, R, Sleepable>) {
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
    /// Sets the byte address below which mappings without an address are placed, rounded down to a
    /// page.
    ///
    /// # Errors
    ///
    /// [`BeyondTask`]: above [`TASK_SIZE`](crate::TASK_SIZE); nothing changed.
    pub fn set_mmap_base(&self, cx: &mut CallCx<'_>, addr: u64) -> Result<(), BeyondTask> {
        let base = Vpn::containing(BeyondTask::check(addr)?);
        self.lock_exclusive(cx).layout.mmap_base = base;
        Ok(())
    }
    /// Returns how many VMAs there are.
    pub fn map_count(&self, cx: &mut CallCx<'_>) -> usize {
        self.lock_shared_over(cx, None).layout.vmas.len()
    }
    /// Returns how many pages are mapped and how many are in locked VMAs (`VmSize` and `VmLck`, in
    /// pages).
    pub fn sizes(&self, cx: &mut CallCx<'_>) -> (u64, u64) {
        let g = self.lock_shared_over(cx, None);
        (g.layout.total_vm, g.layout.locked_vm)
    }
    /// Returns how many page-table pages there are below the root.
    pub fn tables(&self) -> usize {
        self.table.tables()
    }
}

impl Mm {
    /// Returns true if `at` is mapped by a huge page.
    pub(super) fn is_huge<R: Rank, C: Context>(&self, cx: &mut Cx<'_, R, C>, at: Vpn) -> bool {
        let view = self.table.view(cx);
        view.leaf(at).is_some_and(|leaf| leaf.is_huge())
    }
    /// Runs `f` on each leaf of `range` under its lock, ascending, with the part of `range` that
    /// lies in it. Passes over ranges that have no table.
    pub(super) fn for_each_locked_leaf<R: Rank, C: Context>(
        &self,
        cx: &mut Cx<'_, R, C>,
        range: VpnRange,
        mut f: impl FnMut(VpnRange, &LockedLeaf<'_>),
    ) {
        let view = self.table.view(cx);
        self.table
            .for_each_locked_leaf(range, view.pin(), |part, leaf| f(part, &leaf));
    }
    /// Runs `f` on each entry of `range` that is not empty, ascending. Entries are read without
    /// their locks, so each may have changed when `f` sees it.
    pub(super) fn for_each_entry<R: Rank, C: Context>(
        &self,
        cx: &mut Cx<'_, R, C>,
        range: VpnRange,
        mut f: impl FnMut(Vpn, RawPte),
    ) {
        let view = self.table.view(cx);
        view.for_each_leaf(range, |part, leaf| leaf.peek_each(part, &mut f));
    }
    /// Runs `f` on the locked leaf of `at`; returns `None` if there is no leaf.
    pub(super) fn with_leaf_of<R: Rank, C: Context, T>(
        &self,
        cx: &mut Cx<'_, R, C>,
        at: Vpn,
        f: impl FnOnce(&LockedLeaf<'_>) -> T,
    ) -> Option<T> {
        let view = self.table.view(cx);
        let leaf = view.leaf(at)?;
        Some(f(&leaf.lock()?))
    }
}

impl std::fmt::Debug for Mm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mm")
            .field("tables", &self.tables())
            .finish_non_exhaustive()
    }
}
