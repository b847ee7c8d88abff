//! What the mmap lock guards: the VMAs, the accounts over them, the limits.

use super::{Vma, tree::VmaTree};
use crate::mm::{
    calls::remap_file_pages::RemapMode, entry::flags::VmFlags, lock::Ranges, machine::Machine,
};
use crate::{
    addr::{PAGE_SHIFT, TASK_SIZE, Vpn, VpnRange},
    error::{LimitError, NoMemory, VmaError},
    frame::{AllocKind, Commit},
    rmap::{AnonLink, AnonVma, RmapTarget},
};
use std::sync::{Arc, Weak};

/// Resource limits of a process, in bytes; `u64::MAX` is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// `RLIMIT_AS`.
    pub address_space: u64,
    /// `RLIMIT_DATA`.
    pub data: u64,
    /// `RLIMIT_STACK`.
    pub stack: u64,
    /// `RLIMIT_MEMLOCK`.
    pub memlock: u64,
    /// `CAP_IPC_LOCK`: locks without limit.
    pub ipc_lock: bool,
}

impl Default for Limits {
    /// No limits but a stack of 8 MiB, and the right to lock: what root has.
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

/// Memory that is promised to what is about to be mapped; taken back unless that came to be.
#[must_use]
pub(in crate::mm) struct Promise<'m> {
    commit: &'m Commit,
    pages: u64,
}

impl<'m> Promise<'m> {
    /// Takes over a promise that was made.
    pub(in crate::mm) fn made(machine: &'m Machine, pages: u64) -> Self {
        let commit = machine.commit();
        Self { commit, pages }
    }
    /// It belongs to the mapping from here on.
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

/// The mappings of one address space.
pub(in crate::mm) struct Layout {
    pub(in crate::mm) machine: Arc<Machine>,
    /// The address space itself, for the reverse maps.
    pub(in crate::mm) space: Weak<dyn RmapTarget>,
    pub(in crate::mm) vmas: VmaTree<Vma>,
    /// Pages mapped: `mm->total_vm`.
    pub(in crate::mm) total_vm: u64,
    /// Pages in locked VMAs.
    pub(in crate::mm) locked_vm: u64,
    /// Pages that count against `RLIMIT_DATA`.
    pub(in crate::mm) data_vm: u64,
    /// First address of the heap; `brk` never goes below.
    pub(in crate::mm) start_brk: u64,
    /// Current break, in bytes.
    pub(in crate::mm) brk: u64,
    /// What `remap_file_pages` does.
    pub(in crate::mm) remap_mode: RemapMode,
    /// Flags every new VMA gets: `mlockall(MCL_FUTURE)`.
    pub(in crate::mm) def_flags: VmFlags,
    pub(in crate::mm) limits: Limits,
    /// All memory that can be merged is to be (`MMF_VM_MERGE_ANY`).
    pub(in crate::mm) merge_all: bool,
    /// When it first had memory to be merged; none: it has none.
    pub(in crate::mm) merge_turn: Option<u64>,
    /// Mappings without an address are placed below this.
    pub(in crate::mm) mmap_base: Vpn,
    /// Start address of the initial stack, for the name `[stack]`; 0: none.
    pub(in crate::mm) start_stack: u64,
}

impl Layout {
    pub(in crate::mm) fn new(machine: &Arc<Machine>, space: Weak<dyn RmapTarget>) -> Self {
        // Any constant will do: Linux's depends on the stack limit and on chance.
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
            merge_turn: None,
            mmap_base,
            start_stack: 0,
        }
    }

    /// `may_expand_vm`: room for `pages` more under `RLIMIT_AS` and `RLIMIT_DATA`.
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
    /// `mlock_future_ok`: room for `pages` more locked ones.
    pub(in crate::mm) fn may_lock(&self, pages: u64) -> bool {
        self.limits.ipc_lock
            || self.locked_vm.saturating_add(pages) <= self.limits.memlock >> PAGE_SHIFT
    }
    /// `can_do_mlock`: the right to lock anything at all.
    pub(in crate::mm) fn can_mlock(&self) -> bool {
        self.limits.ipc_lock || self.limits.memlock != 0
    }
    pub(in crate::mm) fn charge(&self, pages: u64) -> Result<(), LimitError> {
        if self.machine.commit().charge(pages) {
            Ok(())
        } else {
            Err(LimitError::Commit { pages })
        }
    }
    pub(in crate::mm) fn uncharge(&self, pages: u64) {
        self.machine.commit().uncharge(pages);
    }

    /// Adds `pages` of a VMA with these flags to the accounts (`vm_stat_account`).
    pub(in crate::mm) fn account(&mut self, flags: VmFlags, pages: u64) {
        self.total_vm += pages;
        if flags.is_data() {
            self.data_vm += pages;
        }
    }
    /// Takes `pages` of a VMA with these flags out of the accounts.
    pub(in crate::mm) fn unaccount(&mut self, flags: VmFlags, pages: u64) {
        self.total_vm -= pages;
        if flags.is_data() {
            self.data_vm -= pages;
        }
    }
    /// The same pages with other rights.
    pub(in crate::mm) fn reaccount(&mut self, old: VmFlags, new: VmFlags, pages: u64) {
        self.unaccount(old, pages);
        self.account(new, pages);
    }

    /// Puts a VMA in; its reverse maps know it first.
    pub(in crate::mm) fn insert(&mut self, mut vma: Vma) {
        vma.follow(&self.space);
        self.vmas.insert(vma);
    }
    /// Changes the VMA that starts at `start`, its reverse maps with it.
    pub(in crate::mm) fn change<T>(&mut self, start: Vpn, change: impl FnOnce(&mut Vma) -> T) -> T {
        let space = &self.space;
        self.vmas.update(start, |vma| {
            let out = change(vma);
            vma.follow(space);
            out
        })
    }
    /// The VMA at `start` is about to cover `range`: its reverse maps know that already.
    pub(in crate::mm) fn announce(&mut self, start: Vpn, range: VpnRange) {
        let space = &self.space;
        self.vmas.update(start, |vma| {
            let mut place = vma.place(space);
            place.pgoff = place.pgoff + range.start().0 - vma.start().0;
            place.range = range;
            vma.follow_as(&place);
        });
    }
    /// Waits until every walk that is now under way over a reverse map of these VMAs has ended.
    pub(in crate::mm) fn drain_walks(&self) {
        for vma in self.vmas.iter() {
            drop(vma.walks().freeze());
        }
    }

    /// Asks whether a VMA may be allocated.
    pub(in crate::mm) fn alloc_vma(&self) -> Result<(), VmaError> {
        self.inject(AllocKind::Vma, NoMemory::Vma)?;
        Ok(())
    }
    fn inject(&self, kind: AllocKind, what: NoMemory) -> Result<(), NoMemory> {
        self.machine.mem().inject().check(kind).map_err(|_| what)
    }
    /// Refuses a split when the map is full (`split_vma`).
    pub(in crate::mm) fn check_map_count(&self) -> Result<(), VmaError> {
        let count = self.vmas.len();
        if count >= self.machine.config().max_map_count {
            return Err(VmaError::MapCount { count });
        }
        Ok(())
    }

    /// Gives the VMA at `at` an anon_vma if it has none: a suitable neighbour's, else a new one
    /// (`__anon_vma_prepare`). Runs with the mmap lock held at least for reading.
    pub(in crate::mm) fn prepare_anon(&self, at: Vpn) -> Result<(), NoMemory> {
        let vma = self.vmas.get(at).expect("caller found a VMA there");
        self.anon_of(vma).map(|_| ())
    }
    /// The node that new private pages of `vma` belong to, made if need be.
    pub(in crate::mm) fn anon_of<'v>(&self, vma: &'v Vma) -> Result<&'v Arc<AnonVma>, NoMemory> {
        if let Some(link) = vma.anon.get() {
            return Ok(link.node());
        }
        self.inject(AllocKind::AnonVma, NoMemory::AnonVma)?;
        let mut link = match self.neighbour_anon(vma) {
            Some(neighbour) => AnonLink::joining(Arc::clone(neighbour.node())),
            None => AnonLink::fresh(self.machine.registry()),
        };
        link.follow(&vma.place(&self.space));
        // Before the first page is there.
        vma.note_written();
        // A racing fault may have been first; its link is as good as this one.
        Ok(vma.anon.get_or_init(|| link).node())
    }
    /// `find_mergeable_anon_vma`: the next VMA's before the previous one's.
    fn neighbour_anon(&self, vma: &Vma) -> Option<&AnonLink> {
        let single = |v: &'_ Vma| v.anon.get().is_some_and(AnonLink::is_singular);
        let next = self
            .vmas
            .get(vma.end())
            .filter(|next| vma.anon_compatible(next) && single(next));
        let neighbour = next.or_else(|| {
            self.vmas
                .before(vma.start())
                .filter(|prev| prev.anon_compatible(vma) && single(prev))
        });
        neighbour.and_then(|v| v.anon.get())
    }
    /// The ranges, each with all of the VMAs that it has pages of or touches.
    pub(in crate::mm) fn reach(&self, ranges: &[VpnRange]) -> Ranges {
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
    /// Whether any VMA has a page in `range` (`find_vma_intersection`).
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
