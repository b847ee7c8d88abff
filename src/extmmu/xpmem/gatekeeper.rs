//! Faults against recalls: one number (`n_recall_PFNs`).

use crate::sync::{Condvar, Mutex};

/// Negative: that many faults hold recalls off. Positive: that many recalls are in progress.
#[derive(Debug, Default)]
pub(super) struct Gatekeeper {
    count: Mutex<i64>,
    changed: Condvar,
}

/// A fault that holds recalls off.
pub(super) struct Blocked<'g>(&'g Gatekeeper);

impl Gatekeeper {
    /// Waits until no recall is in progress, and holds new ones off (`xpmem_block_recall_PFNs`).
    pub(super) fn block(&self) -> Blocked<'_> {
        let mut count = self.count.lock();
        while *count > 0 {
            self.changed.wait(&mut count);
        }
        *count -= 1;
        Blocked(self)
    }
    /// Waits until no fault is in the way, and keeps new ones waiting (`xpmem_invalidate_PFNs`).
    pub(super) fn begin_recall(&self) {
        let mut count = self.count.lock();
        while *count < 0 {
            self.changed.wait(&mut count);
        }
        *count += 1;
    }
    /// Lets faults go on.
    pub(super) fn end_recall(&self) {
        *self.count.lock() -= 1;
        self.changed.notify_all();
    }
    /// Recalls in progress, or, negative, faults in the way.
    pub(super) fn count(&self) -> i64 {
        *self.count.lock()
    }
}

impl Drop for Blocked<'_> {
    fn drop(&mut self) {
        *self.0.count.lock() += 1;
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::Gatekeeper;

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
