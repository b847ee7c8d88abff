//! What a suite found, and where it is kept.

use super::{Suite, case::Ran};
use crate::{
    replay::Script,
    testkit::{Fault, Seen},
};
use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

/// What a suite found.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What was seen in the short script.
    pub seen: Vec<Seen>,
    /// The short script, with what this library did at each step.
    pub script: Script,
    /// What was made to fail, and which one of its kind, from 1.
    pub fault: Option<(Fault, u64)>,
    /// What the suite drew from ([`Suite::seed`]).
    pub seed: u64,
    /// Where the script was saved, if it could be.
    pub saved: Option<PathBuf>,
}

impl Suite {
    pub(super) fn failure(&self, ran: Ran, fault: Option<(Fault, u64)>) -> Failure {
        let temporary = std::env::temp_dir();
        let folder = self.regressions.as_deref().unwrap_or(&temporary);
        let saved = save(folder, &ran.script);
        Failure {
            seen: ran.seen,
            script: ran.script,
            fault,
            seed: self.seed,
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
            writeln!(f, "  {}  {}", step.to_json(), step.outcome)?;
        }
        if let Some((fault, nth)) = self.fault {
            writeln!(f, "  made to fail: {fault}, number {nth}")?;
        }
        for seen in self.seen.iter().take(5) {
            writeln!(f, "  seen: {seen}")?;
        }
        match &self.saved {
            Some(path) => writeln!(f, "  saved as {}", path.display())?,
            None => writeln!(f, "  it could not be saved")?,
        }
        write!(f, "  drawn from EMMU_TESTKIT_SEED={}", self.seed)
    }
}
