//! Settings of a machine, with Linux's defaults.

use super::{folios::FolioPolicies, forks::ForkMode};
use crate::{
    addr::PMD_PAGES,
    frame::{HugePoolConfig, HugeSize, MemConfig, Overcommit},
    reclaim::RmapWindows,
    rmap::ExportOrder,
};

/// Settings of a [`Machine`](super::Machine). `Default` is a machine of 256 MiB with Linux's
/// default settings.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct MachineConfig {
    /// Physical memory.
    pub memory: MemConfig,
    /// `vm.overcommit_memory`.
    pub overcommit: Overcommit,
    /// Most VMAs of an address space (`vm.max_map_count`).
    pub max_map_count: usize,
    /// Lowest address of a mapping, in bytes: lower hints are raised to it (`vm.mmap_min_addr`).
    pub mmap_min_addr: u64,
    /// Pages that stay free below a growing stack (`stack_guard_gap`).
    pub stack_guard_gap: u64,
    /// Pages that a read fault of a file maps at most, the faulting one included
    /// (`fault_around_bytes`). Rounded down to a power of two between 1, which maps no other page,
    /// and 512 (`fault_around_bytes_set`).
    pub fault_around: u64,
    /// How reclaim opens its windows.
    pub rmap_windows: RmapWindows,
    /// Order in which drivers of exported frames are notified: before or after the mappings change.
    pub export_order: ExportOrder,
    /// Places new mappings of whole multiples of 2 MiB at 2-MiB boundaries.
    pub align_huge: bool,
    /// Copying or sharing of page tables at a fork.
    pub fork: ForkMode,
    /// Most page-table pages of all address spaces together; each holds 512 entries. An operation
    /// that needs more fails with ENOMEM, as on a kernel whose memory is used up by them. `None`
    /// allows as many as there are frames, since they are made of the same memory, and 4096 at
    /// least.
    pub page_tables: Option<u64>,
    /// How [`khugepaged`](super::Machine::khugepaged) chooses memory.
    pub khugepaged: KhugepagedLimits,
    /// The private memory in which faults bring in folios, for each size.
    pub folios: FolioPolicies,
    /// The pool of huge pages of 2 MiB. A machine without so many blocks of free memory has a
    /// smaller one.
    pub huge_pages: HugePoolConfig,
    /// The pool of huge pages of 1 GiB.
    pub huge_pages_1g: HugePoolConfig,
    /// Pages that `overcommit` assumes the machine to have, memory and swap together. `None`: as
    /// many as frames.
    pub commit_total: Option<u64>,
    /// Frame numbers that are set aside for memory of devices
    /// ([`Machine::add_device`](super::Machine::add_device)); at most 2^27. Unused ones cost
    /// nothing.
    pub device_frames: u32,
}

impl MachineConfig {
    /// Refuses more frames of devices than numbers can be set aside.
    pub(super) fn check(&self) -> std::io::Result<()> {
        if self.device_frames <= 1 << 27 {
            return Ok(());
        }
        let why = format!(
            "{} frames of devices are more than 2^27",
            self.device_frames
        );
        Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, why))
    }
    /// The pools of huge pages, by size.
    pub(super) fn pools(&self) -> [(HugeSize, HugePoolConfig); 2] {
        [
            (HugeSize::Gib1, self.huge_pages_1g),
            (HugeSize::Mib2, self.huge_pages),
        ]
    }
    /// Pages of the aligned block that a read fault of a file maps.
    pub(in crate::mm) fn fault_around_pages(&self) -> u64 {
        1 << self.fault_around.clamp(1, PMD_PAGES).ilog2()
    }
}

/// The most pages of each kind in 2 MiB of which [`khugepaged`](super::Machine::khugepaged) makes a
/// huge page (`/sys/kernel/mm/transparent_hugepage/khugepaged`). `Default` has Linux's defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct KhugepagedLimits {
    /// Pages without memory of their own: holes and the zero page (`max_ptes_none`).
    pub none: u32,
    /// Pages that another process maps as well (`max_ptes_shared`).
    pub shared: u32,
    /// Pages in swap (`max_ptes_swap`).
    pub swap: u32,
}

impl Default for KhugepagedLimits {
    fn default() -> Self {
        Self {
            none: 511,
            shared: 256,
            swap: 64,
        }
    }
}

/// Fewest table pages of a machine whose settings name no number.
pub(super) const LEAST_TABLES: u64 = 4096;

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
            khugepaged: KhugepagedLimits::default(),
            folios: FolioPolicies::default(),
            huge_pages: HugePoolConfig::default(),
            huge_pages_1g: HugePoolConfig::default(),
            commit_total: None,
            device_frames: 1 << 20,
        }
    }
}
