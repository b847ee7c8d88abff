//! The drivers that are registered on ranges, in an interval tree: a window calls those that it
//! overlaps.
//!
//! Linux freezes its tree while windows are open, and defers insertions and removals
//! (`mn_itree_inv_start_range`). Here the tree is locked for the search alone, since a visit keeps
//! each driver that was found: a window that sleeps delays no insertion, and no removal of other
//! drivers. The purpose of Linux's rule is served all the same. A subscription that is inserted
//! under a window which missed it gives no permit before that window has ended, and a removal waits
//! for the windows that found the driver.

use super::{
    driver_entry::{DriverEntry, Visit},
    translation::RegId,
};
use crate::{
    addr::VpnRange,
    interval::{IntervalTree, Key},
    sync::{AtomicBool, Ordering, ShardedRwLock},
};
use smallvec::SmallVec;
use std::sync::Arc;

/// The subscriptions of one address space.
pub(super) struct Subscriptions {
    tree: ShardedRwLock<IntervalTree<Arc<DriverEntry>>>,
    /// Set when a driver has subscribed: windows search the tree only then.
    used: AtomicBool,
}

fn key(range: VpnRange, reg: RegId) -> Key {
    Key {
        start: range.start().0,
        seq: reg.0,
    }
}

impl Default for Subscriptions {
    fn default() -> Self {
        Self {
            tree: ShardedRwLock::new(IntervalTree::new()),
            used: AtomicBool::new(false),
        }
    }
}

impl Subscriptions {
    /// Inserts a driver; windows that begin after this find it.
    ///
    /// The flag is set before the driver first looks at the board, and a window reads it after it
    /// is on the board. So the driver finds a window that missed the flag on the board.
    pub(super) fn insert(&self, range: VpnRange, entry: &Arc<DriverEntry>) {
        let (key, value) = (key(range, entry.reg), Arc::clone(entry));
        self.tree.write(|tree| {
            tree.insert(key, range.end().0, value);
            self.used.store(true, Ordering::Release);
        });
    }
    pub(super) fn remove(&self, range: VpnRange, reg: RegId) {
        // Dropped after the lock: it may be the last reference on its driver.
        let _gone = self.tree.write(|tree| tree.remove(key(range, reg)));
    }
    /// Calls `begin` for each driver whose range overlaps `range`, and adds the visits to `out`.
    #[inline(always)]
    pub(super) fn visit<const N: usize>(
        &self,
        range: VpnRange,
        begin: impl Fn(&Arc<DriverEntry>) -> Option<Visit>,
        out: &mut SmallVec<[Visit; N]>,
    ) {
        if self.used.load(Ordering::Acquire) {
            self.search(range, begin, out);
        }
    }
    #[inline(never)]
    fn search<const N: usize>(
        &self,
        range: VpnRange,
        begin: impl Fn(&Arc<DriverEntry>) -> Option<Visit>,
        out: &mut SmallVec<[Visit; N]>,
    ) {
        self.tree.read(|tree| {
            let hits = tree.overlapping(range.start().0, range.end().0);
            out.extend(hits.filter_map(|(_, _, entry)| begin(entry)));
        });
    }
    /// Returns all drivers.
    pub(super) fn all(&self) -> Vec<Arc<DriverEntry>> {
        let cloned = |tree: &IntervalTree<_>| tree.iter().map(|(_, _, e)| Arc::clone(e)).collect();
        self.tree.read(cloned)
    }
    /// Returns the number of drivers.
    pub(super) fn len(&self) -> usize {
        self.tree.read(IntervalTree::len)
    }
}
