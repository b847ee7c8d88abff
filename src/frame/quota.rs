//! Page tables are made of memory too: how many a machine may have, and what was refused because no more was there.

use crate::sync::AtomicU64;

/// Table pages in use, the most there may be, and refusals.
#[derive(Debug)]
pub(super) struct Quota {
    pub(super) most: u64,
    pub(super) tables: AtomicU64,
    pub(super) no_frame: AtomicU64,
    pub(super) no_table: AtomicU64,
}

/// How often a machine had no more memory to give. What was made to fail ([`Inject`](super::Inject)) does not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refused {
    /// Frames.
    pub frames: u64,
    /// Table pages.
    pub tables: u64,
}

impl Default for Quota {
    fn default() -> Self {
        Self {
            most: u64::MAX,
            tables: AtomicU64::new(0),
            no_frame: AtomicU64::new(0),
            no_table: AtomicU64::new(0),
        }
    }
}
