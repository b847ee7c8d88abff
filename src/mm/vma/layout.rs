//! [`Layout`]: the value behind the mmap lock. All VMAs of an address space, their accounts, the
//! limits.

use super::{Vma, tree::VmaTree};
use crate::mm::{
    entry::flags::{RemapMode, ThpDisable, VmFlags},
    lock::Ranges,
    machine::{FolioSizes, Machine},
};
use crate::{
    addr::{PAGE_SHIFT, TASK_SIZE, Vpn, VpnRange},
    error::{LimitError, NoMemory, VmaError},
    frame::{AllocKind, Commit},
    rmap::{AnonLink, AnonVma, RmapTarget},
};
use std::sync::{Arc, Weak};

/// Resource limits of an address space, in bytes; `u64::MAX` is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes mapped (`RLIMIT_AS`).
    pub address_space: u64,
    /// Most bytes of private writable memory (`RLIMIT_DATA`).
    pub data: u64,
    /// Most bytes of a growing stack (`RLIMIT_STACK`).
    pub stack: u64,
    /// Most bytes locked, without `ipc_lock` (`RLIMIT_MEMLOCK`).
    pub memlock: u64,
    /// The right to lock memory without limit (`CAP_IPC_LOCK`).
    pub ipc_lock: bool,
}

impl Default for Limits {
    /// The limits of root: no limit but a stack of 8 MiB, and the right to lock.
    fn default() -> Self {
        Self {
            address_space: u64::MAX,
            data: u64::MAX,
            stack: 8 << 20,
            memlock: 8 << 20,
            ipc_lock: true,
        }
    }
}

/// Pages charged to the commit limit for a mapping that is about to be made; uncharged on drop,
/// unless [kept](Self::keep).
#[must_use]
pub(in crate::mm) struct Promise<'m> {
    commit: &'m Commit,
    pages: u64,
}

impl<'m> Promise<'m> {
    /// Takes over `pages` that were charged before.
    pub(in crate::mm) fn made(machine: &'m Machine, pages: u64) -> Self {
        let commit = machine.commit();
        Self { commit, pages }
    }
    /// Passes the charge on to the mapping.
    pub(in crate::mm) fn keep(mut self) {
        self.pages = 0;
    }
}

impl Drop for Promise<'_> {
    fn drop(&mut self) {
        if self.pages > 0 {
            self.commit.uncharge(self.pages);
        }
    }
}

/// All VMAs of one address space, with accounts and limits.
pub(in crate::mm) struct Layout {
    pub(in crate::mm) machine: Arc<Machine>,
    /// The address space, as the reverse maps refer to it.
    pub(in crate::mm) space: Weak<dyn RmapTarget>,
    pub(in crate::mm) vmas: VmaTree<Vma>,
    /// Pages mapped (`mm->total_vm`).
    pub(in crate::mm) total_vm: u64,
    /// Pages in locked VMAs.
    pub(in crate::mm) locked_vm: u64,
    /// Pages that count against `RLIMIT_DATA`.
    pub(in crate::mm) data_vm: u64,
    /// First address of the heap; `brk` never goes below.
    pub(in crate::mm) start_brk: u64,
    /// Current break, in bytes.
    pub(in crate::mm) brk: u64,
    /// How `remap_file_pages` works.
    pub(in crate::mm) remap_mode: RemapMode,
    /// Flags that every new VMA gets (`mlockall(MCL_FUTURE)`).
    pub(in crate::mm) def_flags: VmFlags,
    pub(in crate::mm) limits: Limits,
    /// All memory that same-page merging can merge is mergeable (`MMF_VM_MERGE_ANY`).
    pub(in crate::mm) merge_all: bool,
    /// The memory that gets no huge pages.
    pub(in crate::mm) thp: ThpDisable,
    /// Place in the order in which the machine's address spaces first had mergeable memory; `None`
    /// without such memory.
    pub(in crate::mm) merge_turn: Option<u64>,
    /// Page below which mappings without an address are placed.
    pub(in crate::mm) mmap_base: Vpn,
    /// Private memory was taken from the process, which is being killed: it must not fault in again
    /// as zeros (`MMF_UNSTABLE`).
    pub(in crate::mm) released: bool,
    /// Start address of the initial stack, for the name `[stack]`; 0 if there is none.
    pub(in crate::mm) start_stack: u64,
}

impl Layout {
    /// Creates a layout without VMAs, for the address space `space`.
    pub(in crate::mm) fn new(machine: &Arc<Machine>, space: Weak<dyn RmapTarget>) -> Self {
        // Linux's base depends on the stack limit and is random; any constant is within that.
        let mmap_base = Vpn::containing(TASK_SIZE - (128 << 20));
        Self {
            machine: Arc::clone(machine),
            space,
            vmas: VmaTree::new(),
            total_vm: 0,
            locked_vm: 0,
            data_vm: 0,
            start_brk: 0,
            brk: 0,
            remap_mode: RemapMode::default(),
            def_flags: VmFlags::empty(),
            limits: Limits::default(),
            merge_all: false,
            thp: ThpDisable::No,
            merge_turn: None,
            mmap_base,
            released: false,
            start_stack: 0,
        }
    }

    /// Checks that `pages` more with these flags fit `RLIMIT_AS` and `RLIMIT_DATA`
    /// (`may_expand_vm`).
    #[inline]
    pub(in crate::mm) fn may_expand(&self, flags: VmFlags, pages: u64) -> Result<(), LimitError> {
        let over = |now: u64, limit: u64| {
            limit != u64::MAX && now.saturating_add(pages) > limit >> PAGE_SHIFT
        };
        if over(self.total_vm, self.limits.address_space) {
            return Err(LimitError::AddressSpace { pages });
        }
        if flags.is_data() && over(self.data_vm, self.limits.data) {
            return Err(LimitError::Data { pages });
        }
        Ok(())
    }
    /// Returns true if memory with these flags may get huge pages; `forced`: an advice collapses it
    /// (`vma_thp_disabled`).
    pub(in crate::mm) fn allows_huge(&self, flags: VmFlags, forced: bool) -> bool {
        !flags.contains(VmFlags::NOHUGEPAGE)
            && match self.thp {
                ThpDisable::No => true,
                ThpDisable::ExceptAdvised => flags.contains(VmFlags::HUGEPAGE) || forced,
                ThpDisable::Completely => false,
            }
    }
    /// Returns the sizes of folios that a fault in private memory with these flags may bring in
    /// (`thp_vma_allowable_orders`).
    pub(in crate::mm) fn folio_sizes(&self, flags: VmFlags) -> FolioSizes {
        let folios = self.machine.config().folios;
        let sizes = folios.sizes(flags.contains(VmFlags::HUGEPAGE));
        match sizes.is_empty() || self.allows_huge(flags, false) {
            true => sizes,
            false => FolioSizes::NONE,
        }
    }
    /// Returns true if `pages` more may be locked (`mlock_future_ok`).
    #[inline]
    pub(in crate::mm) fn may_lock(&self, pages: u64) -> bool {
        self.limits.ipc_lock
            || self.locked_vm.saturating_add(pages) <= self.limits.memlock >> PAGE_SHIFT
    }
    /// Returns true if anything may be locked at all (`can_do_mlock`).
    pub(in crate::mm) fn can_mlock(&self) -> bool {
        self.limits.ipc_lock || self.limits.memlock != 0
    }
    /// Charges `pages` to the commit limit of the machine.
    #[inline]
    pub(in crate::mm) fn charge(&self, pages: u64) -> Result<(), LimitError> {
        if self.machine.commit().charge(pages) {
            Ok(())
        } else {
            Err(LimitError::Commit { pages })
        }
    }
    /// Takes `pages` off the commit account of the machine.
    #[inline]
    pub(in crate::mm) fn uncharge(&self, pages: u64) {
        self.machine.commit().uncharge(pages);
    }

    /// Adds `pages` of a VMA with these flags to the accounts (`vm_stat_account`).
    #[inline]
    pub(in crate::mm) fn account(&mut self, flags: VmFlags, pages: u64) {
        self.total_vm += pages;
        if flags.is_data() {
            self.data_vm += pages;
        }
    }
    /// Takes `pages` of a VMA with these flags out of the accounts.
    #[inline]
    pub(in crate::mm) fn unaccount(&mut self, flags: VmFlags, pages: u64) {
        self.total_vm -= pages;
        if flags.is_data() {
            self.data_vm -= pages;
        }
    }
    /// Moves `pages` in the accounts from one set of flags to another.
    pub(in crate::mm) fn reaccount(&mut self, old: VmFlags, new: VmFlags, pages: u64) {
        self.unaccount(old, pages);
        self.account(new, pages);
    }

    /// Adds a VMA, after its reverse maps know it.
    #[inline]
    pub(in crate::mm) fn insert(&mut self, mut vma: Vma) {
        vma.follow(&self.space);
        self.vmas.insert(vma);
    }
    /// Changes the VMA that starts at `start`, and its places in the reverse maps.
    pub(in crate::mm) fn change<T>(&mut self, start: Vpn, change: impl FnOnce(&mut Vma) -> T) -> T {
        let space = &self.space;
        self.vmas.update(start, |vma| {
            let out = change(vma);
            vma.follow(space);
            out
        })
    }
    /// Tells the reverse maps that the VMA at `start` is about to cover `range`.
    pub(in crate::mm) fn announce(&mut self, start: Vpn, range: VpnRange) {
        let space = &self.space;
        self.vmas.update(start, |vma| {
            let mut place = vma.place(space);
            place.pgoff = place.pgoff + range.start().0 - vma.start().0;
            place.range = range;
            vma.follow_as(&place);
        });
    }
    /// Waits until every present walk over a reverse map of these VMAs has ended.
    pub(in crate::mm) fn drain_walks(&self) {
        for vma in self.vmas.iter() {
            drop(vma.walks().freeze());
        }
    }

    /// Fails if the allocation of a VMA is made to fail on purpose ([`AllocKind::Vma`]).
    #[inline]
    pub(in crate::mm) fn alloc_vma(&self) -> Result<(), VmaError> {
        self.inject(AllocKind::Vma, NoMemory::Vma)?;
        Ok(())
    }
    #[inline]
    fn inject(&self, kind: AllocKind, what: NoMemory) -> Result<(), NoMemory> {
        self.machine.mem().inject().check(kind).map_err(|_| what)
    }
    /// Fails if the address space has as many VMAs as it may have (`split_vma`).
    pub(in crate::mm) fn check_map_count(&self) -> Result<(), VmaError> {
        let count = self.vmas.len();
        if count >= self.machine.config().max_map_count {
            return Err(VmaError::MapCount { count });
        }
        Ok(())
    }

    /// Makes sure that the VMA at `at` has an anonymous family: that of a suitable neighbour, else
    /// a new one (`__anon_vma_prepare`). The mmap lock is held at least shared.
    pub(in crate::mm) fn prepare_anon(&self, at: Vpn) -> Result<(), NoMemory> {
        let vma = self.vmas.get(at).expect("caller found a VMA there");
        self.anon_of(vma).map(|_| ())
    }
    /// The anonymous family that new private pages of `vma` belong to, made if there is none.
    #[inline]
    pub(in crate::mm) fn anon_of<'v>(&self, vma: &'v Vma) -> Result<&'v Arc<AnonVma>, NoMemory> {
        match vma.anon_node() {
            Some(node) => Ok(node),
            None => self.new_anon_of(vma),
        }
    }
    #[cold]
    fn new_anon_of<'v>(&self, vma: &'v Vma) -> Result<&'v Arc<AnonVma>, NoMemory> {
        self.inject(AllocKind::AnonVma, NoMemory::AnonVma)?;
        let mut link = match self.neighbour_anon(vma) {
            Some(neighbour) => AnonLink::joining(Arc::clone(neighbour.node())),
            None => AnonLink::fresh(self.machine.registry()),
        };
        link.follow(&vma.place(&self.space));
        // Walks must know it before the first private page is mapped.
        vma.note_written();
        // Another fault may have been first; its link serves as well.
        Ok(vma.anon.get_or_init(|| Box::new(link)).node())
    }
    /// The anonymous family of a neighbour that `vma` may join, the next VMA's before the previous
    /// one's (`find_mergeable_anon_vma`).
    fn neighbour_anon(&self, vma: &Vma) -> Option<&AnonLink> {
        let single = |v: &'_ Vma| v.anon_link().is_some_and(AnonLink::is_singular);
        let next = self
            .vmas
            .get(vma.end())
            .filter(|next| vma.anon_compatible(next) && single(next));
        let neighbour = next.or_else(|| {
            self.vmas
                .before(vma.start())
                .filter(|prev| prev.anon_compatible(vma) && single(prev))
        });
        neighbour.and_then(Vma::anon_link)
    }
    /// Extends each range by the VMAs that it overlaps or touches: all that an operation on it can
    /// split or merge.
    pub(in crate::mm) fn extent_of(&self, ranges: &[VpnRange]) -> Ranges {
        let with = |range: &VpnRange| {
            let (first, last) = (
                self.vmas.find(Vpn(range.start().0.saturating_sub(1))),
                self.vmas.before(Vpn(range.end().0.saturating_add(1))),
            );
            let start = first.map_or(range.start(), Vma::start);
            let end = last.map_or(range.end(), Vma::end);
            VpnRange::new(start.min(range.start()), end.max(range.end())).expect("it only grows")
        };
        ranges.iter().map(with).collect()
    }
    /// Returns true if any VMA has a page in `range` (`find_vma_intersection`).
    pub(in crate::mm) fn occupied(&self, range: VpnRange) -> bool {
        self.vmas
            .find_range(range.start())
            .is_some_and(|(found, _)| found.start() < range.end())
    }
}

impl std::fmt::Debug for Layout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Layout")
            .field("vmas", &self.vmas)
            .finish_non_exhaustive()
    }
}
