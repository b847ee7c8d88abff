//! Shared virtual addressing: devices behind an IOMMU that walk the page table of the process.
//!
//! Each process that a device works for has a *PASID*, under which the device sends addresses of
//! the process. The IOMMU reads the process's own page table, and keeps what it has read in its
//! *IOTLB*; a device with ATS asks the IOMMU once, and keeps the answer in a TLB of its own, the
//! *ATC*. Where nothing is present the device sends a *page request* (PRI), waits for the answer,
//! and tries again.
//!
//! No window concerns such a device: it would read the old entry again. It gets flushes
//! ([`SecondaryTlb`](crate::notifier::SecondaryTlb)), each after its entry has changed and before
//! the frame goes. The rules are those of `iommu-sva.c`, `io-pgfault.c` and the drivers of the
//! IOMMUs (6.18):
//!
//! * the IOTLB is flushed before the ATCs, and a flush returns when each of them is done. The other
//!   way round, an ATC is filled again from the old IOTLB:
//!
//! ```text
//! flush                        device
//! ATC: flushed
//!                              ATC miss, IOTLB hit: frame A again
//! IOTLB: flushed
//! A: given back
//!                              ATC hit: a page of another owner
//! ```
//!
//! * a flush of many pages is one of all;
//! * each group of page requests is answered once, also where the queue has overflowed (the
//!   hardware answers: try again), after the process has ended, and by an unbinding;
//! * the end of the process leaves the PASID bound and quiet: accesses are aborted. An unbinding
//!   flushes, then drains the page requests of the PASID; only then the PASID may be used again.
//!
//! | file | holds |
//! | --- | --- |
//! | `bond` | binding devices to processes, and unbinding |
//! | `device` | a device: its PASID table, its accesses and page requests |
//! | `iommu`, `config` | the IOMMU: its processes, and the page requests of its devices |
//! | `domain` | one process on one IOMMU: the IOTLB, the flush, the release |
//! | `atc` | the TLB of a device |
//! | `requests` | the queue of page requests, and their answers |
//! | `pasids` | numbers of address spaces |
//! | `error` | errors and faults |
//! | `mistake` | mistakes that tests must find |
//!
//! Not modelled: accessed and dirty bits set by the walk (`Mm::walk` sets none; a write marks its
//! frame), walk caches of upper levels, devices without PRI, kernel addresses.

mod atc;
mod bond;
mod config;
mod device;
mod domain;
mod error;
mod iommu;
mod mistake;
mod pasids;
mod requests;

pub use bond::SvaBond;
pub use config::SvaConfig;
pub use device::{Pasid, SvaDevice};
pub use error::{SvaError, SvaFault};
pub use iommu::Iommu;
pub use mistake::SvaMistake;
pub use requests::{RequestStats, Response};
