//! Pools of huge pages that are set aside, one for each size (`struct hstate`).
//!
//! A pool has *free* pages and pages in use. Some of the free ones are *reserved*: they were
//! promised to a mapping when it was made. Pages beyond the size that the administrator set are
//! *surplus*: they came for a reservation or a fault, and leave the pool when they are given back.
//! The last frame of a page that is retired brings the page back
//! (`docs/adr/0028-huge-pages-of-a-pool.md`).

use super::resv_map::ResvMap;
use crate::{
    addr::{PMD_PAGES, Pfn},
    sync::{AtomicU64, Mutex},
};
use std::{collections::BTreeMap, sync::Arc};

/// The size of the pages of a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum HugeSize {
    /// 2 MiB, the usual size.
    #[default]
    Mib2,
    /// 1 GiB.
    Gib1,
}

impl HugeSize {
    /// Both sizes.
    pub const ALL: [Self; 2] = [Self::Mib2, Self::Gib1];

    /// Returns the number of frames in a page.
    pub const fn pages(self) -> u64 {
        match self {
            Self::Mib2 => PMD_PAGES,
            Self::Gib1 => PMD_PAGES * PMD_PAGES,
        }
    }
    /// Returns the number of frames in a page.
    #[allow(clippy::cast_possible_truncation)]
    pub(super) const fn frames(self) -> u32 {
        self.pages() as u32
    }
    /// Returns the first frame of the page of this size around `pfn`.
    pub(super) const fn head(self, pfn: Pfn) -> Pfn {
        Pfn(pfn.0 & !(self.frames() - 1))
    }
}

/// The initial state of a pool. `Default` is no pool.
///
/// # Examples
///
/// ```
/// use emmu::{HugePoolConfig, HugeSize, Machine, MachineConfig, Mm, mm::MmapArgs};
/// use emmu::file::{File, FileMode, HugetlbFile};
///
/// let huge_pages = HugePoolConfig { pages: 2, ..Default::default() };
/// let machine = Machine::new(MachineConfig { huge_pages, ..Default::default() });
/// let mut thread = machine.enter()?;
/// let mut cx = thread.cx();
/// let mm = Mm::new(&machine);
///
/// let object = HugetlbFile::memfd(machine.host(), "example", 4 << 20, HugeSize::Mib2)?;
/// let file = File::open(object, FileMode::ReadWrite);
/// let at = mm.mmap(&mut cx, &MmapArgs::anonymous(4 << 20).file(&file, 0))?; // reserves both pages
/// mm.store(&mut cx, at, 7)?; // takes one of them
/// let pool = machine.mem().huge_pool(HugeSize::Mib2);
/// assert_eq!((pool.free, pool.reserved), (1, 1));
/// mm.exit(&mut cx);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct HugePoolConfig {
    /// The number of pages (`vm.nr_hugepages`).
    pub pages: u64,
    /// The most surplus pages (`vm.nr_overcommit_hugepages`).
    pub overcommit: u64,
}

/// The counts of a pool, in pages of its size, as `/proc/meminfo` shows them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct HugePool {
    /// All pages, free or in use (`HugePages_Total`).
    pub total: u64,
    /// The pages not in use (`HugePages_Free`).
    pub free: u64,
    /// The free pages that are promised (`HugePages_Rsvd`).
    ///
    /// As on Linux, the count is below 0 for a time if a process gives up a private page that a
    /// child still has: the reservation ends at once, and comes back first when the page is free.
    pub reserved: i64,
    /// The pages beyond the size of the pool (`HugePages_Surp`).
    pub surplus: u64,
}

/// A page that is in use.
#[derive(Debug)]
pub(super) struct InUse {
    /// The number of its frames that have a reference.
    pub(super) frames: u32,
    /// The page used up a reservation, or ends one, that comes back when the page is free
    /// (`HPageRestoreReserve`).
    pub(super) restores: bool,
    /// The map of the private mapping for which the page was made, and the page's index there.
    pub(super) owner: Option<(Arc<ResvMap>, u64)>,
    /// The page leaves the pool when it is free: it came for a page that moved
    /// (`HPageTemporary`).
    pub(super) temporary: bool,
}

/// One pool.
#[derive(Debug, Default)]
pub(super) struct Pool {
    /// The first frames of the free pages; the last is taken first.
    pub(super) free: Vec<u32>,
    /// The pages in use, by first frame.
    pub(super) used: BTreeMap<u32, InUse>,
    pub(super) reserved: i64,
    pub(super) surplus: u64,
    pub(super) overcommit: u64,
}

/// The pools of a machine.
#[derive(Debug, Default)]
pub(super) struct HugePools {
    of_size: [Mutex<Pool>; 2],
    /// The number of pages in use, of all sizes; read without a lock by the retirement of frames.
    pub(super) used: AtomicU64,
}

impl HugePools {
    /// Returns the number of frames in the pools, free or in use.
    pub(super) fn frames(&self) -> u64 {
        let frames = |size: HugeSize| self.of(size).lock().total() * size.pages();
        HugeSize::ALL.into_iter().map(frames).sum()
    }
    pub(super) fn of(&self, size: HugeSize) -> &Mutex<Pool> {
        &self.of_size[size as usize]
    }
}

impl Pool {
    pub(super) fn counts(&self) -> HugePool {
        HugePool {
            total: self.total(),
            free: self.free.len() as u64,
            reserved: self.reserved,
            surplus: self.surplus,
        }
    }
    pub(super) fn total(&self) -> u64 {
        (self.free.len() + self.used.len()) as u64
    }
    /// Returns the number of free pages that nothing was promised (`available_huge_pages`).
    pub(super) fn available(&self) -> i64 {
        signed(self.free.len() as u64) - self.reserved
    }
}

/// Returns a number of pages with a sign.
pub(super) fn signed(pages: u64) -> i64 {
    i64::try_from(pages).expect("no memory has 2^63 pages")
}
