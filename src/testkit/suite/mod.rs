//! Random operations on a family of processes, with any set of devices on the first: what fails is made short, and written
//! as a script in the format of the recordings.
//!
//! ```
//! use emmu::{extmmu::kvm::VmConfig, testkit::{Suite, kvm}};
//!
//! Suite::new([kvm(VmConfig::default())]).cases(8).run().expect("a correct device");
//! ```
//!
//! A failure holds the script ([`Failure::script`]) and where it was saved. It can be replayed (`cargo run --features
//! replay --example replay -- FILE`), given to others, run on a real kernel, and kept: the scripts of a
//! [folder](Suite::regressions) are run before anything is drawn.

mod draw;
mod jury;

pub use jury::Disturbances;

use super::{Kit, Seen, aside::message, trial::machine};
use crate::{
    mm::Machine,
    replay::{Next, Script, ScriptError, blank, load, record},
};
use draw::{Draw, draw};
use jury::Jury;
use proptest::{
    collection::vec,
    test_runner::{Config, TestCaseError, TestError, TestRunner},
};
use std::{
    fmt, fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::Arc,
};

/// Random scripts for a set of devices.
#[derive(Clone, Debug)]
pub struct Suite {
    kits: Vec<Kit>,
    cases: u32,
    steps: usize,
    pub(super) disturbances: Disturbances,
    regressions: Option<PathBuf>,
}

/// What a suite found.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What was seen in the short script.
    pub seen: Vec<Seen>,
    /// The short script, with what this library did at each step.
    pub script: Script,
    /// Where it was saved, if it could be.
    pub saved: Option<PathBuf>,
}

impl Suite {
    /// A suite with all of these devices on one process. 256 scripts, or `EMMU_TESTKIT_CASES`.
    pub fn new(kits: impl IntoIterator<Item = Kit>) -> Self {
        let cases = std::env::var("EMMU_TESTKIT_CASES").ok();
        Self {
            kits: kits.into_iter().collect(),
            cases: cases.and_then(|c| c.parse().ok()).unwrap_or(256),
            steps: 40,
            disturbances: Disturbances::default(),
            regressions: None,
        }
    }
    /// How many scripts.
    #[must_use]
    pub fn cases(self, cases: u32) -> Self {
        Self { cases, ..self }
    }
    /// How long they are at most; 40 steps unless set.
    #[must_use]
    pub fn steps(self, steps: usize) -> Self {
        let steps = steps.max(2);
        Self { steps, ..self }
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
    /// [`Failure`], made as short as could be.
    ///
    /// # Panics
    ///
    /// If a kept script cannot be read.
    pub fn run(&self) -> Result<u32, Box<Failure>> {
        let kept = self.kept().unwrap_or_else(|e| panic!("{e}"));
        for script in &kept {
            self.again(script)?;
        }
        let config = Config {
            cases: self.cases,
            failure_persistence: None,
            // What threads did is not done again by fewer steps.
            max_shrink_iters: if self.disturbances.threads > 0 {
                0
            } else {
                1000
            },
            ..Config::default()
        };
        let strategy = vec(draw(), 1..self.steps);
        let outcome = TestRunner::new(config).run(&strategy, |draws| {
            let (_, seen) = self.draws(&draws, false);
            match seen.first() {
                None => Ok(()),
                Some(seen) => Err(TestCaseError::fail(seen.to_string())),
            }
        });
        match outcome {
            Ok(()) => Ok(self.cases + u32::try_from(kept.len()).unwrap_or(u32::MAX)),
            Err(TestError::Fail(_, draws)) => {
                let (script, seen) = self.draws(&self.shorten(draws), true);
                Err(Box::new(self.failure(script, seen)))
            }
            Err(TestError::Abort(why)) => unreachable!("nothing is rejected: {why}"),
        }
    }
    /// Leaves out every single step that can be left out.
    fn shorten(&self, mut draws: Vec<Draw>) -> Vec<Draw> {
        let mut at = 0;
        while self.disturbances.threads == 0 && at < draws.len() {
            let mut fewer = draws.clone();
            fewer.remove(at);
            if self.draws(&fewer, false).1.is_empty() {
                at += 1;
            } else {
                draws = fewer;
                at = 0;
            }
        }
        draws
    }
    /// Runs a script again: its operations, with the devices of this suite.
    ///
    /// # Errors
    ///
    /// [`Failure`].
    pub fn again(&self, script: &Script) -> Result<(), Box<Failure>> {
        self.count(script).map(|_| ())
    }
    /// The same; how many allocations were asked for.
    pub(super) fn count(&self, script: &Script) -> Result<u64, Box<Failure>> {
        let mut steps = script.steps.iter();
        let blank = blank(&script.name, script.header.clone());
        let mut next = |living: &[u32]| loop {
            let step = steps.next()?;
            if living.contains(&step.actor) {
                return Some((step.actor, step.op.clone()));
            }
        };
        let machine = machine();
        let (script, seen) = self.case(&machine, blank, self.disturbances.fail == 0, &mut next);
        if seen.is_empty() {
            Ok(machine.mem().inject().count())
        } else {
            Err(Box::new(self.failure(script, seen)))
        }
    }
    fn kept(&self) -> Result<Vec<Script>, ScriptError> {
        match &self.regressions {
            Some(folder) if folder.is_dir() => load(folder),
            _ => Ok(Vec::new()),
        }
    }
    fn draws(&self, draws: &[Draw], look: bool) -> (Script, Vec<Seen>) {
        let mut draws = draws.iter();
        let mut fresh = 0;
        let mut next = |living: &[u32]| {
            fresh += 1;
            draws.next().map(|d| d.op(living, fresh))
        };
        self.case(
            &machine(),
            blank("testkit", draw::header(0)),
            look,
            &mut next,
        )
    }
    fn case(
        &self,
        machine: &Arc<Machine>,
        mut script: Script,
        look: bool,
        next: &mut Next<'_>,
    ) -> (Script, Vec<Seen>) {
        let mut jury = Jury::new(machine, &self.kits, self.disturbances);
        let run = AssertUnwindSafe(|| {
            let mut thread = machine.enter().expect("a thread that is on no machine");
            let mut cx = thread.cx();
            record(&mut cx, machine, &mut script, look, next, &mut jury);
            jury.conclude(&mut cx);
        });
        if let Err(payload) = catch_unwind(run) {
            jury.dismiss();
            jury.seen.push(Seen::Panicked(message(&*payload)));
            let seen = std::mem::take(&mut jury.seen);
            // Nothing of this world can be trusted to come to an end.
            std::mem::forget(jury);
            return (script, seen);
        }
        let seen = std::mem::take(&mut jury.seen);
        (script, seen)
    }
    fn failure(&self, script: Script, seen: Vec<Seen>) -> Failure {
        let temporary = std::env::temp_dir();
        let folder = self.regressions.as_deref().unwrap_or(&temporary);
        let saved = save(folder, &script);
        Failure {
            seen,
            script,
            saved,
        }
    }
}

/// Writes a script under a name that its text gives it.
fn save(folder: &Path, script: &Script) -> Option<PathBuf> {
    let text = script.to_jsonl();
    let sum = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| {
        (sum ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    });
    let path = folder.join(format!("emmu-{sum:016x}.jsonl"));
    fs::create_dir_all(folder).ok()?;
    fs::write(&path, text).ok()?;
    Some(path)
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in &self.script.steps {
            writeln!(f, "  {}", step.to_json())?;
        }
        for seen in self.seen.iter().take(5) {
            writeln!(f, "  seen: {seen}")?;
        }
        match &self.saved {
            Some(path) => write!(f, "  saved as {}", path.display()),
            None => write!(f, "  it could not be saved"),
        }
    }
}
