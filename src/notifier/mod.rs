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

mod asked;
mod board;
mod cached;
mod calls;
mod chain;
mod entry;
mod epoch_list;
mod gate;
mod gates;
mod gone;
#[cfg(feature = "testkit")]
pub(crate) mod hook;
mod inner;
mod intervals;
mod lazy;
#[cfg(all(test, loom))]
pub(crate) mod models;
mod ops;
mod owed;
mod permit;
mod places;
mod seat;
mod store;
mod subscription;
mod watch;
mod window;

pub use cached::{Cached, Translation};
pub(crate) use chain::Notifiers;
pub use chain::Registration;
pub(crate) use entry::RegId;
pub use gate::{Gate, GateGuard, Invalidated};
pub use gates::Gates;
pub use gone::RemovedEntries;
pub use ops::{Ack, AgeKind, Event, ExternalMmu, FirstPass, Invalidation, SecondPass, WouldBlock};
pub(crate) use permit::Seated;
pub use permit::{Access, Pending, Permit, Retry, Ticket};
pub use seat::Seat;
pub use store::{NoStore, OrderedStore, Rearrange, ShadowEntry, ShadowStore};
pub(crate) use watch::WindowWatch;
pub(crate) use window::OpenWindow;
pub use window::WindowContext;
