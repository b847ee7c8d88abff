//! Random operations on a family of processes, with any set of devices on the first, held against a model of pages: what
//! fails is made short, and written as a script in the format of the recordings.
//!
//! ```
//! use emmu::{extmmu::kvm::VmConfig, testkit::{Suite, kvm}};
//!
//! Suite::new([kvm(VmConfig::default())]).cases(8).run().expect("a correct device");
//! ```
//!
//! Beside each script there is a [`Reference`](super::Reference), and what it says is checked step by step: so a suite
//! without devices tries this library alone. Which operations there are says the [`Profile`].
//!
//! # Three forms
//!
//! | form | | devices | what is found | found again by |
//! | --- | --- | --- | --- | --- |
//! | sequential | [`Suite::run`] | act before and after what process 0 does, on its thread | every wrong byte, right, count, leak | the script, which is short |
//! | threaded | … with [`Disturbances::threads`] | are used all the time by so many threads beside the operations, which wait for them now and then | what the oracle sees, panics, wrong outcomes | luck: the script is as it was drawn |
//! | scheduled | `Suite::scheduled` | the same as tasks of [shuttle](https://docs.rs/shuttle) | the same | the seed, which is printed; the script is short |
//!
//! The scheduled form exists where this crate is built with `--cfg shuttle`: its locks, atomics and threads are shuttle's then.
//!
//! ```sh
//! RUSTFLAGS="--cfg shuttle" cargo test --features testkit --test suite_shuttle --target-dir target/shuttle
//! ```
//!
//! # A failure
//!
//! … is a step that came to something else than the model says, what the oracle saw, a panic, or a script that does not come to an end within the
//! [deadline](Suite::deadline): each script has a thread of its own, which one that hangs takes with it. Such a script is not made
//! short, as each try would take as long.
//!
//! It holds the script ([`Failure::script`]), where it was saved, and the seed. The script can be replayed (`cargo run --features
//! replay --example replay -- FILE`), given to others, run on a real kernel, and kept: the scripts of a
//! [folder](Suite::regressions) are run before anything is drawn. What was made to fail is in the name of the file
//! (`emmu-aabc878ff0bef485.allocation-12.jsonl`), and fails again there.

mod beside;
mod case;
mod draw;
mod failure;
mod files;
mod huge;
mod jury;
mod mixed;
mod profile;
#[cfg(shuttle)]
mod scheduled;
mod watch;

pub use failure::Failure;
pub use jury::Disturbances;
pub use profile::Profile;

use super::Kit;
use crate::replay::{Script, ScriptError, load};
use case::{Case, Ran, Source};
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use std::{
    hash::{BuildHasher, RandomState},
    path::PathBuf,
    time::Duration,
};

/// Random scripts for a set of devices.
#[derive(Clone, Debug)]
pub struct Suite {
    kits: Vec<Kit>,
    profile: Profile,
    cases: u32,
    steps: usize,
    seed: u64,
    pub(super) disturbances: Disturbances,
    deadline: Duration,
    regressions: Option<PathBuf>,
}

/// A number from the environment.
pub(super) fn env<T: std::str::FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok()?.parse().ok()
}

/// What is drawn from where nobody says: the same in every run, so that a test says the same everywhere.
const SEED: u64 = 0x0e0e_5eed;

/// Something new is to be drawn, and more of it than a test needs: `EMMU_EXPLORE` is set.
fn explores() -> bool {
    std::env::var_os("EMMU_EXPLORE").is_some_and(|v| !v.is_empty() && v != "0")
}
fn seed() -> u64 {
    env("EMMU_TESTKIT_SEED").unwrap_or_else(|| match explores() {
        true => RandomState::new().hash_one(0),
        false => SEED,
    })
}

/// Scripts where nobody says how many: what `EMMU_TESTKIT_CASES` says, or these.
pub(in crate::testkit) fn depth(cases: u32) -> u32 {
    env("EMMU_TESTKIT_CASES").unwrap_or(cases)
}
/// Scripts where somebody says how many: `EMMU_TESTKIT_CASES` makes it more, but not of none.
pub(in crate::testkit) fn at_least(cases: u32) -> u32 {
    match cases {
        0 => 0,
        _ => cases.max(depth(cases)),
    }
}

impl Suite {
    /// A suite with all of these devices on one process, or with none. 256 scripts, or `EMMU_TESTKIT_CASES`.
    pub fn new(kits: impl IntoIterator<Item = Kit>) -> Self {
        let kits: Vec<Kit> = kits.into_iter().collect();
        let patience = kits.iter().map(Kit::patience).max();
        Self {
            deadline: patience.unwrap_or(Duration::from_secs(5)),
            kits,
            profile: Profile::default(),
            cases: depth(256),
            steps: 40,
            seed: seed(),
            disturbances: Disturbances::default(),
            regressions: None,
        }
    }
    /// Which operations there are; something of everything, unless set.
    #[must_use]
    pub fn profile(self, profile: Profile) -> Self {
        Self { profile, ..self }
    }
    /// How many scripts. `EMMU_TESTKIT_CASES` makes it more, but not of none.
    #[must_use]
    pub fn cases(self, cases: u32) -> Self {
        let cases = at_least(cases);
        Self { cases, ..self }
    }
    /// How many operations are drawn at most; 40 unless set.
    #[must_use]
    pub fn steps(self, steps: usize) -> Self {
        let steps = steps.max(2);
        Self { steps, ..self }
    }
    /// What is drawn depends on this number alone. Unless set it is that of `EMMU_TESTKIT_SEED`, or always the same: a test
    /// says today what it said yesterday. With `EMMU_EXPLORE=1` it is another one each time.
    #[must_use]
    pub fn seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }
    /// How long a step, or what devices do beside it, may take before it is said to hang: what the most patient of the devices
    /// has for an access ([`Kit::deadline`]), or 5 seconds, unless set. A machine that is busy does not make it a hang, see
    /// there.
    #[must_use]
    pub fn deadline(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }
    /// What happens beside the operations.
    #[must_use]
    pub fn disturbed(self, disturbances: Disturbances) -> Self {
        Self {
            disturbances,
            ..self
        }
    }
    /// Scripts of this folder are run first, and failures are saved there. Without one, they are saved in the folder for
    /// temporary files.
    #[must_use]
    pub fn regressions(self, folder: impl Into<PathBuf>) -> Self {
        Self {
            regressions: Some(folder.into()),
            ..self
        }
    }
    /// Runs it; how many scripts were run.
    ///
    /// # Errors
    ///
    /// [`Failure`], made as short as could be; [`Seen::Unreadable`](super::Seen::Unreadable) for a kept script that cannot be
    /// read.
    pub fn run(&self) -> Result<u32, Box<Failure>> {
        self.watched(&mut |_| ())
    }
    /// The same, telling before each script which one it is.
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
        // What threads did is not done again by fewer steps.
        let again = self.disturbances.threads == 0;
        self.explore(again, began, &|suite, case, look| suite.ran(case, look))?;
        Ok(self.cases + u32::try_from(kept.len()).unwrap_or(u32::MAX))
    }
    /// Draws cases until one fails, which is made short if it fails `again`.
    fn explore(
        &self,
        again: bool,
        began: &mut dyn FnMut(u32),
        run: &dyn Fn(&Self, &Case, bool) -> Ran,
    ) -> Result<(), Box<Failure>> {
        let config = Config {
            cases: self.cases,
            failure_persistence: None,
            // Steps are left out below, many at once; draws are only where they came from.
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
                // What is not seen once more is what it was at first.
                let ran = shown.filter(|ran| !ran.seen.is_empty()).unwrap_or(first);
                Err(Box::new(self.failure(ran, case.fault)))
            }
            Err(TestError::Abort(why)) => unreachable!("nothing is rejected: {why}"),
        }
    }
    /// Windows, VMAs and page tables are written down where a replay will find the same: nothing was made to fail.
    fn looks(&self, case: &Case) -> bool {
        case.fault.or(self.disturbances.fault).is_none() && self.disturbances.threads == 0
    }
    /// Runs a script again: its operations, with the devices of this suite.
    ///
    /// # Errors
    ///
    /// [`Failure`].
    pub fn again(&self, script: &Script) -> Result<(), Box<Failure>> {
        self.count(script).map(|_| ())
    }
    /// The same; how often what is to fail was asked for.
    pub(super) fn count(&self, script: &Script) -> Result<u64, Box<Failure>> {
        let case = Case {
            source: Source::Script(script.clone()),
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
    fn kept(&self) -> Result<Vec<Script>, ScriptError> {
        match &self.regressions {
            Some(folder) if folder.is_dir() => load(folder),
            _ => Ok(Vec::new()),
        }
    }
}
