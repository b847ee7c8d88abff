//! What a suite found, and where it is kept.

use super::{Suite, case::Ran, profile::header};
use crate::{
    replay::{Script, ScriptError, blank},
    testkit::{Broken, Fault, Seen},
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
        let saved = save(folder, &ran.script, fault);
        Failure {
            seen: ran.seen,
            script: ran.script,
            fault,
            seed: self.seed,
            saved,
        }
    }
    /// A kept script that cannot be read: there is nothing to run.
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

/// What can be made to fail, as the names of files have it.
fn short(fault: Fault) -> &'static str {
    match fault {
        Fault::Allocation => "allocation",
        Fault::WouldBlock => "wouldblock",
        Fault::Acknowledgement(Broken::Dies) => "dies",
        Fault::Acknowledgement(Broken::Hangs) => "hangs",
        Fault::Acknowledgement(Broken::Twice) => "twice",
    }
}

/// What the file of that name was saved with.
pub(super) fn fault_of(name: &str) -> Option<(Fault, u64)> {
    let name = name.strip_suffix(".gz").unwrap_or(name);
    let (_, last) = name.strip_suffix(".jsonl")?.rsplit_once('.')?;
    let (word, nth) = last.split_once('-')?;
    let fault = Fault::ALL.iter().find(|f| short(**f) == word)?;
    Some((*fault, nth.parse().ok()?))
}

/// Writes a script under a name that its text gives it, and what was made to fail.
fn save(folder: &Path, script: &Script, fault: Option<(Fault, u64)>) -> Option<PathBuf> {
    let text = script.to_jsonl();
    let sum = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| {
        (sum ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    });
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

#[cfg(test)]
mod tests {
    use super::{fault_of, save};
    use crate::{
        replay::blank,
        testkit::{
            Fault,
            suite::profile::{Profile, header},
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
