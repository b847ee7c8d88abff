//! The address space: VMAs, page table, faults, invalidation windows, and one file for each system
//! call.
//!
//! An [`Mm`] has two structures. Its *layout* says which ranges are mapped, with which rights and
//! objects; the mmap lock guards it. Its *page table* says which frame each page has by now; every
//! leaf has a lock of its own, and look-ups take none. A fault fills the page table from the
//! layout. An operation that takes rights or pages away opens an [`InvalidationWindow`] first, so
//! that no external MMU keeps a translation that becomes stale.
//!
//! `docs/life-of-a-page.md` leads through the code twice, file by file: a store of a device that
//! misses and copies, and `munmap` with a driver registered.
//!
//! The code is in rooms. A room uses the types of the rooms below it, never of one above
//! (`docs/adr/0026-rooms-of-the-address-space.md`):
//!
//! ```text
//!  calls                          one file per system call
//!  external   reverse             questions of drivers; questions of reverse maps
//!  fault                          page faults, and all else that makes pages present
//!  edit                           merge, split and placement of VMAs
//!  large                          huge pages that one process owns, and their split for good
//!  guard                          the mmap lock held
//!  window                         the right to open windows, the window, changes of entries in it
//!  space                          struct Mm
//!  page_table                     tables, leaves and their locks
//!  vma                            VMAs and the layout
//!  lock                           the mmap lock
//!  machine                        memory, epoch, settings: shared by address spaces
//!  entry                          words of entries, flags, arguments
//! ```
//!
//! | question | room |
//! | --- | --- |
//! | which steps does a system call take, and in which order? | `calls` |
//! | how is a page fault resolved? | `fault` |
//! | how does a page go to a device, and come home? | `fault` (`device`), `calls` (`migrate_vma`) |
//! | how do other processes and the kernel's I/O get a page? | `fault` (`follow`) |
//! | where is copy-on-write decided? | `fault` (`cow`), `calls` (fork shares the pages) |
//! | when do VMAs merge, how are they split, where does a mapping go? | `edit` |
//! | where does a window open? | in the call or fault that needs it, by a [`Lease`]; guards of `guard` give one, and `window` defines it |
//! | how does a driver get a frame? | `external` |
//! | how do reclaim, migration and same-page merging change mappings? | `reverse` |
//! | which table pages exist, and how are they read without a lock? | `page_table` |
//! | which lock guards a VMA? | the mmap lock, in `lock`; its guards are in `guard` |
//! | which lock guards an entry? | that of its leaf, in `page_table` |
//! | where is a frame given back? | `entry` (`release`) gives up an entry's contents; `frame::lifetime` retires the frame |
//! | when is a huge page split for good? | `large` |
//! | where do huge pages of a pool come in and go? | `fault` and `calls` (`hugetlb`); `frame` has the pool |
//! | which structures do address spaces share? | `machine` |
//! | which kinds of entries are there? | `entry`, and `docs/entries.md` |
//! | which fields has an address space? | `space`; its mappings are in `vma` |

mod calls;
mod edit;
mod entry;
mod external;
mod fault;
mod guard;
mod large;
mod lock;
mod machine;
mod page_table;
mod reverse;
mod space;
mod vma;
mod window;

pub use calls::device_exclusive::ExclusivePage;
pub use calls::inspect::VmaInfo;
pub use calls::install::Segment;
pub use calls::migrate_vma::{MigrateArgs, MigrateSelect, MigrateSource, MigrateTo, Migrated};
pub use calls::pagemap_scan::{PageRegion, Scan, ScanArgs};
pub use calls::pin::HeldPages;
pub use calls::proc_maps::{MapsLine, PageState};
pub use calls::shm::ShmFlags;
pub use calls::userfault::{UffdMessage, Userfault};
pub use calls::vma_cost::VmaChange;
pub use edit::agree::MergeBarrier;
pub use edit::plan::VmaCost;
pub use entry::args::{MmapArgs, MremapArgs};
pub use entry::flags::{
    Advice, MapFlags, MlockFlags, MlockallFlags, MremapFlags, MsyncFlags, Prot, RemapMode,
    ThpDisable, VmFlags,
};
pub use entry::policy::{MbindFlags, PolicyMode};
pub use entry::pte::Pte;
pub use entry::release::RemovedPte;
pub use entry::uffd_flags::{
    FillMode, MoveMode, PageCategories, PageFaultFlags, ProtectMode, RegisterMode, ScanFlags,
    UffdFeatures,
};
pub use external::walker::Walker;
pub use fault::device::Stays;
pub use fault::follow::PinKind;
pub use guard::{MmapReadGuard, MmapWriteGuard};
pub use machine::{
    DeviceLost, DevicePages, DeviceRegistration, FolioPolicies, FolioPolicy, FolioSize, ForkMode,
    HomePage, KhugepagedLimits, Machine, MachineConfig, ShmGetFlags, ShmId, ShmStat,
};
#[cfg(feature = "internals")]
pub use page_table::bench_table as raw;
pub use reverse::ksmd::Merger;
pub use space::Mm;
pub use vma::layout::Limits;
pub use vma::userfault::PageFault;
pub use window::{InvalidationWindow, Lease, PteSlot, PteTxn};
