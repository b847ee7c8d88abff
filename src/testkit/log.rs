//! [`Log`]: the steps and the violations of one trial.

use super::verdict::{Seen, Side, TrialStep, in_order, is_echo};
use crate::sync::{AtomicUsize, Mutex, Ordering};

/// Most violations of a log; more say nothing new.
const MOST: usize = 50;

/// Steps and violations, shared with the thread that watches the time.
#[derive(Debug, Default)]
pub(super) struct Log {
    steps: Mutex<Vec<TrialStep>>,
    seen: Mutex<Vec<Seen>>,
    /// The number of steps before the first violation.
    cut: AtomicUsize,
    /// Threads that may still report something.
    at_work: AtomicUsize,
}

impl Log {
    pub(super) fn step(&self, side: Side, what: impl Into<String>) {
        let what = what.into();
        self.steps.lock().push(TrialStep { side, what });
    }
    pub(super) fn see(&self, seen: Seen) {
        let steps = self.len();
        let mut all = self.seen.lock();
        if all.is_empty() {
            self.cut.store(steps, Ordering::Relaxed);
        }
        if all.len() < MOST {
            all.push(seen);
        }
    }
    pub(super) fn len(&self) -> usize {
        self.steps.lock().len()
    }
    pub(super) fn last(&self) -> String {
        self.steps
            .lock()
            .last()
            .map_or_else(String::new, |s| s.what.clone())
    }
    /// Returns the steps up to the first violation, and the violations.
    pub(super) fn take(&self) -> (Vec<TrialStep>, Vec<Seen>) {
        let seen = in_order(std::mem::take(&mut *self.seen.lock()));
        let mut steps = std::mem::take(&mut *self.steps.lock());
        if !seen.is_empty() {
            steps.truncate(self.cut.load(Ordering::Relaxed));
        }
        (steps, seen)
    }
    pub(super) fn has_seen(&self) -> bool {
        !self.seen.lock().is_empty()
    }
    /// Notes that another thread begins to work.
    pub(super) fn joins(&self) {
        self.at_work.fetch_add(1, Ordering::Relaxed);
    }
    /// Notes that a thread has reported everything that it saw.
    pub(super) fn leaves(&self) {
        self.at_work.fetch_sub(1, Ordering::Release);
    }
    /// Returns true if a thread may still report the cause of all reports so far: the thread that
    /// panicked first is still unwinding.
    pub(super) fn lacks_the_cause(&self) -> bool {
        // Acquire: a thread that has left has reported before.
        let nobody = self.at_work.load(Ordering::Acquire) == 0;
        let seen = self.seen.lock();
        !nobody && !seen.is_empty() && seen.iter().all(is_echo)
    }
}
