//! Guards of the mmap lock, and the rights that holding it gives.
//!
//! Guarantee: only a [`Lease`](super::Lease) opens an invalidation window, and outside of `mm` only
//! the guards of this room give one. So a window is open only while a lock keeps its entries
//! reachable: the mmap lock or claimed pages, for calls and faults; the lock of a reverse map, for
//! the rooms that walk one (`reverse`, `large`), which make their lease themselves.
//!
//! An operation that changes VMAs holds the lock exclusively, for a short time. Before it opens a
//! window or walks over many entries it gives exclusivity up except for its own pages
//! ([`MmapWriteGuard::yield_while`]), so that a driver that sleeps delays only the users of these
//! pages. An operation that only drops pages leaves the lock altogether and claims them
//! ([`MmapSharedClaim`]). Why, and the cost: `docs/adr/0009-the-mmap-lock-has-lanes.md`.
//!
//! | file | holds |
//! | --- | --- |
//! | `shared` | [`MmapReadGuard`]: the lock held shared; `MmapSharedClaim`: pages claimed without the lock |
//! | `exclusive` | [`MmapWriteGuard`]: the lock held exclusively, and how its holder lets others in |

mod exclusive;
mod shared;

pub(in crate::mm) use exclusive::AfterYield;
pub use exclusive::MmapWriteGuard;
pub use shared::MmapReadGuard;
pub(in crate::mm) use shared::MmapSharedClaim;
