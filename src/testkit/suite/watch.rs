//! A watch over the cases of a suite: one that does not come to an end is a verdict, with the steps that led there.

use super::{
    Suite,
    case::{Case, Ran},
};
use crate::{
    replay::{Op, Outcome, Step},
    sync::{AtomicU64, Mutex, Ordering},
    testkit::{Seen, aside::message, patience},
};
use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        mpsc::{RecvTimeoutError, channel},
    },
    time::Duration,
};

/// What a case has come to so far, shared with who watches it.
#[derive(Debug, Default)]
pub(super) struct Beat {
    /// Each moves it on.
    count: AtomicU64,
    steps: Mutex<Vec<(u32, Op)>>,
    /// What is being done, if it is no step.
    beside: Mutex<Option<&'static str>>,
}

impl Beat {
    /// A step, and what happens before it, begins. Whether it is the first.
    pub(super) fn begins(&self, actor: u32, op: &Op) -> bool {
        self.moves_on();
        let mut steps = self.steps.lock();
        steps.push((actor, op.clone()));
        steps.len() == 1
    }
    /// Something that is no step begins.
    pub(super) fn does(&self, what: &'static str) {
        *self.beside.lock() = Some(what);
        self.moves_on();
    }
    /// It is done, and a step goes on.
    pub(super) fn goes_on(&self) {
        *self.beside.lock() = None;
        self.moves_on();
    }
    /// Part of a step is done.
    pub(super) fn moves_on(&self) {
        self.count.fetch_add(1, Ordering::Relaxed);
    }
    fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
    /// What hangs.
    fn stuck(&self, case: &Case, after: Duration) -> Ran {
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
    /// The steps up to where a case came to no end of its own. No outcome of the last one is known.
    fn ended(&self, case: &Case, seen: Seen) -> Ran {
        let mut script = case.source.blank();
        let step = |(line, (actor, op))| Step {
            line,
            actor,
            op,
            outcome: Outcome::Ret(0),
            notified: Vec::new(),
            layouts: BTreeMap::new(),
            vm_flags: BTreeMap::new(),
            pages: None,
        };
        script.steps = (2..).zip(self.steps.lock().clone()).map(step).collect();
        Ran {
            script,
            seen: vec![seen],
            asked: 0,
            is_over: false,
        }
    }
}

impl Suite {
    /// Runs a case on a thread of its own. One that hangs takes it with it.
    pub(super) fn ran(&self, case: &Case, look: bool) -> Ran {
        let beat = Arc::new(Beat::default());
        let (tell, told) = channel();
        let (suite, one, shared) = (self.clone(), case.clone(), Arc::clone(&beat));
        let _detached = std::thread::spawn(move || {
            let run = AssertUnwindSafe(|| suite.ran_here(&one, look, &shared));
            let _nobody_waits = tell.send(catch_unwind(run));
        });
        let mut before = beat.count();
        loop {
            match patience::receive(&told, self.deadline) {
                Ok(Ok(ran)) => return ran,
                // When it was taken down.
                Ok(Err(payload)) => return beat.ended(case, Seen::Panicked(message(&*payload))),
                Err(RecvTimeoutError::Disconnected) => unreachable!("what it sends is sent"),
                Err(RecvTimeoutError::Timeout) => {
                    // Work that goes on is no hang.
                    let now = beat.count();
                    if now == before {
                        return beat.stuck(case, self.deadline);
                    }
                    before = now;
                }
            }
        }
    }
}
