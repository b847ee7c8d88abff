//! The machine that address spaces live on: its memory, its epoch, its settings.

use super::calls::fork::shared::{ForkMode, ForkRegistry};
use crate::ctx::CallCx;

use crate::{
    addr::PMD_PAGES,
    ctx::{AlreadyEntered, Context, Cx, Epoch, Rank, Thread},
    file::Host,
    frame::{Commit, MemConfig, Overcommit, PhysMem},
    reclaim::{Reclaim, RmapWindows},
    rmap::{ExportOrder, ExportRegistration, Registry, RmapNotifier},
    sync::IdSource,
};
use std::sync::Arc;

/// What a machine is made of. `Default` is a 256-MiB machine with Linux's default settings.
#[derive(Clone, Debug)]
pub struct MachineConfig {
    /// Physical memory.
    pub memory: MemConfig,
    /// `vm.overcommit_memory`.
    pub overcommit: Overcommit,
    /// `vm.max_map_count`: the most VMAs of an address space.
    pub max_map_count: usize,
    /// `vm.mmap_min_addr`, in bytes: hints below it are raised to it.
    pub mmap_min_addr: u64,
    /// `stack_guard_gap`, in pages: kept free below a growing stack.
    pub stack_guard_gap: u64,
    /// `fault_around_bytes`, in pages; rounded down to a power of two from 1, which is none around, to 512
    /// (`fault_around_bytes_set`).
    pub fault_around: u64,
    /// How reclaim opens its windows.
    pub rmap_windows: RmapWindows,
    /// When drivers of exported frames are told.
    pub export_order: ExportOrder,
    /// Whether new mappings of whole 2-MiB multiples are placed at 2-MiB boundaries.
    pub align_huge: bool,
    /// How address spaces fork.
    pub fork: ForkMode,
    /// The most page-table pages of all address spaces together, each good for 512 entries: an operation that needs more is
    /// ENOMEM, as on a kernel whose memory is used up by them. None: as many as there are frames, since
    /// they are made of the same memory, and 4096 at least.
    pub page_tables: Option<u64>,
    /// The pages that `overcommit` takes the machine to have, memory and swap together. None: its frames.
    pub commit_total: Option<u64>,
}

impl MachineConfig {
    /// Pages of the block that a fault of a file maps.
    pub(super) fn fault_around_pages(&self) -> u64 {
        1 << self.fault_around.clamp(1, PMD_PAGES).ilog2()
    }
}

/// Table pages of a machine, where nothing is said of them.
const LEAST_TABLES: u64 = 4096;

impl Default for MachineConfig {
    fn default() -> Self {
        Self {
            memory: MemConfig::default(),
            overcommit: Overcommit::Heuristic,
            max_map_count: 65530,
            mmap_min_addr: 65536,
            stack_guard_gap: 256,
            fault_around: 16,
            rmap_windows: RmapWindows::default(),
            export_order: ExportOrder::default(),
            align_huge: true,
            fork: ForkMode::default(),
            page_tables: None,
            commit_total: None,
        }
    }
}

/// A machine: shared by the address spaces that were made on it.
#[derive(Debug)]
pub struct Machine {
    config: MachineConfig,
    host: Host,
    epoch: Epoch,
    pub(super) forks: ForkRegistry,
    /// Who has memory to be merged, in the order in which they first had some.
    pub(super) merge_turns: IdSource,
}

impl Machine {
    /// Switches a machine on. Its memory costs nothing until used.
    ///
    /// # Panics
    ///
    /// As [`PhysMem::new`].
    pub fn new(config: MachineConfig) -> Arc<Self> {
        Self::try_new(config).unwrap_or_else(|e| panic!("no such machine: {e}"))
    }
    /// As [`new`](Self::new), with an error for what cannot be had.
    ///
    /// # Errors
    ///
    /// As [`PhysMem::try_new`].
    pub fn try_new(config: MachineConfig) -> std::io::Result<Arc<Self>> {
        let frames = u64::from(config.memory.frames);
        let tables = config.page_tables.unwrap_or(frames.max(LEAST_TABLES));
        let mem = Arc::new(PhysMem::try_new(config.memory)?.with_tables(tables));
        let total = config.commit_total.unwrap_or(frames);
        let commit = Arc::new(Commit::new(config.overcommit, total));
        let registry = Arc::new(Registry::new(config.export_order));
        Ok(Arc::new(Self {
            config,
            host: Host {
                mem,
                commit,
                registry,
            },
            epoch: Epoch::new(),
            forks: ForkRegistry::default(),
            merge_turns: IdSource::starting_at(0),
        }))
    }
    /// Registers the current thread: the source of every token ([`Cx`](crate::ctx::Cx)).
    ///
    /// # Errors
    ///
    /// [`AlreadyEntered`] while another `Thread` of this thread lives, of this or another machine.
    pub fn enter(&self) -> Result<Thread, AlreadyEntered> {
        Thread::enter(&self.epoch)
    }
    /// The settings.
    pub fn config(&self) -> &MachineConfig {
        &self.config
    }
    /// The physical memory.
    pub fn mem(&self) -> &Arc<PhysMem> {
        &self.host.mem
    }
    /// What objects need of the machine that they are on.
    pub fn host(&self) -> &Host {
        &self.host
    }
    /// Nothing of this machine is done on another one's word: it would be done half.
    pub(super) fn check_token<R: Rank, C: Context>(&self, cx: &Cx<'_, R, C>) {
        assert!(
            cx.epoch_is(&self.epoch),
            "this thread entered another machine"
        );
    }
    pub(super) fn registry(&self) -> &Arc<Registry> {
        &self.host.registry
    }
    /// The account of promised memory.
    pub fn commit(&self) -> &Arc<Commit> {
        &self.host.commit
    }
    /// Frees at least `wanted` frames if that can be done: pages that were not used lately go to swap or are dropped,
    /// and every external MMU is asked and told on the way. Returns how many frames were freed
    /// (`try_to_free_pages`). Nothing on a machine without a swap device, which keeps no lists.
    ///
    /// # Panics
    ///
    /// If the token is of a thread that entered another machine.
    pub fn reclaim(&self, cx: &mut CallCx<'_>, wanted: u64) -> u64 {
        self.check_token(cx);
        self.reclaimer().free(cx, wanted)
    }
    /// Frees all that can be freed of what the processes of this machine own, as if a memory control group around them
    /// were emptied (`memory.force_empty`). Returns how many frames were freed.
    ///
    /// # Panics
    ///
    /// If the token is of a thread that entered another machine.
    pub fn reclaim_all(&self, cx: &mut CallCx<'_>) -> u64 {
        self.check_token(cx);
        self.reclaimer().free_all(cx)
    }
    pub(super) fn reclaimer(&self) -> Reclaim<'_> {
        Reclaim::new(&self.host, self.config.rmap_windows)
    }
    /// Registers a driver that is told by frame of what happens to frames that it exported.
    pub fn register_exports(&self, driver: Arc<dyn RmapNotifier>) -> ExportRegistration {
        self.host.registry.exports.add(driver)
    }
    /// Takes such a driver off.
    pub fn unregister_exports(&self, registration: &ExportRegistration) {
        self.host.registry.exports.remove(registration);
    }
    pub(super) fn epoch(&self) -> &Epoch {
        &self.epoch
    }
}
