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
//! The author of a driver begins with [`driver`], which has all of it in one import.
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
//! | … and of a page above the address space there is none, whoever asks | by construction: one way down the page table | `addresses` |
//! | a window exists only after every MMU registered over it dropped the range | type: [`notifier::Ack`] | `ui/ii14`–`ii17` |
//! | … through its own gate | run-time check, panic | `protocol` |
//! | … also if it began in a first pass: the second is handed the demand again | type: [`notifier::SecondPass`] | `ui/ii31`–`ii34`, `two_pass` |
//! | the end of a window goes to exactly those who agreed to its beginning, once | type: a window is a value | `ui/i15`, `protocol`, `interval` |
//! | … also when one of them panics | by construction: guards | `panics` |
//! | a frame is readable only after validation under the driver's lock | type: [`notifier::Permit`] | `ui/ii01`–`ii13` |
//! | … and the validation sees every overlapping window, open or closed since | run-time check, [`notifier::Retry`] | `protocol` |
//! | … of a driver of a range: every window over that range, and no other | run-time check, [`notifier::Retry`] | `interval` |
//! | … and all that such a driver could use is in its store | not at all; [`oracle::Oracle`] finds it | |
//! | a translation copied for a TLB is dropped when its driver is asked to | not at all; [`oracle::Oracle`] finds it | `kvm`, `gru`, `xpmem` |
//! | … and one taken by [`notifier::Pending::vouch`] was still current | not at all; [`oracle::Oracle`] finds it | `gru` |
//! | what leaves a gate does not come back, to it or to another: a driver only looks at its store | type: [`notifier::GateGuard::store`], [`notifier::RemovedEntries`] | `ui/ii24`, `ii35`–`ii48` |
//! | … and where the store itself keeps it: no more entries come back than went in, and each is of this registration | run-time check, panic | `stores` |
//! | … it forgets what it is told to forget, hands all of that back, and shows whatever it gives for a key | run-time check with debug assertions, panic | `stores` |
//! | … a reference that goes with an entry is given up once, or its loss is reported | run-time check in [`notifier::ShadowEntry`], panic | `stores` |
//! | a translation copied for a TLB is followed by the gate of its registration alone | run-time check, `None` | `stores` |
//! | nothing that may sleep is reached from an atomic context | type: [`ctx::Context`] | `ui/iii*` |
//! | locks are taken in the order below | type: [`ctx::Rank`] | `ui/iii14`–`iii17` |
//! | … no operation holds two mmap locks, copies between address spaces included | type: [`ctx::Rank`] | `copies` |
//! | a driver's own locks, and what it waits for, are in that order | not at all | |
//! | the library blocks nowhere but where a token allows it | lint: `disallowed_methods` in `clippy.toml` | |
//! | a callback does not re-enter the address space | type: [`ctx::rank::Callback`] | `ui/iii16`, `iii20` |
//! | whoever waits for windows to end, as unregistration does, is in none, and in no callback | type: [`ctx::Outside`] | `ui/iii19`, `iii25`, `iii26`, `iv02` |
//! | … and the window ends: if it was forgotten, neither an unregistration nor an exit returns | not at all: use [`mm::Lease::with_window`]; [`Mm::open_windows`] names it | `registering` |
//! | a driver has a gate for its seat, and is on one chain at a time | run-time check, [`error::RegisterError`] | `registering` |
//! | a driver is unregistered at most once | type: [`notifier::Registration`] is a value | `ui/iv04` |
//! | after a panic of a driver or an object what was begun is done or undone: layouts, entries, reverse maps and accounts agree, and everything can go on and end | by construction: guards | `panics` |
//! | nobody is called after his unregistration returned; `release` is last, exactly once, also when it races with exit | by construction | `interval`, `protocol` |
//! | a driver's memory is freed only after every walker has left | by construction: visits, calls, [`ctx::Epoch`] | `interval`, `sleeping`, Miri |
//! | a callback that sleeps holds up its own window: no other range, registration or epoch | by construction | `sleeping` |
//! | … a sleeping window of an operation: no fault on other pages, and no operation on other mappings | by construction: claims, pins | `giving_way`, loom |
//! | … one that a caller opens under [`Mm::lock_shared`] or [`Mm::lock_exclusive`], or of `fork`: no call that needs that lock | not at all, as in Linux | |
//! | faults on different pages write to no common line of the mmap lock, and wait for no operation on other pages | by construction | `giving_way`, `benches/scaling.rs` |
//! | a frame that was given back is not looked at, be it part of a huge page or not | run-time check in [`frame::FrameView`], panic | `protocol`, `stores` |
//! | a partition in another process reaches what was exported to it and no other memory, and writes there what it may write | by construction: memory of each segment, sealed where it may only be read | `remote_attacks` |
//! | … and loses a page before the window over it goes on, whatever it answers, and whoever else has its memory mapped | by construction: the bytes leave that memory | `remote_attacks` |
//! | … and neither stops the owner by what it asks, nor has more than it may have | run-time check, [`Limit`](extmmu::xpmem::XpmemError::Limit), [`Breach`](extmmu::xpmem::Breach) | `remote_limits` |
//! | a frame is given out with nothing but zeros in it, also if others still write where it was lent | by construction | `frame::lent`, `remote_attacks` |
//! | a driver that has a frame by number is told before it is freed, whatever takes its last mapping | by construction: it is kept until then | `exports`, shuttle |
//! | a page of an object that was cut off is mapped nowhere | by construction: faults map a page under its lock | `files`, `fork_race` |
//! | … and is read back by nobody before its block is gone | by construction: [`file::Filling`], [`file::Cutting`] | `file_races`, shuttle |
//! | an operation on a file that fails has changed neither size nor contents | by construction: what can fail comes first | `file_failures` |
//! | a fork that shares tables ([`mm::ForkMode`]) comes out as one that copies them | by construction: only a table of one's own can be locked | `fork_shared` |
//! | … counts of frames as well, read by number | after [`Machine::settle_counts`], which [`Mm::pagemap`] calls | `fork_shared` |
//! | reverse maps lead to every mapping, also while it moves | by construction; [`Mm::unreachable_pages`] checks | `memory`, `model` |
//! | a page that is on its way or in swap comes back with what its entry says by then: to whom it belongs, rights, age, dirtiness | by construction: the frame remembers nothing of it | `not_present`, `entries`, `docs/entries.md` |
//! | an operation on any range ends when frames or page tables are used up: an error, nothing lost | by construction: [`mm::MachineConfig::page_tables`] | `exhaustion` |
//! | no input makes a replay panic, or run or grow without end | run-time check, `replay::Limits` | `bad_input`, `fuzz` |
//! | the protocol holds in every interleaving of small models | test: loom | `docs/evidence.md` |
//! | an address, a length, an index or a setting, whatever its 64 bits, gets its answer or an error | test: drawn numbers | `addresses`, `any_number`, `device_numbers` |
//! | results, layouts, page tables and windows are Linux's | test: recorded scripts, see the `replay` feature | `replay`, `kinds`, `rules`, `programs` |
//!
//! The names in the last column are files of `tests/`, and modules with tests of their own.
//!
//! # Lock order
//!
//! ```text
//! Mmap      the mmap lock of an address space
//!   Cache     what keeps pages from coming into an object, or from being cut out of it
//!     Folio     the lock of a frame
//!       Rmap      the lock of a reverse map
//!         Window    an invalidation window: no lock, but a place in the order
//!           Ptl       the lock of a leaf table; nothing sleeps below it
//!             Callback  inside a driver's callback
//!               Gate      a driver's gate
//! ```
//!
//! Two leaves are locked in the order of their addresses. Nobody holds two mmap locks: a copy between address spaces takes
//! them one after the other.
//! `fork` locks a leaf of the parent before that of the child: who finds the child's meanwhile, by a reverse map, holds
//! no other. A leaf that address spaces share has one lock; who copies it locks no other, since nobody knows the new one.
//! `fork` holds one mmap lock only, since nobody has the child before it is done. Locks of single structures (the board,
//! the frame list, the lists of reclaim, swap, a directory of tables, an object's pages, the forks of a machine) are leaves
//! of this order: nothing is taken under them. No store is read or written under them either, but with a page's lock held,
//! and a read with `Cache`, so that an object is not cut while a page of it is read. What an XPmem owner has lent to other
//! processes is one too, but for the contents of frames, which are moved under its lock.
//!
//! # Unsafe code
//!
//! Denied but in eight files: `mm/page_table/node.rs` (table pages and the pointers between them), `mm/lock/mod.rs` and
//! `sync/sharded_rwlock.rs` (locks that readers on different processors take without meeting), `notifier/epoch_list.rs`,
//! `grace.rs` and `once_arc.rs` (the chain), with the
//! `remote` feature `frame/shared.rs` (memory that other processes map), and with the `host` feature `host/executor.rs`
//! (a process that is recorded). Under a model checker `sync/checked.rs` has one line more.
#![deny(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

pub mod addr;
pub mod ctx;
#[cfg(test)]
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

pub use addr::{PAGE_SIZE, TASK_SIZE};
pub use error::{Errno, FaultError, Signal};
pub use frame::{Contents, MemConfig, Overcommit};
pub use mm::{Machine, MachineConfig, Mm};

/// The examples of the README compile and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
