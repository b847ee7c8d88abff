//! The count of open windows, and changes of slots, which wait until no window is open.
//!
//! Windows are counted by the gate of their first page, so windows elsewhere write to other lines.
//! A change announces itself before it adds up the counts, and a window counts itself in before it
//! looks for an announcement; both are `SeqCst`, so at least one of the two sees the other
//! (`mn_active_invalidate_count`, `mn_invalidate_lock`).

use crate::sync::{AtomicBool, AtomicU64, AtomicUsize, CachePadded, Condvar, Mutex, Ordering};

#[derive(Debug)]
pub(super) struct Active {
    counts: Box<[CachePadded<AtomicU64>]>,
    /// A change is under way. Written under the lock.
    changing: AtomicBool,
    /// The number of changes that wait for windows to end. Written under the lock.
    waiting: AtomicUsize,
    lock: Mutex<()>,
    idle: Condvar,
}

impl Active {
    pub(super) fn new(places: usize) -> Self {
        Self {
            counts: (0..places)
                .map(|_| CachePadded(AtomicU64::new(0)))
                .collect(),
            changing: AtomicBool::new(false),
            waiting: AtomicUsize::new(0),
            lock: Mutex::new(()),
            idle: Condvar::new(),
        }
    }
    /// Returns the number of open windows.
    pub(super) fn count(&self) -> u64 {
        let counts = self.counts.iter();
        counts.map(|c| c.0.load(Ordering::SeqCst)).sum()
    }
    /// Counts a window in, as soon as no change is under way.
    pub(super) fn begin(&self, place: usize) {
        let count = &self.counts[place].0;
        count.fetch_add(1, Ordering::SeqCst);
        if self.changing.load(Ordering::SeqCst) {
            self.end(place);
            // A change runs with this lock held.
            let _no_change = self.lock.lock();
            count.fetch_add(1, Ordering::SeqCst);
        }
    }
    /// Counts a window out, and wakes the changes that wait.
    pub(super) fn end(&self, place: usize) {
        self.counts[place].0.fetch_sub(1, Ordering::SeqCst);
        if self.waiting.load(Ordering::SeqCst) > 0 {
            drop(self.lock.lock());
            self.idle.notify_all();
        }
    }
    /// Runs `change` while no window is open and none begins.
    pub(super) fn while_none<T>(&self, change: impl FnOnce() -> T) -> T {
        let mut held = self.lock.lock();
        self.waiting.fetch_add(1, Ordering::SeqCst);
        self.changing.store(true, Ordering::SeqCst);
        while self.count() > 0 {
            self.changing.store(false, Ordering::SeqCst);
            self.idle.wait(&mut held);
            self.changing.store(true, Ordering::SeqCst);
        }
        let changed = change();
        self.changing.store(false, Ordering::SeqCst);
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        drop(held);
        changed
    }
}
