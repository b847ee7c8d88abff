//! A GPU that mirrors an address space, with memory of its own: an HMM mirror
//! (`mm/hmm.c`, `mm/migrate_device.c`).
//!
//! The GPU has a page table with entries of 4 KiB and 2 MiB, and one TLB for each engine. The
//! notifier alone keeps them true: no entry holds a reference. The rules are those of
//! `lib/test_hmm.c`, `drm_gpusvm` and nouveau:
//!
//! * a fault looks a batch of pages up under one range ticket: the page at fault as it is needed,
//!   its neighbours as they are. Entries come only of a permit, under the gate;
//! * a window removes the entries, and flushes the TLBs of all engines, before it is acknowledged;
//! * an entry that replaces another leaves no copy of the older one in a TLB. A TLB may know the
//!   older one to be dirty, and would never set the bit of the new one;
//! * pages migrate to the memory of the GPU and come home. In the window of a migration of its own
//!   the driver keeps entries of its own memory, and nothing else:
//!
//! ```text
//! migration to the GPU         engine 0            engine 1
//!                              TLB: A              TLB: A
//! window, owner: this GPU
//! entries of memory: gone      flushed             flushed
//! A is copied to frame P of the GPU
//! window ends                  fault: A stale? no: P
//! processor wants the page
//! window, no promise           flushed             flushed
//! P is copied home
//! ```
//!
//! * atomic operations need the page alone: in the GPU's own memory, or in memory that no processor
//!   can reach before a window has asked the GPU to let go (device-exclusive access);
//! * no refusal of a page is remembered: a new mapping opens no window that would end it.
//!
//! | file | holds |
//! | --- | --- |
//! | `gpu` | a GPU on an address space, its settings |
//! | `board` | the memory of a GPU |
//! | `engine` | accesses through the TLB of an engine |
//! | `engines` | the state under the gate: TLBs, pages that the GPU has alone |
//! | `table` | the page table |
//! | `fault` | batches of faults, prefetching |
//! | `migrate` | pages go to the GPU and come home |
//! | `atomics` | atomic operations |
//! | `notify` | the callbacks |
//! | `error` | the errors |
//! | `mistake` | mistakes that tests must find |

mod atomics;
mod board;
mod engine;
mod engines;
mod error;
mod fault;
#[allow(clippy::module_inception, reason = "the GPU itself")]
mod gpu;
mod migrate;
mod mistake;
mod notify;
mod table;

pub use board::GpuBoard;
pub use engine::Engine;
pub use error::GpuError;
pub use gpu::{BulkCommit, Gpu, GpuConfig};
pub use mistake::GpuMistake;
