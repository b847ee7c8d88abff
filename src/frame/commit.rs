//! Committed memory: the pages that a machine has promised, and the overcommit modes that limit
//! them (`vm_committed_as`).

use crate::sync::{AtomicI64, Ordering, Sharded};

/// The overcommit mode of a machine: `vm.overcommit_memory`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Overcommit {
    /// Mode 0: refuses only a charge that exceeds all memory at once.
    #[default]
    Heuristic,
    /// Mode 1: refuses nothing.
    Always,
    /// Mode 2: never promises more than `limit` pages.
    Never {
        /// The limit in pages: `CommitLimit`.
        limit: u64,
    },
}

/// The account of promised pages of one machine.
#[derive(Debug)]
pub struct Commit {
    mode: Overcommit,
    total: u64,
    /// Charged pages by group of threads; a single part may be negative, only the sum counts.
    pages: Sharded<AtomicI64>,
}

impl Commit {
    /// Returns an empty account of a machine that has `total` pages of memory and swap.
    pub(crate) fn new(mode: Overcommit, total: u64) -> Self {
        Self {
            mode,
            total,
            pages: Sharded::new(),
        }
    }
    /// Returns the overcommit mode.
    pub fn mode(&self) -> Overcommit {
        self.mode
    }
    /// Returns the number of pages promised now. Single charges are exact; during concurrent
    /// charges the number may exceed the limit for a moment.
    pub fn pages(&self) -> i64 {
        let lanes = self.pages.iter();
        lanes.map(|lane| lane.load(Ordering::SeqCst)).sum()
    }
    /// Promises `pages` more (`__vm_enough_memory`). Returns false, with nothing charged, if the
    /// mode refuses.
    #[inline]
    pub(crate) fn charge(&self, pages: u64) -> bool {
        let Ok(more) = i64::try_from(pages) else {
            return false;
        };
        // SeqCst, as is the sum: of two charges that race for the last page, at least one sees the
        // other and is refused. Charging first and taking back may refuse both; it never admits
        // both.
        let lane = self.pages.mine();
        lane.fetch_add(more, Ordering::SeqCst);
        let fits = match self.mode {
            Overcommit::Always => true,
            Overcommit::Heuristic => pages <= self.total,
            Overcommit::Never { limit } => self.pages() < i64::try_from(limit).unwrap_or(i64::MAX),
        };
        if !fits {
            lane.fetch_sub(more, Ordering::SeqCst);
        }
        fits
    }
    /// Promises `pages` more, even if the mode would refuse (`vm_acct_memory`).
    pub(crate) fn force(&self, pages: u64) {
        let more = i64::try_from(pages).expect("no mapping has 2^63 pages");
        self.pages.mine().fetch_add(more, Ordering::SeqCst);
    }
    /// Takes a promise of `pages` back.
    #[inline]
    pub(crate) fn uncharge(&self, pages: u64) {
        let less = i64::try_from(pages).expect("only what was charged is given back");
        self.pages.mine().fetch_sub(less, Ordering::SeqCst);
    }
}
