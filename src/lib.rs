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
//! | guarantee | by | shown in |
//! | --- | --- | --- |
//! | an entry is cleared, downgraded or replaced only inside a window over it | type: [`mm::PteSlot`] | `ui/i*` |
//! | a window exists only after every MMU registered over it dropped the range | type: [`notifier::Ack`] | `ui/ii14`–`ii17` |
//! | … through its own gate | run-time check, panic | `protocol` |
//! | … also if it began in a first pass: the second is handed the demand again | type: [`notifier::Finish`] | `ui/ii31`–`ii34`, `two_pass` |
//! | the end of a window goes to exactly those who agreed to its beginning, once | type: a window is a value | `ui/i15`, `protocol`, `interval` |
//! | a frame is readable only after validation under the driver's lock | type: [`notifier::Permit`] | `ui/ii01`–`ii13` |
//! | … and the validation sees every overlapping window, open or closed since | run-time check, [`notifier::Retry`] | `protocol` |
//! | … of a driver of a range: every window over that range, and no other | run-time check, [`notifier::Retry`] | `interval` |
//! | … and all that such a driver could use is in its store | not at all; [`oracle::Oracle`] finds it | |
//! | a translation copied for a TLB is dropped when its driver is asked to | not at all; [`oracle::Oracle`] finds it | `kvm`, `gru`, `xpmem` |
//! | … and one taken by [`notifier::Pending::vouch`] was still current | not at all; [`oracle::Oracle`] finds it | `gru` |
//! | a store forgets the range that it is asked to forget | run-time check with debug assertions, panic | |
//! | nothing that may sleep is reached from an atomic context | type: [`ctx::Context`] | `ui/iii*` |
//! | locks are taken in the order below | type: [`ctx::Rank`] | `ui/iii14`–`iii17` |
//! | … two mmap locks by address: [`Mm::read_with`] is the one way to hold two | by construction | `tests/pair` |
//! | a driver's own locks, and what it waits for, are in that order | not at all | |
//! | the library blocks nowhere but where a token allows it | lint: `disallowed_methods` in `clippy.toml` | |
//! | a callback does not re-enter the address space | type: [`ctx::rank::Callback`] | `ui/iii16`, `iii20` |
//! | unregistration is not called from a window or a callback, which it waits for | type: [`ctx::Outside`] | `ui/iii19`, `iv02` |
//! | a driver is unregistered at most once | type: [`notifier::Registration`] is a value | `ui/iv04` |
//! | nobody is called after his unregistration returned; `release` is last, exactly once, also when it races with exit | by construction | `interval`, `protocol` |
//! | a driver's memory is freed only after every walker has left | by construction: visits, calls, [`ctx::Epoch`] | `interval`, `sleeping`, Miri |
//! | a callback that sleeps holds up its own window: no other range, registration or epoch | by construction | `sleeping` |
//! | … a sleeping window of an operation: no fault on other pages, and no operation on other mappings | by construction: claims, pins | `giving_way`, loom |
//! | … one that a caller opens under [`Mm::read`] or [`Mm::write`], or of `fork`: no call that needs that lock | not at all, as in Linux | |
//! | faults on different pages write to no common line of the mmap lock, and wait for no operation on other pages | by construction | `giving_way`, `benches/scaling.rs` |
//! | a frame that was given back is not looked at | run-time check in [`frame::FrameView`], panic | `protocol` |
//! | a partition in another process loses a page before it is given back, or its process is ended first | run-time, by construction | `remote` |
//! | a page of an object that was cut off is mapped nowhere | by construction: faults map a page under its lock | `files`, `fork_race` |
//! | a fork that shares tables ([`mm::ForkMode`]) comes out as one that copies them | by construction: only a table of one's own can be locked | `fork_shared` |
//! | … counts of frames as well, read by number | after [`Machine::settle_counts`], which [`Mm::pagemap`] calls | `fork_shared` |
//! | reverse maps lead to every mapping, also while it moves | by construction; [`Mm::unreachable_pages`] checks | `memory`, `model` |
//! | an operation on any range ends when frames or page tables are used up: an error, nothing lost | by construction: [`mm::MachineConfig::page_tables`] | `exhaustion` |
//! | no input makes a replay panic, or run or grow without end | run-time check, `replay::Limits` | `bad_input`, `fuzz` |
//! | the protocol holds in every interleaving of small models | test: loom | `docs/evidence.md` |
//! | results, layouts, page tables and windows are Linux's | test: recorded scripts, see the `replay` feature | `replay`, `programs` |
//!
//! The names in the last column are files of `tests/`, and modules with tests of their own.
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
//! Two leaves are locked in the order of their addresses, and so are two mmap locks, which only [`Mm::read_with`] takes.
//! `fork` locks a leaf of the parent before that of the child: who finds the child's meanwhile, by a reverse map, holds
//! no other. A leaf that address spaces share has one lock; who copies it locks no other, since nobody knows the new one.
//! `fork` holds one mmap lock only, since nobody has the child before it is done. Locks of single structures (the board,
//! the frame list, the lists of reclaim, swap, a directory of tables, an object's pages, the forks of a machine) are leaves
//! of this order: nothing is taken under them.
//!
//! # Unsafe code
//!
//! Denied but in eight files: `mm/page_table/node.rs` (table pages and the pointers between them), `mm/mmap_lock.rs` and
//! `sync/lane_lock.rs` (locks that readers on different processors take without meeting), `notifier/epoch_list.rs`,
//! `calls.rs` and `lazy.rs` (the chain), with the
//! `remote` feature `frame/shared.rs` (memory that other processes map), and with the `host` feature `host/executor.rs`
//! (a process that is recorded). Under a model checker `sync/checked.rs` has one line more.
#![deny(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

pub mod addr;
pub mod ctx;
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

pub use addr::{PAGE_SIZE, TASK_SIZE};
pub use error::{Errno, FaultError, Signal};
pub use frame::{Contents, MemConfig, Overcommit};
pub use mm::{Machine, MachineConfig, Mm};

/// The examples of the README compile and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
