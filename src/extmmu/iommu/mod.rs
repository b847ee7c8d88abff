//! An IOMMU for the device models of rust-vmm over the memory of a process (`vm_memory::Iommu`,
//! feature `vm-memory`): an IOTLB that faults fill and windows invalidate.
//!
//! `vm_memory` itself keeps a translation true for as long as the *iterator* lives that a call of
//! `get_slices` returns. A `VolatileSlice` may outlive the iterator, and then leads to memory that
//! belongs to something else. Here each slice is a *lease* of its page, and ends it when the last
//! copy of the slice is dropped:
//!
//! ```text
//! device                          window
//! get_slices -> iterator, leases
//! a slice is taken out
//! the iterator is dropped
//!                                 the IOTLB loses the page
//!                                 waits (OnWindow::Wait) ...
//! the slice is dropped  --------> opens
//!
//!                                 or revokes the lease (OnWindow::Revoke, Strict): opens at once;
//! a store through the slice       reaches no process, and is reported
//! ```
//!
//! A device takes a lease without a lock: it counts it in the word of the page's slot
//! (docs/adr/0042-a-lease-is-a-count-in-the-word-of-its-page.md).
//!
//! | file | holds |
//! | --- | --- |
//! | `process_iommu` | the IOMMU as the devices have it, and its construction |
//! | `iotlb` | the driver: translations, misses, windows |
//! | `slots` | pages that devices take leases of without a lock: a lease is a count in a word |
//! | `lease` | one lease, as its thread has it |
//! | `own_leases` | the leases of a thread |
//! | `kept` | frames that revoked slices lead to |
//! | `table` | the slots that have a page, and the pages that windows close |
//! | `leases` | leases taken and ended, and windows that wait for them or revoke them |
//! | `page_iotlbs` | IOTLBs of one page that a thread uses again |
//! | `holder` | an iterator or a slice, as the holder of a lease |
//! | `stale_use` | the report of a slice that was used after its window |
//! | `leased_memory` | leased pages as a `GuestMemoryBackend` |
//! | `iova_bitmap` | the dirty bitmap of I/O addresses, whose slices are leases |
//! | `config` | the answer to a window; mistakes for tests |

mod config;
mod holder;
mod iotlb;
mod iova_bitmap;
mod kept;
mod lease;
mod leased_memory;
mod leases;
#[cfg(all(test, loom))]
mod models;
mod own_leases;
mod page_iotlbs;
mod process_iommu;
mod slots;
mod stale_use;
mod table;

pub use config::{IommuConfig, IommuMistake, OnWindow};
pub use iova_bitmap::{IovaBitmap, LeasedSlice};
pub use leased_memory::{LeasedMemory, LeasedRegion};
pub use process_iommu::{LeasedIotlb, ProcessIommu};
pub use stale_use::{SliceUse, StaleUse};
