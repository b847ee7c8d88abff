//! A GPU on an address space, and its settings.

use super::{board::GpuBoard, engines::Engines, mistake::GpuMistake, table::PageTable};
use crate::{
    addr::{PMD_PAGES, Vpn},
    ctx::{Atomic, CallCx},
    extmmu::bill::{Bill, Meter},
    mm::Mm,
    notifier::{Gate, GateGuard, RangePermit, Registration},
    sync::Mutex,
};
use std::{
    collections::VecDeque,
    sync::{Arc, Weak},
};

/// The pages of a bulk fault that are mapped when a window has touched some of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum BulkCommit {
    /// All or none: the touched ones are looked up again first.
    #[default]
    All,
    /// Those below the first that a window has touched; the rest is looked up then.
    Prefix,
}

/// The settings of a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct GpuConfig {
    /// The number of engines, each with a TLB: 1 to 1,024. Other numbers count as the nearest.
    pub engines: usize,
    /// Entries of a TLB.
    pub tlb_entries: usize,
    /// Pages of the aligned block that a fault looks up: the page at fault as it is needed, and its
    /// neighbours as they are. 1 to 512 pages; other numbers count as the nearest.
    pub batch: u64,
    /// Entries of 2 MiB are made where memory has huge pages.
    pub huge: bool,
    /// The pages of a bulk fault that are mapped.
    pub commit: BulkCommit,
    /// A page migrates to the memory of the GPU after so many faults there.
    pub migrate_after: Option<u32>,
    /// A mistake.
    pub mistake: Option<GpuMistake>,
}

impl Default for GpuConfig {
    fn default() -> Self {
        Self {
            engines: 2,
            tlb_entries: 64,
            batch: 16,
            huge: true,
            commit: BulkCommit::All,
            migrate_after: None,
            mistake: None,
        }
    }
}

/// The most engines of a GPU.
const MOST_ENGINES: usize = 1024;

impl GpuConfig {
    /// Returns the settings with each number in its range. A fault looks no more up than a table
    /// has.
    fn within_limits(self) -> Self {
        Self {
            engines: self.engines.clamp(1, MOST_ENGINES),
            batch: self.batch.clamp(1, PMD_PAGES),
            ..self
        }
    }
}

pub(super) type Guard<'p> = GateGuard<'p, PageTable, Engines, Atomic>;
pub(super) type Permit<'p> = RangePermit<'p, PageTable, Engines, Atomic>;

/// A GPU that mirrors an address space.
///
/// # Examples
///
/// ```
/// use emmu::extmmu::gpu::{Gpu, GpuBoard, GpuConfig};
/// use emmu::{PAGE_SIZE, frame::DeviceKind, mm::MmapArgs};
/// # let machine = emmu::Machine::new(Default::default());
/// # let mut thread = machine.enter()?;
/// # let mut cx = thread.cx();
/// # let mm = emmu::Mm::new(&machine);
///
/// let (board, _stays) = GpuBoard::add(&machine, DeviceKind::Private, 64)?;
/// let (gpu, registration) = Gpu::attach(&mut cx, &mm, Some(&board), GpuConfig::default());
/// let at = mm.mmap(&mut cx, &MmapArgs::anonymous(4 * PAGE_SIZE))?;
/// gpu.engine(0).write(&mut cx, at, b"by the GPU")?;
/// assert_eq!(mm.load(&mut cx, at)?, b'b');
///
/// // The page goes to the memory of the GPU, and comes home when the process wants it.
/// assert_eq!(gpu.to_device(&mut cx, at, PAGE_SIZE)?, 1);
/// gpu.engine(1).write(&mut cx, at, b"there")?;
/// assert_eq!((mm.load(&mut cx, at)?, board.home()), (b't', 1));
/// mm.unregister(&mut cx, registration);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Gpu {
    pub(super) mm: Weak<Mm>,
    pub(super) board: Option<Arc<GpuBoard>>,
    pub(super) gate: Gate<PageTable, Engines, Atomic>,
    /// Pages that migrated to the board, oldest first. Some may have left it.
    pub(super) resident: Mutex<VecDeque<Vpn>>,
    pub(super) config: GpuConfig,
    pub(super) meter: Meter,
}

impl Gpu {
    /// Registers a GPU on an address space.
    pub fn attach(
        cx: &mut CallCx<'_>,
        mm: &Arc<Mm>,
        board: Option<&Arc<GpuBoard>>,
        config: GpuConfig,
    ) -> (Arc<Self>, Registration) {
        let config = config.within_limits();
        mm.register(cx, |seat| {
            let engines = Engines::new(config.engines, config.tlb_entries);
            Arc::new(Self {
                mm: Arc::downgrade(mm),
                board: board.cloned(),
                gate: Gate::new(seat, PageTable::default(), engines),
                resident: Mutex::default(),
                config,
                meter: Meter::default(),
            })
        })
    }
    /// Returns the number of entries of the page table.
    pub fn entries(&self, cx: &mut CallCx<'_>) -> usize {
        self.gate.lock(cx).store().len()
    }
    /// Returns the counts of windows, faults and migrations so far.
    pub fn bill(&self) -> Bill {
        self.meter.bill()
    }
    /// Returns the meter that keeps the [`Bill`].
    pub fn meter(&self) -> &Meter {
        &self.meter
    }
    pub(super) fn made(&self, mistake: GpuMistake) -> bool {
        self.config.mistake == Some(mistake)
    }
}

impl std::fmt::Debug for Gpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gpu")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}
