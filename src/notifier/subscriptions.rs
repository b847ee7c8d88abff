//! The drivers that are registered on ranges of an address space, in an interval tree: a window calls those it overlaps.
//!
//! Linux freezes its tree while windows are open, and puts off inserts and removals (`mn_itree_inv_start_range`). Here
//! the tree is locked for the search alone, since what is found is held by a visit: a window that sleeps holds up no
//! insert and no removal of others. What Linux's rule is for stays true. A subscription inserted under a window that did
//! not see it gives no permit before that window has ended; a removal waits for the windows that did.

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

/// Subscriptions of one address space.
pub(super) struct Subscriptions {
    tree: ShardedRwLock<IntervalTree<Arc<DriverEntry>>>,
    /// Somebody has subscribed once: windows look at the tree.
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
    /// Windows that begin after this see the driver. The flag is set before the driver first asks the board, and read
    /// after the window is on it: who misses the flag is found on the board.
    pub(super) fn insert(&self, range: VpnRange, entry: &Arc<DriverEntry>) {
        let (key, value) = (key(range, entry.reg), Arc::clone(entry));
        self.tree.write(|tree| {
            tree.insert(key, range.end().0, value);
            self.used.store(true, Ordering::Release);
        });
    }
    pub(super) fn remove(&self, range: VpnRange, reg: RegId) {
        // Dropped after the lock: it may be the last one of its driver.
        let _gone = self.tree.write(|tree| tree.remove(key(range, reg)));
    }
    /// Begins a visit, by `begin`, to each driver whose range overlaps.
    #[inline]
    pub(super) fn visit<const N: usize>(
        &self,
        range: VpnRange,
        begin: impl Fn(&Arc<DriverEntry>) -> Option<Visit>,
        out: &mut SmallVec<[Visit; N]>,
    ) {
        if !self.used.load(Ordering::Acquire) {
            return;
        }
        self.tree.read(|tree| {
            let hits = tree.overlapping(range.start().0, range.end().0);
            out.extend(hits.filter_map(|(_, _, entry)| begin(entry)));
        });
    }
    /// Everybody.
    pub(super) fn all(&self) -> Vec<Arc<DriverEntry>> {
        let cloned = |tree: &IntervalTree<_>| tree.iter().map(|(_, _, e)| Arc::clone(e)).collect();
        self.tree.read(cloned)
    }
    /// How many.
    pub(super) fn len(&self) -> usize {
        self.tree.read(IntervalTree::len)
    }
}
