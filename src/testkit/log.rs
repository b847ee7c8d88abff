//! [`Log`]: the steps and the violations of one trial.

use super::verdict::{Seen, Side, Step, in_order};
use crate::sync::{AtomicUsize, Mutex, Ordering};

/// Most violations of a log; more say nothing new.
const MOST: usize = 50;

/// Steps and violations, shared with the thread that watches the time.
#[derive(Debug, Default)]
pub(super) struct Log {
    steps: Mutex<Vec<Step>>,
    seen: Mutex<Vec<Seen>>,
    /// The number of steps before the first violation.
    cut: AtomicUsize,
}

impl Log {
    pub(super) fn step(&self, side: Side, what: impl Into<String>) {
        let what = what.into();
        self.steps.lock().push(Step { side, what });
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
    pub(super) fn take(&self) -> (Vec<Step>, Vec<Seen>) {
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
}
