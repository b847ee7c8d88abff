//! The scheduled form of a suite: one task of shuttle runs the operations, others use the devices,
//! and every schedule comes from a seed.

use super::{
    case::{Case, Ran},
    config::Suite,
    failure::Failure,
};
use crate::testkit::{Seen, timed_thread::message};
use shuttle::{Config, Runner, scheduler::RandomScheduler};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError},
};

impl Suite {
    /// Runs each script in `schedules` schedules and returns the number of scripts.
    ///
    /// [`Disturbances::threads`] tasks use the devices, at least one. The seed of the suite
    /// determines scripts and schedules.
    ///
    /// [`Disturbances::threads`]: super::Disturbances::threads
    ///
    /// # Errors
    ///
    /// [`Failure`] if a script fails in one of its schedules.
    pub fn scheduled(&self, schedules: usize) -> Result<u32, Box<Failure>> {
        println!("EMMU_TESTKIT_SEED={}", self.seed);
        let mut suite = self.clone();
        suite.disturbances.threads = suite.disturbances.threads.max(1);
        let run = |suite: &Self, case: &Case, _look: bool| suite.in_schedules(case, schedules);
        suite.explore(true, &mut |_| (), &run)?;
        Ok(self.cases)
    }
    /// Returns the result of the first schedule that failed, or of the last one.
    fn in_schedules(&self, case: &Case, schedules: usize) -> Ran {
        let mut config = Config::new();
        config.stack_size = 1 << 20;
        config.silence_warnings = true;
        config.failure_persistence = shuttle::FailurePersistence::None;
        let last: Arc<Mutex<Option<Ran>>> = Arc::default();
        let (suite, one, out) = (self.clone(), case.clone(), Arc::clone(&last));
        let runner = Runner::new(RandomScheduler::new_from_seed(self.seed, schedules), config);
        let run = AssertUnwindSafe(|| {
            runner.run(move || {
                let mut last = out.lock().unwrap_or_else(PoisonError::into_inner);
                // Skip the rest after a failure: each panic would print again while the script
                // shrinks.
                if last.as_ref().is_none_or(|ran| ran.seen.is_empty()) {
                    *last = None;
                    drop(last);
                    let ran = suite.ran_here(&one, false, &Arc::default());
                    *out.lock().unwrap_or_else(PoisonError::into_inner) = Some(ran);
                }
            })
        });
        let came = catch_unwind(run);
        let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
        let mut ran = last.take().unwrap_or_else(|| Ran {
            script: case.source.blank(),
            seen: Vec::new(),
            asked: 0,
            is_over: true,
        });
        // A deadlock ends a schedule without a result.
        if let (Err(payload), true) = (came, ran.seen.is_empty()) {
            ran.seen.push(Seen::Panicked(message(&*payload)));
        }
        ran
    }
}
