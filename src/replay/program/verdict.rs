//! [`ProgramOutcome`]: the result of a replay, next to the kernel's.

use super::{image::same, maps::Row};
use serde_json::{Value, json};
use std::fmt;

/// The comparison of a process's final layout with the kernel's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LayoutVerdict {
    /// Every line is equal.
    Equal,
    /// Some lines differ.
    Differs,
    /// No layout shows the beginning of the program that the process ended in.
    NoBeginning,
    /// The recording has the final layout, but not the `exit_group`.
    NoEnd,
}

/// A process whose final layout was recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// The number.
    pub pid: u32,
    /// The comparison.
    pub verdict: LayoutVerdict,
    /// The kernel's final layout, without the kernel's own mappings.
    pub linux: Vec<Row>,
    /// The final layout of the replay.
    pub emmu: Vec<Row>,
}

/// A call with another result than recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Differing {
    /// The line in the recording.
    pub line: usize,
    /// Call and result as recorded.
    pub call: String,
    /// The result of the replay.
    pub emmu: String,
}

/// The result of a replayed program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProgramOutcome {
    /// The name of the program.
    pub name: String,
    /// Number of calls of processes with a known layout.
    pub calls: usize,
    /// Number of page faults of such processes.
    pub faults: usize,
    /// Number of those faults that were signals here.
    pub refused: usize,
    /// Number of events that were not followed, as the layout at the beginning of their program was
    /// not recorded.
    pub unknown: usize,
    /// Every process with a final layout, ascending.
    pub processes: Vec<Process>,
    /// Calls with another result.
    pub differing: Vec<Differing>,
}

impl Process {
    /// Returns the first lines that differ: the kernel's and the replay's, at most `most` of each.
    pub fn first_differing(&self, most: usize) -> (&[Row], &[Row]) {
        let pairs = self.linux.iter().zip(&self.emmu);
        let equal = pairs.take_while(|(a, b)| same(a, b)).count();
        let cut = |rows: &'_ [Row]| equal..rows.len().min(equal + most);
        (
            self.linux.get(cut(&self.linux)).unwrap_or_default(),
            self.emmu.get(cut(&self.emmu)).unwrap_or_default(),
        )
    }
    /// Returns true if the process was followed from its beginning to its end and its layout
    /// differs.
    pub fn is_wrong(&self) -> bool {
        matches!(self.verdict, LayoutVerdict::Differs | LayoutVerdict::NoEnd)
    }
}

/// Returns true if both layouts have equal lines.
pub(super) fn equal(a: &[Row], b: &[Row]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
}

impl ProgramOutcome {
    /// Returns true if every process that could be followed has the kernel's final layout, and
    /// every call its result.
    pub fn is_whole(&self) -> bool {
        self.differing.is_empty() && !self.processes.iter().any(Process::is_wrong)
    }
    /// Returns everything as one JSON object, with layouts only of processes that differ.
    pub fn to_json(&self) -> Value {
        let rows = |rows: &[Row]| -> Vec<String> { rows.iter().map(Row::to_string).collect() };
        let process = |p: &Process| {
            let mut value = json!({"pid": p.pid, "equal": p.verdict == LayoutVerdict::Equal,
                "verdict": p.verdict.to_string(), "vmas": p.linux.len()});
            if p.verdict == LayoutVerdict::Differs {
                value["linux"] = json!(rows(&p.linux));
                value["emmu"] = json!(rows(&p.emmu));
            }
            value
        };
        let call = |d: &Differing| json!({"line": d.line, "call": d.call, "emmu": d.emmu});
        json!({
            "program": self.name,
            "whole": self.is_whole(),
            "calls": self.calls,
            "faults": self.faults,
            "refused": self.refused,
            "unknown": self.unknown,
            "processes": self.processes.iter().map(process).collect::<Vec<_>>(),
            "differing": self.differing.iter().map(call).collect::<Vec<_>>(),
        })
    }
}

impl fmt::Display for LayoutVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Equal => "as on Linux",
            Self::Differs => "not as on Linux",
            Self::NoBeginning => "not followed: its initial layout was not recorded",
            Self::NoEnd => "its exit_group was not recorded",
        })
    }
}

/// Most lines of each side.
const SHOWN: usize = 4;

impl fmt::Display for ProgramOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}: {} calls, {} faults ({} were signals)",
            self.name, self.calls, self.faults, self.refused
        )?;
        if self.unknown > 0 {
            let unknown = self.unknown;
            writeln!(
                f,
                "  {unknown} events of programs whose beginning is not known"
            )?;
        }
        for process in &self.processes {
            let (pid, vmas) = (process.pid, process.linux.len());
            writeln!(f, "  process {pid}: {vmas} VMAs, {}", process.verdict)?;
            if process.verdict == LayoutVerdict::Differs {
                let (linux, emmu) = process.first_differing(SHOWN);
                linux
                    .iter()
                    .try_for_each(|r| writeln!(f, "    linux {r}"))?;
                emmu.iter().try_for_each(|r| writeln!(f, "    emmu  {r}"))?;
            }
        }
        for call in self.differing.iter().take(SHOWN) {
            let Differing { line, call, emmu } = call;
            writeln!(f, "  calls:{line}: {call}, here {emmu}")?;
        }
        if let Some(more @ 1..) = self.differing.len().checked_sub(SHOWN) {
            writeln!(f, "  {more} more calls ended in another way")?;
        }
        Ok(())
    }
}
