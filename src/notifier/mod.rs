//! The invalidation protocol between an address space and its external MMUs.
//!
//! Guarantee: while an invalidation window over a range is open, no registered MMU has a
//! translation of a page in it, but of device memory of its own that the window leaves alone
//! ([`Spared`]), and none can establish one.
//!
//! A window acts in this order:
//!
//! 1. The window is written on the **board** of the address space.
//! 2. The **chain** of registered MMUs is read, and each of them is called to drop the range. An
//!    MMU answers with an [`Ack`], which it gets only by passing its own **gate**: the lock with
//!    its shadow entries inside, from which the gate removes those of the range.
//! 3. Page-table entries change.
//! 4. The window leaves the board, and the MMUs that acknowledged its beginning are notified of its
//!    end.
//!
//! An MMU that wants a translation acts in this order:
//!
//! 1. It draws a **ticket**, a place on the board that records the windows which close over its
//!    page.
//! 2. It has the page looked up, which may sleep, fault, and open windows itself. It gets a
//!    **pending** frame that cannot be read.
//! 3. It locks its gate and has the ticket checked: no overlapping window may be open, and none may
//!    have closed since. Only then it gets a **permit**, and only a permit can make an entry.
//!
//! Both sides pass the gate, and that suffices. If the establishing side comes first, the
//! invalidating side finds the entry and removes it. If the establishing side comes second, it
//! finds the window on the board, or closed since its ticket. A window may pass a gate without its
//! lock if the gate has had no page of its blocks (`gate_filter`).
//!
//! ```text
//! window                         fault of an MMU
//! board: begin
//!                                ticket
//!                                look up -> frame A
//! gate: remove entries
//! entry: A -> B
//! board: end
//!                                gate: check -> stale, try again
//! ```
//!
//! A driver may register in the middle of a window, because the board is written *before* the chain
//! is read: an MMU that the window missed on the chain finds the window on the board. So
//! registration waits for no window, and needs no lock once there is a board.
//!
//! An MMU may subscribe to a range only. An interval tree keeps it, in which a window searches for
//! the subscriptions that it overlaps. Its tickets carry the number of windows that have ended over
//! its range, and only those make them stale.
//!
//! A device that walks the address space's own page table gets no windows. It is a [`SecondaryTlb`]
//! and is flushed right after an entry has changed.
//!
//! The files, from the address space's side down to the ground; an upper one uses lower ones only:
//!
//! | file | holds |
//! | --- | --- |
//! | `debug` | `Debug` of the parts that drivers are made of |
//! | `window` | an open window: it calls the drivers, and notifies them of its end |
//! | `gates` | several gates of one registration, by 2-MiB block |
//! | `range_permit` | pending frames and permits of the pages of a range |
//! | `range_ticket` | the ticket of a range, which is looked up in pieces |
//! | `permit` | pending frame and permit: how a translation is established |
//! | `ticket` | the ticket that a look-up begins with, and the gates that it is drawn from |
//! | `notifiers` | the drivers as an address space has them: register, age, end |
//! | `chain` | the registered drivers, and the end of a registration |
//! | `callees` | the drivers that one window calls |
//! | `subscriptions` | the drivers of ranges, in an interval tree |
//! | `driver_entry` | one registered driver: visits to it, the right to unregister it |
//! | `sparing` | entries that a driver keeps while its range is dropped |
//! | `gate_try` | excluding a range without waiting |
//! | `gate` | the driver's lock, with its store inside |
//! | `gate_guard` | all that a driver may do while it holds its gate |
//! | `gate_filter` | the blocks in which a gate may have entries |
//! | `guarded_store` | the contents of a gate, which are counted |
//! | `deferred_put` | references that are given up after the gate is unlocked |
//! | `cached` | translations outside of a gate: the contents of a TLB |
//! | `seat` | a driver's place on the chain, against which its tickets are checked |
//! | `board` | the windows that are open, and the tickets that are drawn |
//! | `bucket` | those of some blocks: one word, or a list under a lock |
//! | `subscription` | the sequence of one subscribed range |
//! | `registration_phase` | the phase of a registration |
//! | `driver` | the trait that drivers implement, the demand, and the proof |
//! | `reason` | the reason of a window, and the promise of its opener |
//! | `flusher` | the flush that a change of the page table owes, and the proof of it |
//! | `tlb_gate` | the TLB of a device that walks the page table, and the lock that a flush takes |
//! | `tlb_pages` | its pages under the lock, and copies of them for TLBs behind it |
//! | `secondary_tlb` | devices that walk the page table: the trait, their list, registration |
//! | `put_off_panics` | panics in their flushes, which go on when the window ends |
//! | `store` | the trait of a driver's store, and two stores |
//! | `removed`, `shadow_entry` | entries that leave a store; one entry |
//! | `observer` | the interface of an oracle |
//! | `test_hook` | a hook for tests, between a translation and its use |
//! | `outcome` | access, verdict, reason to retry |
//! | `translation` | pages, frames, and the registration that they belong to |
//! | `blocks` | 2-MiB blocks, hashed to buckets |
//! | `epoch_list`, `grace` | a list read without a lock, and the grace period of its removals |
//! | `unregistrations` | the registrations that are ending |
//! | `once_arc` | a shared pointer that is set once |
//! | `models` | loom models of all this |

mod blocks;
mod board;
mod bucket;
mod cached;
mod callees;
mod chain;
mod debug;
mod deferred_put;
mod driver;
mod driver_entry;
mod epoch_list;
mod flusher;
mod gate;
mod gate_filter;
mod gate_guard;
mod gate_try;
mod gates;
mod grace;
mod guarded_store;
#[cfg(all(test, loom))]
pub(crate) mod models;
mod notifiers;
mod observer;
mod once_arc;
mod outcome;
mod permit;
mod put_off_panics;
mod range_permit;
mod range_ticket;
mod reason;
mod registration_phase;
mod removed;
mod seat;
mod secondary_tlb;
mod shadow_entry;
mod sparing;
mod store;
mod subscription;
mod subscriptions;
#[cfg(feature = "testkit")]
pub(crate) mod test_hook;
mod ticket;
mod tlb_gate;
mod tlb_pages;
mod translation;
mod unregistrations;
mod window;

pub(crate) use blocks::{block_of, hash_of};
pub use cached::Cached;
pub use chain::Registration;
pub use driver::{Ack, AgeKind, ExternalMmu, FirstPass, Invalidation, SecondPass, WouldBlock};
pub(crate) use flusher::{Flushed, Flusher};
pub use gate::{Gate, Invalidated};
pub use gate_guard::GateGuard;
pub use gates::Gates;
pub(crate) use notifiers::Notifiers;
pub(crate) use observer::{WindowObserver, name_of_type};
pub use outcome::{Access, Retry};
pub(crate) use permit::PermitOf;
pub use permit::{Pending, Permit};
pub use range_permit::{RangePending, RangePermit, RangeRetry};
pub use range_ticket::{FaultRequest, RangeTicket, Slot};
pub(crate) use reason::Reason;
pub use reason::{Event, Spared};
pub use removed::RemovedEntries;
pub use seat::Seat;
pub(crate) use secondary_tlb::{FlushPanics, SecondaryTlbs, Walked};
pub use secondary_tlb::{SecondaryTlb, TlbRegistration, TlbSeat};
pub use shadow_entry::ShadowEntry;
pub use store::{NoStore, OrderedStore, Rearrange, ShadowStore};
pub use ticket::Ticket;
pub(crate) use ticket::{Admits, Seated};
pub use tlb_gate::TlbGate;
pub use tlb_pages::{TlbEntry, TlbPages};
pub(crate) use translation::RegId;
pub use translation::Translation;
pub(crate) use window::OpenWindow;
pub use window::WindowContext;
