//! [`Beat`]: the progress of a case, for the thread that watches it.

use super::case::{Case, Ran};
use crate::{
    replay::{Op, Step},
    sync::{AtomicU64, Mutex, Ordering},
    testkit::Seen,
};
use std::time::Duration;

/// The progress of a case, which the watching thread reads.
#[derive(Debug, Default)]
pub(super) struct Beat {
    /// Grows with each step and each part of a step.
    count: AtomicU64,
    steps: Mutex<Vec<(u32, Op)>>,
    /// The current activity, if it is no step.
    beside: Mutex<Option<&'static str>>,
}

impl Beat {
    /// Notes that a step begins, with the disturbances before it; returns true for the first step.
    pub(super) fn begins(&self, actor: u32, op: &Op) -> bool {
        self.moves_on();
        let mut steps = self.steps.lock();
        steps.push((actor, op.clone()));
        steps.len() == 1
    }
    /// Notes that an activity begins that is not a step.
    pub(super) fn does(&self, what: &'static str) {
        *self.beside.lock() = Some(what);
        self.moves_on();
    }
    /// Notes that this activity is over and a step goes on.
    pub(super) fn goes_on(&self) {
        *self.beside.lock() = None;
        self.moves_on();
    }
    /// Notes that a part of a step is done.
    pub(super) fn moves_on(&self) {
        self.count.fetch_add(1, Ordering::Relaxed);
    }
    /// Returns the number of notes so far.
    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
    /// Returns the result of a case that hangs.
    pub(super) fn stuck(&self, case: &Case, after: Duration) -> Ran {
        let last = self
            .steps
            .lock()
            .last()
            .map(|(actor, op)| format!("process {actor}: {op:?}"));
        let what = match (*self.beside.lock(), last) {
            (Some(beside), _) => beside.to_owned(),
            (None, Some(step)) => format!("a device beside this step, or the step: {step}"),
            (None, None) => "a device that is being attached".to_owned(),
        };
        self.ended(case, Seen::Stuck { what, after })
    }
    /// Returns the result of a case that did not end by itself: its steps, without their outcomes.
    pub(super) fn ended(&self, case: &Case, seen: Seen) -> Ran {
        let mut script = case.source.blank();
        let step = |(line, (actor, op))| Step::unrecorded(line, actor, op);
        script.steps = (2..).zip(self.steps.lock().clone()).map(step).collect();
        Ran {
            script,
            seen: vec![seen],
            asked: 0,
            is_over: false,
        }
    }
}
