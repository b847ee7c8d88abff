//! A Linux-like address space in user space, and a chain of notifiers that keeps *external MMUs* coherent with it.
//!
//! An external MMU is anything that caches virtual-to-physical translations outside the page tables: KVM's shadow
//! entries, the TLBs of a GRU, the remote entries of XPmem, an IOTLB, a GPU. The idea is that of the "EMMU notifiers
//! V5" proposal (Christoph Lameter, 2008); the behaviour is that of Linux 6.18.
//!
//! # The model
//!
//! A [`Machine`] has physical memory ([`frame`]) and an epoch; a thread that [enters](Machine::enter) it gets the root
//! of its tokens ([`ctx::Cx`]). An [`Mm`] is an address space on a machine: VMAs, a page table, faults. External MMUs
//! implement [`notifier::ExternalMmu`] and are [registered](mm::MmapWriteGuard::register) on it.
//!
//! ```text
//! VMA: page -> rights, object and offset       mm     (mmap lock)
//! pte: page -> frame                           mm     (lock of its leaf; lock-free to read)
//! frame -> owner and page offset               frame  (lock of the frame)
//! owner, page offset -> VMAs, so pages         rmap   (lock of the owner's tree)
//! object: page offset -> frame, swap, store    file   (the object's own)
//! shadow entry: key -> frame                   driver (its gate)
//! ```
//!
//! # What is guaranteed, and how
//!
//! | guarantee | by |
//! | --- | --- |
//! | an entry is cleared, downgraded or replaced only inside a window over it | type: [`mm::PteSlot`] |
//! | a window exists only after every registered MMU dropped the range | type: [`notifier::Ack`] |
//! | … through its own gate | run-time check, panic |
//! | the end of a window goes to exactly those who agreed to its beginning, once | type: a window is a value |
//! | a frame is readable only after validation under the driver's lock | type: [`notifier::Permit`] |
//! | … and the validation sees every overlapping window, open or closed since | run-time check, [`notifier::Retry`] |
//! | nothing that may sleep is reached from an atomic context; locks are taken in order | type: [`ctx::Cx`] |
//! | registration and unregistration hold the mmap lock exclusively | type: [`mm::MmapWriteGuard`] |
//! | nobody is called after his unregistration returned; `release` comes exactly once | run-time, by construction |
//! | a frame that was given back is not looked at | run-time check in [`frame::FrameView`], panic |
//! | a page of an object that was cut off is mapped nowhere | by construction: faults map a page under its lock |
//! | reverse maps lead to every mapping, also while it moves | by construction; [`Mm::unreachable_pages`] checks |
//! | the protocol holds in every interleaving of small models | test: loom, see `docs/evidence.md` |
//! | results, layouts, page tables and windows are Linux's | test: recorded scripts, see the `replay` feature |
//!
//! # Lock order
//!
//! ```text
//! Mmap      the mmap lock of an address space
//!   Folio     the lock of a frame
//!     Rmap      the lock of a reverse map
//!       Window    an invalidation window: no lock, but a place in the order
//!         Ptl       the lock of a leaf table; nothing sleeps below it
//!           Callback  inside a driver's callback
//!             Gate      a driver's gate
//! ```
//!
//! Two leaves are locked in the order of their addresses. `fork` holds one mmap lock only, since nobody knows the child
//! before it is done. Locks of single structures (the board, the frame list, the
//! lists of reclaim, swap, a directory of tables, an object's pages)
//! are leaves of this order: nothing is taken under them.
//!
//! # Unsafe code
//!
//! Denied but in three files: `mm/page_table/node.rs` (table pages and the pointers between them), `mm/mmap_lock.rs` (a
//! lock that readers on different processors take without meeting) and `notifier/epoch_list.rs` (the chain). Under a
//! model checker `sync/checked.rs` has one line more.
#![deny(unsafe_code)]

pub mod addr;
pub mod ctx;
pub mod error;
pub mod extmmu;
pub mod file;
pub mod frame;
mod interval;
pub mod mm;
pub mod notifier;
pub mod oracle;
pub mod reclaim;
#[cfg(feature = "replay")]
pub mod replay;
pub mod rmap;
mod sync;
#[cfg(feature = "testkit")]
pub mod testkit;

pub use addr::{PAGE_SIZE, TASK_SIZE};
pub use error::{Errno, FaultError, Signal};
pub use frame::{Contents, MemConfig, Overcommit};
pub use mm::{Machine, MachineConfig, Mm};

/// The examples of the README compile and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
