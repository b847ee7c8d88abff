//! How much memory has been promised: Linux's `vm_committed_as` and the overcommit modes.

use crate::sync::{AtomicI64, Ordering, Sharded};

/// `vm.overcommit_memory`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overcommit {
    /// 0: refuse only what exceeds all memory at once.
    #[default]
    Heuristic,
    /// 1: refuse nothing.
    Always,
    /// 2: never promise more than this many pages.
    Never {
        /// `CommitLimit`, in pages.
        limit: u64,
    },
}

/// The account of promised pages of one machine.
#[derive(Debug)]
pub struct Commit {
    mode: Overcommit,
    total: u64,
    /// By groups of threads; the sum counts.
    pages: Sharded<AtomicI64>,
}

impl Commit {
    /// An empty account; `total` is what the machine has, memory and swap, in pages.
    pub(crate) fn new(mode: Overcommit, total: u64) -> Self {
        Self {
            mode,
            total,
            pages: Sharded::new(),
        }
    }
    /// The mode.
    pub fn mode(&self) -> Overcommit {
        self.mode
    }
    /// Pages promised now. Single charges are exact; during concurrent charges this may run ahead of the rule.
    pub fn pages(&self) -> i64 {
        let lanes = self.pages.iter();
        lanes.map(|lane| lane.load(Ordering::SeqCst)).sum()
    }
    /// Promises `pages` more (`__vm_enough_memory`); `false`, with nothing charged, where the mode refuses.
    pub(crate) fn charge(&self, pages: u64) -> bool {
        let Ok(more) = i64::try_from(pages) else {
            return false;
        };
        // Sequentially consistent, as is the sum: of two that race for the last page, one at least sees the other.
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
    /// Promises `pages` more whatever the rule says (`vm_acct_memory`).
    pub(crate) fn force(&self, pages: u64) {
        let more = i64::try_from(pages).expect("no mapping has 2^63 pages");
        self.pages.mine().fetch_add(more, Ordering::SeqCst);
    }
    /// Takes a promise back.
    pub(crate) fn uncharge(&self, pages: u64) {
        let less = i64::try_from(pages).expect("only what was charged is given back");
        self.pages.mine().fetch_sub(less, Ordering::SeqCst);
    }
}
