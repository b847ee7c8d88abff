//! The limits of page tables and of all memory of a machine, and a count of the allocations that
//! were refused.

use crate::sync::{AtomicU64, CachePadded, Mutex};

/// The number of table pages in use, their limit, and refusals of either kind.
#[derive(Debug)]
pub(super) struct Quota {
    pub(super) most: u64,
    /// On lines of its own: every frame that is taken asks for the limit.
    pub(super) tables: CachePadded<AtomicU64>,
    /// The most frames and table pages together; `u64::MAX`: no limit.
    pub(super) limit: AtomicU64,
    /// Held while frames are taken below the limit, and while it is set: threads that take the last
    /// frames at once would exceed it.
    pub(super) charging: Mutex<()>,
    pub(super) no_frame: AtomicU64,
    pub(super) no_table: AtomicU64,
}

/// The number of allocations that failed because the machine had no memory left. Failures on
/// purpose ([`Inject`](super::Inject)) do not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RefusedAllocations {
    /// Refused frames.
    pub frames: u64,
    /// Refused table pages.
    pub tables: u64,
}

impl Default for Quota {
    fn default() -> Self {
        Self {
            most: u64::MAX,
            tables: CachePadded(AtomicU64::new(0)),
            limit: AtomicU64::new(u64::MAX),
            charging: Mutex::new(()),
            no_frame: AtomicU64::new(0),
            no_table: AtomicU64::new(0),
        }
    }
}
