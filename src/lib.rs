//! A Linux-like address space in user space that keeps *external MMUs* coherent with it.
//!
//! # The problem
//!
//! A device that translates virtual addresses by itself — KVM's shadow entries, the TLBs of a GRU,
//! the remote entries of XPmem, an IOTLB, a GPU — holds copies of page-table entries. When the
//! kernel unmaps, copies or moves a page, each copy must be gone before the frame gets another
//! use. Linux solves this with MMU notifiers: every change happens inside an *invalidation
//! window*, and each driver drops its translations when the window begins.
//!
//! This crate is that mechanism with the rules as types. It follows the "EMMU notifiers V5"
//! proposal (Christoph Lameter, 2008) and behaves as Linux 6.18 does: same results, same errors,
//! same page tables, same windows. Only the choice of pages for reclaim may differ.
//!
//! # The picture
//!
//! ```text
//!   VMA: page -> rights, object, offset     mm      guarded by the mmap lock
//!    |
//!   entry: page -> frame                    mm      lock of its leaf table; read without a lock
//!    |
//!   frame -> owner, page offset             frame   lock of the frame
//!    |
//!   owner, page offset -> VMAs              rmap    lock of the owner's tree
//!    |
//!   object: page offset -> frame or swap    file    lock of the object
//!
//!   shadow entry: key -> frame              driver  the driver's gate
//!
//!          begin window          change entries           end window
//!   mm ------+---------------------------------------------+----------> time
//!            |  each driver drops the range and answers    |  look-ups of these pages
//!            v  with an Ack                                v  succeed again
//!   driver --+---------------------------------------------+---------->
//! ```
//!
//! # Twenty lines
//!
//! ```
//! use emmu::{Machine, MachineConfig, Mm, extmmu::Recorder, mm::MmapArgs};
//!
//! let machine = Machine::new(MachineConfig::default());
//! let mut thread = machine.enter()?;
//! let mut cx = thread.cx();
//!
//! let parent = Mm::new(&machine);
//! let (mmu, registration) = parent.register(&mut cx, Recorder::new);
//!
//! let at = parent.mmap(&mut cx, &MmapArgs::anonymous(16 << 10))?;
//! parent.store(&mut cx, at, 1)?;
//! let child = parent.fork(&mut cx)?; // window: the entries become read-only
//! parent.store(&mut cx, at, 2)?; // window: one page is copied
//! assert_eq!(child.load(&mut cx, at)?, 1);
//! assert_eq!(mmu.take().len(), 2);
//!
//! parent.unregister(&mut cx, registration);
//! child.exit(&mut cx);
//! parent.exit(&mut cx);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Vocabulary
//!
//! A [`Machine`] owns physical memory. A thread that [enters](Machine::enter) it gets a *token*
//! ([`ctx::Cx`]): it says which locks the thread may still take and whether it may sleep. An
//! [`Mm`] is an address space: a process. A *driver* implements [`notifier::ExternalMmu`] and is
//! [registered](Mm::register) on address spaces; its translations lie in a *store* behind its
//! *gate*. A look-up draws a *ticket*, asks [`Mm::resolve`], and is *admitted* at the gate: only
//! then a [`notifier::Permit`] gives access to the frame. [`glossary`] explains every word.
//!
//! | to | start at |
//! | --- | --- |
//! | map, fault, fork, copy, discard memory | [`Mm`], [`mm`] |
//! | write a driver | [`driver`], [`notifier`] |
//! | read the shipped models: KVM, GRU, XPmem, iommufd, a GPU, RDMA on demand, SVA, a registration cache | [`extmmu`] |
//! | back memory by an object of your own | [`file::MemoryObject`] |
//! | check a driver | `testkit`, with that feature |
//! | watch coherence at run time | [`oracle::Oracle`] |
//! | replay recorded scripts and programs | `replay`, with that feature |
//! | know which rule holds how | [`guarantees`] |
//!
//! # Lock order
//!
//! A token has a rank; each lock moves it down this list. One way leads up: in its
//! window, an operation may lock reverse maps if it has locked none. It does so when it gives up
//! part of a huge page, and to keep walks of reverse maps out while `mremap` or a collapse moves
//! entries.
//!
//! ```text
//! Mmap      the mmap lock of an address space
//!   Cache     filling an object and cutting it exclude each other
//!     Folio     the lock of a frame
//!       Rmap      the lock of a reverse map
//!         Window    an invalidation window: no lock, but a place in the order
//!           Ptl       the lock of a leaf table; its holder does not sleep
//!           Callback  inside a callback of a driver; no leaf table is locked then, but in a flush
//!                     of a secondary TLB
//!             Gate      the gate of a driver
//! ```
//!
//! * A thread holds one mmap lock at a time. A copy between two address spaces takes one after the
//!   other. `fork` locks the child's layout as well, which no other thread has yet.
//! * Two leaf tables are locked in the order of their addresses. `fork` locks the parent's leaf
//!   before the child's: a reverse map that finds the child's leaf meanwhile holds no other. A leaf
//!   that address spaces share has one lock; the copy of it is new and unknown to others.
//! * Locks of single structures (the board, the frame list, reclaim's lists, swap, a directory
//!   of tables, an object's pages, the forks of a machine) are leaves of this order: no lock of
//!   another structure is taken under them, and no store of an object is read or written. A
//!   store is read under `Cache` and the page's lock, so that a cut waits until the page is
//!   complete. The lock over frames that an XPmem owner lent is a leaf as well, except that it
//!   moves the contents of frames.
//!
//! # Unsafe code
//!
//! Denied except in the modules below; each block states its reason.
//!
//! | module | what its unsafe code does |
//! | --- | --- |
//! | `mm/page_table/node.rs` | table pages and the pointers between them |
//! | `mm/lock/mod.rs`, `sync/sharded_rwlock.rs` | locks that readers on different processors take without a common line |
//! | `sync/spin_lock.rs` | the lock of a device's TLB, one locked operation |
//! | `notifier/epoch_list.rs`, `notifier/grace.rs`, `notifier/once_arc.rs` | the chain of drivers |
//! | `frame/atomic_bytes.rs` | words of memory that other code accesses at the same time |
//! | `frame/shared.rs` (features `remote`, `host-mapping`) | memory that is mapped more than once |
//! | `extmmu/host_mapping/area.rs`, `extmmu/host_mapping/userfault.rs` (feature `host-mapping`) | mappings of the host, and reports of touches |
//! | `extmmu/host_mapping/guest.rs` (with feature `vm-memory`) | slices of such mappings |
//! | `extmmu/vm_memory.rs` (feature `vm-memory`) | slices of pages that are held |
//! | `extmmu/iommu/leased_memory.rs` (feature `vm-memory`) | slices of pages that are leased |
//! | `extmmu/vhost_iotlb/frame_memory.rs` (feature `vm-memory`) | slices of frames that a back-end maps |
//! | `host/executor.rs`, `host/access.rs`, `host/held.rs`, `host/own_calls.rs` (feature `host`) | the process that is recorded |
//! | `host/raw.rs` (feature `host`) | system calls of the recorder |
//! | `sync/checked.rs` (under a model checker) | one call of the checker |
#![deny(unsafe_code)]
#![warn(missing_debug_implementations)]
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

pub mod addr;
pub mod ctx;
#[cfg(all(test, not(loom)))]
#[path = "../tests/common/drawn.rs"]
mod drawn;
pub mod driver;
pub mod error;
pub mod extmmu;
pub mod file;
pub mod frame;
#[cfg(all(feature = "host", target_os = "linux", target_arch = "x86_64"))]
#[allow(
    clippy::disallowed_methods,
    reason = "it waits for processes, outside of any model"
)]
pub mod host;
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
#[allow(clippy::disallowed_methods, reason = "its threads are users")]
pub mod testkit;
mod trace;

pub use addr::{PAGE_SIZE, TASK_SIZE};
pub use error::{Errno, FaultError, Signal};
pub use frame::{Contents, HugePool, HugePoolConfig, HugeSize, MemConfig, Overcommit};
pub use mm::{Machine, MachineConfig, Mm};

/// Guarantees: how each one holds, and the test that shows it.
#[cfg(doc)]
#[doc = include_str!("../docs/guarantees.md")]
pub mod guarantees {}
/// The words of this crate that have a meaning of their own.
#[cfg(doc)]
#[doc = include_str!("../docs/glossary.md")]
pub mod glossary {}

/// The examples of the README compile and run.
#[cfg(all(doctest, feature = "testkit"))]
#[doc = include_str!("../README.md")]
struct Readme;
