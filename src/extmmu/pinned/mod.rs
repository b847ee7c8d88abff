//! Devices behind an IOMMU that pins: VFIO and iommufd. Nothing of the process's memory that such a
//! device reaches may move, so no notifier is needed, and none is told.
//!
//! An *I/O address space* maps I/O virtual addresses to pages of processes. Each page is pinned
//! for as long as a translation of it exists (`FOLL_LONGTERM`): reclaim, migration and merging pass
//! it over, fork copies it for the child at once, and a store of the process changes it in place.
//! Changes of the *mapping* do not reach the device: after `munmap`, `MADV_DONTNEED` or a
//! truncation both go on with pages of their own, as with Linux.
//!
//! The rules are those of `drivers/iommu/iommufd` (6.18):
//!
//! * a page is pinned once for all domains and accesses of one map, and unpinned with the last;
//! * a call that fails half-way has unpinned the pages that it had pinned;
//! * an unmapping covers whole areas (`ENOENT` otherwise). It asks those that pinned pages through
//!   an access to let go, then takes the entries out of every domain, then flushes the IOTLBs, and
//!   only then unpins:
//!
//! ```text
//! unmap                        device
//!                              IOTLB: iova -> frame A
//! entry: gone
//! IOTLB: flushed
//!                              miss: fault
//! A: unpinned
//! ```
//!
//! * the dirty bits that a device sets are read and cleared together, and the IOTLB is flushed
//!   after: a cached entry that is dirty sets no bit any more.
//!
//! | file | holds |
//! | --- | --- |
//! | `ioas` | an I/O address space: mapping, unmapping, copying, domains |
//! | `areas` | its ranges: mapped, reserved, and allowed for addresses that it chooses |
//! | `pages` | the pages of one map, each pinned once |
//! | `fill` | areas come into domains and leave them |
//! | `domain` | the I/O page table of a device, its IOTLB, and transfers through them |
//! | `tracking` | the dirty bits of a domain |
//! | `dirty` | reports of the pages that a device has written |
//! | `access_list` | the accesses that an unmapping calls |
//! | `access` | pins and transfers by kernel code (mediated devices) |
//! | `account` | the limit on locked memory |
//! | `error` | the errors |
//! | `mistake` | mistakes that tests must find |
//!
//! Not modelled: maps of files (`IOMMU_IOAS_MAP_FILE`) and, with them, the change of the process
//! that is charged; page requests; nested domains.

mod access;
mod access_list;
mod account;
mod areas;
mod dirty;
mod domain;
mod error;
mod fill;
mod ioas;
mod mistake;
mod pages;
mod tracking;

pub use access::{AccessPages, IoasAccess};
pub use account::LockedAccount;
pub use dirty::{DirtyBitmap, DirtyRead};
pub use domain::{Domain, DomainConfig};
pub use error::{DmaFault, IoasError};
pub use ioas::{Ioas, IoasConfig, IoasMap};
pub use mistake::PinMistake;
