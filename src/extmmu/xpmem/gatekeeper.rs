//! Faults against recalls: one number (`n_recall_PFNs`).

use crate::sync::{Condvar, Mutex};

#[derive(Debug, Default)]
pub(super) struct Gatekeeper {
    counts: Mutex<Counts>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Counts {
    /// Negative: that many faults hold recalls off. Positive: that many recalls are in progress.
    recalls: i64,
    /// Recalls that are a window's. The others are the owner's own: it takes a segment back, or what a partition had that
    /// is gone.
    windows: u64,
}

/// A fault that holds recalls off.
pub(super) struct Blocked<'g>(&'g Gatekeeper);

impl Gatekeeper {
    /// Waits until no recall is in progress, and holds new ones off (`xpmem_block_recall_PFNs`).
    pub(super) fn block(&self) -> Blocked<'_> {
        let mut counts = self.counts.lock();
        while counts.recalls > 0 {
            self.changed.wait(&mut counts);
        }
        counts.recalls -= 1;
        Blocked(self)
    }
    /// Waits until no fault is in the way, and keeps new ones waiting (`xpmem_invalidate_PFNs`).
    pub(super) fn begin_recall(&self) {
        self.begin(0);
    }
    /// The same, for a window.
    pub(super) fn begin_window(&self) {
        self.begin(1);
    }
    fn begin(&self, windows: u64) {
        let mut counts = self.counts.lock();
        while counts.recalls < 0 {
            self.changed.wait(&mut counts);
        }
        counts.recalls += 1;
        counts.windows += windows;
    }
    /// Lets faults go on.
    pub(super) fn end_recall(&self) {
        self.end(0);
    }
    /// The same, after a window.
    pub(super) fn end_window(&self) {
        self.end(1);
    }
    fn end(&self, windows: u64) {
        let mut counts = self.counts.lock();
        counts.recalls -= 1;
        counts.windows -= windows;
        drop(counts);
        self.changed.notify_all();
    }
    /// Windows that have begun and not ended.
    pub(super) fn windows(&self) -> u64 {
        self.counts.lock().windows
    }
    /// Recalls in progress, or, negative, faults in the way.
    pub(super) fn count(&self) -> i64 {
        self.counts.lock().recalls
    }
}

impl Drop for Blocked<'_> {
    fn drop(&mut self) {
        self.0.counts.lock().recalls += 1;
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::Gatekeeper;

    #[test]
    fn a_recall_of_the_owners_own_is_no_window() {
        let keeper = Gatekeeper::default();
        keeper.begin_recall();
        assert_eq!((keeper.count(), keeper.windows()), (1, 0));
        keeper.begin_window();
        assert_eq!((keeper.count(), keeper.windows()), (2, 1));
        keeper.end_window();
        assert_eq!((keeper.count(), keeper.windows()), (1, 0));
        keeper.end_recall();
        assert_eq!((keeper.count(), keeper.windows()), (0, 0));
    }

    #[test]
    fn recalls_and_faults_keep_each_other_out() {
        let keeper = Gatekeeper::default();
        let (a, b) = (keeper.block(), keeper.block());
        assert_eq!(keeper.count(), -2);
        std::thread::scope(|s| {
            let recall = s.spawn(|| {
                keeper.begin_recall();
                keeper.begin_recall();
                keeper.count()
            });
            drop(a);
            drop(b);
            assert_eq!(recall.join().unwrap(), 2);
            let fault = s.spawn(|| drop(keeper.block()));
            keeper.end_recall();
            keeper.end_recall();
            fault.join().unwrap();
        });
        assert_eq!(keeper.count(), 0);
    }
}
