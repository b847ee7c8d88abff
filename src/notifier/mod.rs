//! The invalidation protocol between an address space and its external MMUs.
//!
//! Guarantee: while an invalidation window over a range is open, no registered MMU has a translation of a page in it,
//! and none can establish one.
//!
//! How, in the order of events:
//!
//! 1. The window is written on the **board** of the address space.
//! 2. The **chain** of registered MMUs is read, and each is asked to drop the range. It answers with an `Ack`, which it
//!    can get only by passing its own **gate**: the lock with its shadow entries inside, from which those of the range
//!    are removed on the way.
//! 3. Page-table entries change.
//! 4. The window leaves the board, and those who acknowledged its beginning are told its end.
//!
//! On the other side, an MMU that wants a translation
//!
//! 1. draws a **ticket**, a place on the board where windows that close leave a mark;
//! 2. has the page looked up, which may sleep, fault, and open windows itself; it gets a **pending** frame that cannot
//!    be looked at;
//! 3. takes its gate and has the ticket checked under it: no overlapping window open, none closed since. Only then there
//!    is a **permit**, and only with a permit an entry.
//!
//! Why this is enough: both sides pass the gate. If the establishing side is first, the invalidating side finds the
//! entry and removes it; if it is second, it finds the window on the board, or closed since its ticket.
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
//! Registration in the middle of a window is harmless because the board is written *before* the chain is read: an MMU
//! that the window did not see sees the window. So it waits for no window, and needs no lock once there is a board.
//!
//! An MMU may subscribe to a range only. It is kept in an interval tree, which a window searches for the subscriptions that
//! it overlaps; its tickets carry the number of windows that have ended over its range, and no others make them stale.

mod blocks;
mod board;
mod cached;
mod callees;
mod chain;
mod deferred_unpin;
mod driver;
mod driver_entry;
mod epoch_list;
mod gate;
mod gate_filter;
mod gate_guard;
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
mod registration_phase;
mod removed;
mod seat;
mod shadow_entry;
mod store;
mod subscription;
mod subscriptions;
#[cfg(feature = "testkit")]
pub(crate) mod test_hook;
mod translation;
mod window;

pub use cached::Cached;
pub use chain::Registration;
pub use driver::{
    Ack, AgeKind, Event, ExternalMmu, FirstPass, Invalidation, SecondPass, WouldBlock,
};
pub use gate::{Gate, Invalidated};
pub use gate_guard::GateGuard;
pub use gates::Gates;
pub(crate) use notifiers::Notifiers;
pub(crate) use observer::WindowObserver;
pub use outcome::{Access, Retry};
pub(crate) use permit::Seated;
pub use permit::{Pending, Permit, Ticket};
pub use removed::RemovedEntries;
pub use seat::Seat;
pub use shadow_entry::ShadowEntry;
pub use store::{NoStore, OrderedStore, Rearrange, ShadowStore};
pub(crate) use translation::RegId;
pub use translation::Translation;
pub(crate) use window::OpenWindow;
pub use window::WindowContext;
