//! The machine: physical memory, epoch and settings that address spaces share.
//!
//! Every address space belongs to one [`Machine`], and every token to the machine that its thread
//! entered. A call with the token of another machine panics: an epoch pin of that machine would not
//! hold back the frames and table pages of this one
//! (`docs/adr/0001-the-token-carries-the-epoch-handle.md`).
//!
//! | file | holds |
//! | --- | --- |
//! | this one | [`Machine`]: memory, commit account, registry of reverse maps, epoch |
//! | `config` | [`MachineConfig`]: the settings |
//! | `segments` | segments of System V |
//! | `folios` | [`FolioPolicies`]: where faults bring in folios of private memory |
//! | `forks` | [`ForkMode`], and the registry of address spaces that share page tables |
//! | `spaces` | all address spaces |
//! | `merged_pages` | the merged pages, and where they are mapped |
//! | `large_mappers` | the address spaces that the kernel does not count as mappers of a folio |
//! | `shared_tables` | tables of 2-MiB entries that mappings of a file of huge pages share |
//! | `devices` | [`DevicePages`]: devices with memory of their own |
//! | `hand_over` | a page handed over from one frame to another |
//! | `limit` | the limit of memory, and reclaim for an allocation that met it |

mod config;
mod devices;
mod folios;
mod forks;
pub(in crate::mm) mod hand_over;
mod large_mappers;
mod limit;
mod merged_pages;
mod segments;
mod shared_tables;
mod spaces;

pub use config::{KhugepagedLimits, MachineConfig};
pub use devices::{DeviceLost, DevicePages, DeviceRegistration, HomePage};
pub(in crate::mm) use folios::FolioSizes;
pub use folios::{FolioPolicies, FolioPolicy, FolioSize};
pub use forks::ForkMode;
pub(in crate::mm) use forks::{ForkMember, ForkRegistry, SharesLeaves};
pub(in crate::mm) use large_mappers::{LargeMappers, Mapped, SpaceAt};
pub(super) use segments::Memory;
pub use segments::{ShmGetFlags, ShmId, ShmStat};
pub(in crate::mm) use shared_tables::{SharedTables, TableKind, number_of};
pub(in crate::mm) use spaces::{Space, Spaces};

use crate::{
    addr::PAGE_SIZE,
    ctx::{
        AlreadyEntered, CallCx, Context, Cx, Epoch, Outside, Rank, Sleepable, Thread, TokenInUse,
    },
    file::Host,
    frame::{Commit, PhysMem},
    reclaim::Reclaim,
    rmap::{ExportRegistration, Registry, RmapNotifier},
    sync::IdSource,
    trace,
};
use config::LEAST_TABLES;
use devices::Devices;
use merged_pages::MergedPages;
use std::sync::Arc;

/// A machine: physical memory and everything else that its address spaces share. Aligned, so that
/// the count of references on it has a line of its own.
#[derive(Debug)]
#[repr(align(128))]
pub struct Machine {
    config: MachineConfig,
    host: Host,
    epoch: Epoch,
    pub(in crate::mm) forks: ForkRegistry,
    pub(in crate::mm) spaces: Spaces,
    pub(in crate::mm) merged: MergedPages,
    pub(in crate::mm) mappers: LargeMappers,
    pub(in crate::mm) shared_tables: SharedTables,
    pub(in crate::mm) segments: segments::Segments,
    pub(in crate::mm) devices: Devices,
    /// Numbers the address spaces with mergeable memory, in the order in which each first had some.
    pub(in crate::mm) merge_turns: IdSource,
}

impl Machine {
    /// Creates a machine. Physical memory that is never used costs nothing.
    ///
    /// # Panics
    ///
    /// As [`PhysMem::new`].
    ///
    /// # Examples
    ///
    /// ```
    /// use emmu::{Machine, MachineConfig, MemConfig};
    ///
    /// let memory = MemConfig { frames: 1024, ..MemConfig::default() };
    /// let machine = Machine::new(MachineConfig { memory, ..MachineConfig::default() });
    /// assert_eq!(machine.mem().in_use(), 0);
    /// ```
    pub fn new(config: MachineConfig) -> Arc<Self> {
        Self::try_new(config).unwrap_or_else(|e| panic!("no such machine: {e}"))
    }
    /// Creates a machine, or returns the error that [`new`](Self::new) panics with.
    ///
    /// # Errors
    ///
    /// As [`PhysMem::try_new`]. `InvalidInput` also for more than 2^27 frames of devices.
    pub fn try_new(config: MachineConfig) -> std::io::Result<Arc<Self>> {
        config.check()?;
        let frames = u64::from(config.memory.frames);
        let tables = config.page_tables.unwrap_or(frames.max(LEAST_TABLES));
        let mem = PhysMem::try_new(config.memory)?;
        let mem = Arc::new(mem.with_tables(tables).with_devices(config.device_frames));
        for (size, pool) in config.pools() {
            mem.set_huge_pages(size, pool.pages);
            mem.set_huge_overcommit(size, pool.overcommit);
        }
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
            spaces: Spaces::default(),
            merged: MergedPages::default(),
            mappers: LargeMappers::default(),
            shared_tables: SharedTables::default(),
            segments: segments::Segments::default(),
            devices: Devices::default(),
            merge_turns: IdSource::starting_at(0),
        }))
    }
    /// Registers the current thread: the source of every token ([`Cx`](crate::ctx::Cx)).
    ///
    /// # Errors
    ///
    /// [`AlreadyEntered`] while another `Thread` of this thread lives, of this or another machine.
    ///
    /// # Examples
    ///
    /// ```
    /// use emmu::{Machine, MachineConfig, Mm};
    ///
    /// let machine = Machine::new(MachineConfig::default());
    /// let mut thread = machine.enter()?;
    /// assert!(machine.enter().is_err(), "one source of tokens for a thread");
    ///
    /// let mut cx = thread.cx(); // the token that every call borrows
    /// assert_eq!(Mm::new(&machine).map_count(&mut cx), 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn enter(&self) -> Result<Thread, AlreadyEntered> {
        Thread::enter(&self.epoch)
    }
    /// Runs `f` with a token of the current thread: for code that is handed none, as behind a trait
    /// of another crate.
    ///
    /// It is the token that the thread has [lent](CallCx::lend), or one of its own if the thread
    /// has not entered a machine, which is kept for later calls and does not keep the thread from
    /// [entering](Self::enter). Calls nest where the token is lent again.
    ///
    /// # Errors
    ///
    /// [`TokenInUse`]: the thread entered a machine and did not lend its token, so it may hold a
    /// lock. `f` did not run.
    ///
    /// # Examples
    ///
    /// ```
    /// use emmu::{Machine, MachineConfig, Mm, PAGE_SIZE, mm::MmapArgs};
    ///
    /// let machine = Machine::new(MachineConfig::default());
    /// let mm = Mm::new(&machine);
    /// let at = machine.with_current(|cx| mm.mmap(cx, &MmapArgs::anonymous(PAGE_SIZE)))??;
    /// let read = || machine.with_current(|cx| mm.load(cx, at)); // no token is handed to it
    ///
    /// let mut thread = machine.enter()?;
    /// let mut cx = thread.cx();
    /// mm.store(&mut cx, at, 7)?;
    /// assert!(read().is_err(), "the token is in use");
    /// assert_eq!(cx.lend(read), Ok(Ok(7)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn with_current<T>(&self, f: impl FnOnce(&mut CallCx<'_>) -> T) -> Result<T, TokenInUse> {
        self.epoch.with_current(f)
    }
    /// The settings that the machine was made with.
    pub fn config(&self) -> &MachineConfig {
        &self.config
    }
    /// The physical memory.
    pub fn mem(&self) -> &Arc<PhysMem> {
        &self.host.mem
    }
    /// The part of the machine that memory objects use: memory, commit account, reverse maps.
    pub fn host(&self) -> &Host {
        &self.host
    }
    /// Panics unless the token's thread entered this machine: a token of another machine pins
    /// another epoch, so this machine's table pages and frames could be freed under the caller.
    pub(in crate::mm) fn check_token<R: Rank, C: Context>(&self, cx: &Cx<'_, R, C>) {
        assert!(
            cx.epoch_is(&self.epoch),
            "this thread entered another machine"
        );
    }
    pub(in crate::mm) fn registry(&self) -> &Arc<Registry> {
        &self.host.registry
    }
    /// The account of committed memory, which overcommit is checked against.
    pub fn commit(&self) -> &Arc<Commit> {
        &self.host.commit
    }
    /// Frees at least `wanted` frames if it can, and returns how many it freed
    /// (`try_to_free_pages`).
    ///
    /// Pages that were not used lately go to swap or are dropped; every external MMU is asked for
    /// accessed bits, and called before a page goes. A machine without a swap device keeps no lists
    /// of pages, and only splits huge pages ([`split_deferred`](Self::split_deferred)).
    ///
    /// # Panics
    ///
    /// If the token is of a thread that entered another machine.
    pub fn reclaim(&self, cx: &mut CallCx<'_>, wanted: u64) -> u64 {
        let _call = trace::call("reclaim", 0, wanted.saturating_mul(PAGE_SIZE));
        self.check_token(cx);
        self.reclaimer().free(cx, wanted)
    }
    /// Frees every frame that can be freed of those that the processes of this machine own, and
    /// returns how many it freed: as if a memory control group around them were emptied
    /// (`memory.force_empty`).
    ///
    /// # Panics
    ///
    /// If the token is of a thread that entered another machine.
    ///
    /// # Examples
    ///
    /// ```
    /// use emmu::{Machine, MachineConfig, MemConfig, Mm, PAGE_SIZE, mm::MmapArgs};
    ///
    /// let memory = MemConfig { swap: 64, ..MemConfig::default() };
    /// let machine = Machine::new(MachineConfig { memory, ..MachineConfig::default() });
    /// let mut thread = machine.enter()?;
    /// let mut cx = thread.cx();
    /// let mm = Mm::new(&machine);
    /// let at = mm.mmap(&mut cx, &MmapArgs::anonymous(PAGE_SIZE))?;
    /// mm.store(&mut cx, at, 7)?;
    ///
    /// assert_eq!(machine.reclaim_all(&mut cx), 1);
    /// assert_eq!(machine.mem().in_use(), 0);
    /// assert_eq!(mm.load(&mut cx, at)?, 7); // comes back from swap
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn reclaim_all(&self, cx: &mut CallCx<'_>) -> u64 {
        self.check_token(cx);
        self.reclaimer().free_all(cx)
    }
    /// Splits every huge page of private memory of which a part was given back, so that the rest of
    /// it is single pages, and returns how many were split. Pages that hold only zeros are given
    /// back as well: the zero page takes their place.
    ///
    /// Linux does this by the shrinker of its deferred list, under memory pressure and at
    /// `/proc/sys/vm/drop_caches`; reclaim does it here too. Each VMA that maps such a page sees a
    /// window over its part.
    ///
    /// # Panics
    ///
    /// If the token is of a thread that entered another machine.
    pub fn split_deferred(&self, cx: &mut CallCx<'_>) -> usize {
        self.check_token(cx);
        self.reclaimer().split_deferred(cx)
    }
    pub(in crate::mm) fn reclaimer(&self) -> Reclaim<'_> {
        Reclaim::new(&self.host, self.config.rmap_windows)
    }
    /// Registers a driver of exported frames, which is notified by frame number when it must stop
    /// using one ([`RmapNotifier::invalidate_frame`]).
    pub fn register_exports(&self, driver: Arc<dyn RmapNotifier>) -> ExportRegistration {
        self.host.registry.exports.add(driver)
    }
    /// Unregisters a driver of exported frames. When this returns, no call of it runs or will run.
    ///
    /// # Panics
    ///
    /// If token or registration are of another machine.
    pub fn unregister_exports<R: Outside>(
        &self,
        cx: &mut Cx<'_, R, Sleepable>,
        registration: ExportRegistration,
    ) {
        self.check_token(cx);
        self.host.registry.exports.remove(cx, registration);
    }
    pub(crate) fn epoch(&self) -> &Epoch {
        &self.epoch
    }
}
