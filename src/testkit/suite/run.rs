//! The run of a suite: kept scripts first, then random ones until one fails.

use super::{
    case::{self, Case, Ran, Source},
    config::Suite,
    failure::{self, Failure},
};
use crate::replay::{Script, ScriptError, load};
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

impl Suite {
    /// Runs the kept scripts, then the random ones, and returns their number.
    ///
    /// # Errors
    ///
    /// [`Failure`] with a shortened script at the first one that fails;
    /// [`Seen::Unreadable`](crate::testkit::Seen::Unreadable) if a kept script cannot be read.
    pub fn run(&self) -> Result<u32, Box<Failure>> {
        self.watched(&mut |_| ())
    }
    /// Runs as [`run`](Self::run) does, and calls `began` with the number of each random script.
    pub(in crate::testkit) fn watched(
        &self,
        began: &mut dyn FnMut(u32),
    ) -> Result<u32, Box<Failure>> {
        let kept = self.kept().map_err(|e| Box::new(self.unreadable(&e)))?;
        for script in &kept {
            let mut suite = self.clone();
            let fault = failure::fault_of(&script.name);
            suite.disturbances.fault = fault.or(self.disturbances.fault);
            suite.again(script)?;
        }
        // Threads act differently in every run: a shorter script proves nothing.
        let again = self.disturbances.threads == 0;
        self.explore(again, began, &|suite, case, look| suite.ran(case, look))?;
        Ok(self.cases + u32::try_from(kept.len()).unwrap_or(u32::MAX))
    }
    /// Draws cases until one fails, and shortens that one if `again` says that it fails every time.
    pub(super) fn explore(
        &self,
        again: bool,
        began: &mut dyn FnMut(u32),
        run: &dyn Fn(&Self, &Case, bool) -> Ran,
    ) -> Result<(), Box<Failure>> {
        let config = Config {
            cases: self.cases,
            failure_persistence: None,
            // `shorten` removes many steps at once; proptest would shrink draw by draw.
            max_shrink_iters: 0,
            ..Config::default()
        };
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&self.seed.to_le_bytes());
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
        let strategy = case::cases(self.profile, self.steps, self.disturbances.random_faults);
        let state = std::cell::RefCell::new((began, 0, None));
        let outcome = TestRunner::new_with_rng(config, rng).run(&strategy, |case| {
            let (began, nth, last) = &mut *state.borrow_mut();
            began(*nth);
            *nth += 1;
            let ran = run(self, &case, false);
            let seen = ran.seen.first().map(ToString::to_string);
            *last = Some(ran);
            seen.map_or(Ok(()), |seen| Err(TestCaseError::fail(seen)))
        });
        match outcome {
            Ok(()) => Ok(()),
            Err(TestError::Fail(_, case)) => {
                let first: Ran = state.into_inner().2.expect("the case that failed was run");
                let again = again && first.is_over;
                let case = if again { self.shorten(case, run) } else { case };
                let shown = again.then(|| run(self, &case, self.looks(&case)));
                // A failure that does not repeat keeps its first report.
                let ran = shown.filter(|ran| !ran.seen.is_empty()).unwrap_or(first);
                Err(Box::new(self.failure(ran, case.fault)))
            }
            Err(TestError::Abort(why)) => unreachable!("nothing is rejected: {why}"),
        }
    }
    /// Returns true if the script records windows, VMAs and page tables. A replay finds them again
    /// only if the case had neither a fault nor threads.
    fn looks(&self, case: &Case) -> bool {
        case.fault.or(self.disturbances.fault).is_none() && self.disturbances.threads == 0
    }
    /// Runs the operations of a script with the devices of this suite.
    ///
    /// # Errors
    ///
    /// [`Failure`] if a step differs from the model, the oracle reports a violation, or the script
    /// panics or hangs.
    ///
    /// # Examples
    ///
    /// ```
    /// use emmu::{extmmu::gru::GruConfig, replay::shipped, testkit::{Suite, gru}};
    ///
    /// let scripts = shipped()?;
    /// let suite = Suite::new([gru(GruConfig::default(), None)]);
    /// suite.again(&scripts[0]).expect("the device makes no difference");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn again(&self, script: &Script) -> Result<(), Box<Failure>> {
        self.count(script).map(|_| ())
    }
    /// Runs as [`again`](Self::again) does and returns the number of operations of the failing
    /// kind.
    pub(in crate::testkit) fn count(&self, script: &Script) -> Result<u64, Box<Failure>> {
        let case = Case {
            source: Source::Script(Box::new(script.clone())),
            fault: None,
        };
        let ran = self.ran(&case, false);
        if ran.seen.is_empty() {
            return Ok(ran.asked);
        }
        let again = ran.is_over.then(|| self.ran(&case, self.looks(&case)));
        let ran = again.filter(|again| !again.seen.is_empty()).unwrap_or(ran);
        Err(Box::new(self.failure(ran, self.disturbances.fault)))
    }
    /// Returns the scripts of the folder of regressions.
    fn kept(&self) -> Result<Vec<Script>, ScriptError> {
        match &self.regressions {
            Some(folder) if folder.is_dir() => load(folder),
            _ => Ok(Vec::new()),
        }
    }
}
