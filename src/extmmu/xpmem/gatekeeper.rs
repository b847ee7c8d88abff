//! The gatekeeper between faults and recalls: a number that is negative while faults hold recalls
//! off, and positive while recalls keep faults waiting (`n_recall_PFNs`).

use crate::sync::{Condvar, Mutex};

#[derive(Debug, Default)]
pub(super) struct Gatekeeper {
    counts: Mutex<Counts>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Counts {
    /// Negative: the number of faults that hold recalls off. Positive: the number of recalls in
    /// progress.
    recalls: i64,
    /// The number of recalls that belong to windows. The owner begins the others: to take a segment
    /// back, or the pages of a partition that is gone.
    windows: u64,
}

/// A fault that holds recalls off until this is dropped.
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
    /// Waits until no fault holds recalls off, and keeps new faults waiting
    /// (`xpmem_invalidate_PFNs`).
    pub(super) fn begin_recall(&self) {
        self.begin(0);
    }
    /// Begins a recall, as [`begin_recall`](Self::begin_recall) does, that belongs to a window.
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
    /// Ends a recall: faults go on when no other one is in progress.
    pub(super) fn end_recall(&self) {
        self.end(0);
    }
    /// Ends a recall that belongs to a window.
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
    /// Returns the number of windows that have begun and not ended.
    pub(super) fn windows(&self) -> u64 {
        self.counts.lock().windows
    }
    /// Returns the number of recalls in progress or, negative, of the faults that hold them off.
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
