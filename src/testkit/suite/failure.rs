//! [`Failure`]: the report of a suite, and the file of its script.

use super::{arena::hash_of, case::Ran, config::Suite, dispatch::header};
use crate::{
    replay::{Script, ScriptError, blank},
    testkit::{Broken, Fault, Seen},
};
use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

/// A script that failed, with the violations and the seed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The violations in the short script.
    pub seen: Vec<Seen>,
    /// The short script, with the outcome of this library at each step.
    pub script: Script,
    /// The injected fault, and its number among its kind, from 1.
    pub fault: Option<(Fault, u64)>,
    /// The seed of the suite ([`Suite::seed`]).
    pub seed: u64,
    /// The path of the saved script; `None` if the write failed.
    pub saved: Option<PathBuf>,
}

impl Suite {
    /// Saves the script of a case and returns the report.
    pub(super) fn failure(&self, ran: Ran, fault: Option<(Fault, u64)>) -> Failure {
        let temporary = std::env::temp_dir();
        let folder = self.regressions.as_deref().unwrap_or(&temporary);
        let saved = save(folder, &ran.script, fault);
        Failure {
            seen: ran.seen,
            script: ran.script,
            fault,
            seed: self.seed,
            saved,
        }
    }
    /// Returns the report of a kept script that cannot be read.
    pub(super) fn unreadable(&self, why: &ScriptError) -> Failure {
        Failure {
            seen: vec![Seen::Unreadable(why.to_string())],
            script: blank(&why.file, header(self.profile)),
            fault: None,
            seed: self.seed,
            saved: Some(PathBuf::from(&why.file)),
        }
    }
}

/// Returns the word for a fault in the names of files.
fn short(fault: Fault) -> &'static str {
    match fault {
        Fault::Allocation => "allocation",
        Fault::WouldBlock => "wouldblock",
        Fault::Acknowledgement(Broken::Dies) => "dies",
        Fault::Acknowledgement(Broken::Hangs) => "hangs",
        Fault::Acknowledgement(Broken::Twice) => "twice",
    }
}

/// Returns the fault in the name of a file.
pub(super) fn fault_of(name: &str) -> Option<(Fault, u64)> {
    let name = name.strip_suffix(".gz").unwrap_or(name);
    let (_, last) = name.strip_suffix(".jsonl")?.rsplit_once('.')?;
    let (word, nth) = last.split_once('-')?;
    let fault = Fault::ALL.iter().find(|f| short(**f) == word)?;
    Some((*fault, nth.parse().ok()?))
}

/// Writes a script to a file whose name is a hash of its text and the injected fault.
fn save(folder: &Path, script: &Script, fault: Option<(Fault, u64)>) -> Option<PathBuf> {
    let text = script.to_jsonl();
    let sum = hash_of(0, &text);
    let made = fault.map(|(fault, nth)| format!(".{}-{nth}", short(fault)));
    let made = made.unwrap_or_default();
    let path = folder.join(format!("emmu-{sum:016x}{made}.jsonl"));
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
            writeln!(f, "  the kit lets {fault} fail, number {nth}")?;
        }
        for seen in self.seen.iter().take(5) {
            writeln!(f, "  seen: {seen}")?;
        }
        match &self.saved {
            Some(path) => writeln!(f, "  saved as {}", path.display())?,
            None => writeln!(f, "  the script could not be saved")?,
        }
        write!(f, "  drawn from EMMU_TESTKIT_SEED={}", self.seed)
    }
}

#[cfg(test)]
mod tests {
    use super::{fault_of, save};
    use crate::{
        replay::blank,
        testkit::{
            Fault,
            suite::{dispatch::header, profile::Profile},
        },
    };

    #[test]
    fn names_say_what_was_made_to_fail() {
        let folder = std::env::temp_dir().join(format!("emmu-names-{}", std::process::id()));
        let script = blank("names", header(Profile::Mixed));
        let all = Fault::ALL.iter().map(|fault| Some((*fault, 12)));
        for fault in all.chain([None]) {
            let path = save(&folder, &script, fault).expect("a folder for temporary files");
            let name = path.to_str().expect("ASCII");
            assert_eq!(fault_of(name), fault);
            assert_eq!(fault_of(&format!("{name}.gz")), fault);
        }
        std::fs::remove_dir_all(folder).expect("just written");
        for other in ["emmu-1.jsonl", "v1.2-3.jsonl", "a.allocation-x.jsonl", "a"] {
            assert_eq!(fault_of(other), None);
        }
    }
}
