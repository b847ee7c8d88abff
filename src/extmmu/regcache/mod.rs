//! A registration cache in user space: the memory that an adapter transfers is registered once,
//! and found again by address.
//!
//! To register memory is slow: a system call, pins, entries of the adapter. So libraries such as
//! UCX, libfabric and Open MPI keep each region registered after its first transfer, in the hope of
//! a second one. Then the process unmaps the memory, maps other memory at the same address, and a
//! request finds the old region: its pages are pinned and not those of the process any more. A
//! monitor prevents that:
//!
//! ```text
//! process                      cache
//!                              transfer: region R of frame A, pinned
//! munmap: window begins
//!                              R is found no more
//! A: unmapped, still pinned
//! window ends
//! mmap at the same address
//!                              transfer: miss, region S of frame B
//!                              R: deregistered, A: free
//! ```
//!
//! The rules are those of these libraries:
//!
//! * a region that overlaps a request grows to cover both: regions that are found never overlap;
//! * a window takes every region that it overlaps out of the cache, whole, and deregisters none: a
//!   callback holds locks of the address space, which a deregistration needs;
//! * a region in use is never deregistered, by a window or by an eviction. Its transfer ends on the
//!   pages that it began with, as the pins hold them; the last user deregisters it;
//! * when regions or pages are too many, the region that was not used for the longest time goes,
//!   and gives up its pins;
//! * a region is found only if no window has touched its pages between look-up, pin and entry;
//! * memory that cannot be pinned for long, as of a file that must know of each write, is
//!   registered without pins, and the refusal is remembered with the region.
//!
//! No refusal of a page is remembered: a new mapping opens no window that would end it.
//!
//! | file | holds |
//! | --- | --- |
//! | `cache` | the cache: requests, transfers, deregistration |
//! | `handle` | the use of a region |
//! | `register` | the miss: look-up, pins, merging, eviction |
//! | `regions` | regions by page, and those that wait for their deregistration |
//! | `region` | one region: pages, pins, users |
//! | `monitor` | the callbacks |
//! | `error` | the errors |
//! | `mistake` | mistakes that tests must find |

mod cache;
mod error;
mod handle;
mod mistake;
mod monitor;
mod region;
mod regions;
mod register;

pub use cache::{RegCache, RegCacheConfig, RegStats};
pub use error::RegError;
pub use handle::RegionHandle;
pub use mistake::RegMistake;
