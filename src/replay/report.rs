//! [`Report`]: a difference in readable form, with its place, the operation, and the two sides as
//! far as they differ.

use super::{
    compare::{Difference, Sides, Stretch, differing_pages},
    pages::{Entry, PageTables, Run},
    run::{First, Replayed},
    script::{MapsRow, Notified, Outcome},
};
use crate::addr::PAGE_SIZE;
use serde_json::{Value, json};
use std::fmt;

/// Most lines of a side; the report counts the rest.
const MOST: usize = 12;

/// The report on one script that differs from Linux.
#[derive(Clone, Copy, Debug)]
pub struct Report<'r> {
    script: &'r Replayed,
    first: &'r First,
}

impl<'r> Report<'r> {
    /// Returns the report; `None` for a script that went as on Linux to its end.
    pub fn of(script: &'r Replayed) -> Option<Self> {
        script.first.as_ref().map(|first| Self { script, first })
    }
    /// Returns the report as JSON.
    pub fn to_json(&self) -> Value {
        let cause = cause(&self.first.difference);
        let step: Value = serde_json::from_str(&self.first.step).unwrap_or_default();
        let mut report = json!({ "line": self.first.line, "cause": cause, "step": step });
        let detail = match &self.first.difference {
            Difference::Panic(message) => vec![("message", json!(message))],
            _ => {
                let Sides { linux, emmu } = sides(&self.first.difference);
                vec![("linux", json!(linux)), ("emmu", json!(emmu))]
            }
        };
        if let Some(map) = report.as_object_mut() {
            map.extend(
                detail
                    .into_iter()
                    .map(|(key, value)| (key.to_owned(), value)),
            );
        }
        report
    }
}

/// Returns the column of the summary that counts this difference.
fn cause(difference: &Difference) -> &'static str {
    Difference::CAUSES
        .get(difference.cause())
        .copied()
        .unwrap_or("?")
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Replayed {
            name,
            steps,
            agreed,
            ..
        } = self.script;
        let First {
            line,
            step,
            difference,
        } = self.first;
        write!(f, "{name}:{line}: {}", cause(difference))?;
        writeln!(f, " (the first {agreed} of {steps} steps went as on Linux)")?;
        writeln!(f, "  {step}")?;
        match difference {
            Difference::Panic(message) => writeln!(f, "  emmu panicked: {message}"),
            _ => {
                let Sides { linux, emmu } = sides(difference);
                side(f, "Linux:", &linux)?;
                side(f, "emmu: ", &emmu)
            }
        }
    }
}

fn side(f: &mut fmt::Formatter<'_>, who: &str, lines: &[String]) -> fmt::Result {
    let mut who = who;
    for line in lines.iter().take(MOST) {
        writeln!(f, "  {who} {line}")?;
        who = "      ";
    }
    match lines.len() {
        0 => writeln!(f, "  {who} nothing"),
        n if n > MOST => writeln!(f, "  {who} and {} more", n - MOST),
        _ => Ok(()),
    }
}

fn sides(difference: &Difference) -> Sides<Vec<String>> {
    match difference {
        Difference::Outcome(s) => both(s, |o| vec![o.to_string()]),
        Difference::Results(s) => both(s, |r| vec![serde_json::json!(r).to_string()]),
        Difference::Windows(s) => both(s, |l: &Vec<Notified>| strings(l.iter())),
        Difference::Layout { process, sides } => layout_sides(*process, sides),
        Difference::VmFlags { process, sides } => both(sides, |vmas| {
            let flags = vmas
                .iter()
                .map(|flags| format!("process {process}: {flags}"));
            flags.collect()
        }),
        Difference::Pages(s) => page_sides(s),
        Difference::Protected { process, sides } => both(sides, |pages| {
            let pages = pages.iter().map(|page| format!("{page:#x}"));
            let pages: Vec<String> = pages.collect();
            vec![format!("process {process} protected: {}", pages.join(" "))]
        }),
        Difference::Panic(_) => Sides {
            linux: vec![],
            emmu: vec![],
        },
    }
}

fn both<T>(sides: &Sides<T>, show: impl Fn(&T) -> Vec<String>) -> Sides<Vec<String>> {
    Sides {
        linux: show(&sides.linux),
        emmu: show(&sides.emmu),
    }
}

fn strings(items: impl Iterator<Item = impl ToString>) -> Vec<String> {
    items.map(|item| item.to_string()).collect()
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ret(value @ ..PAGE_SIZE) => write!(f, "returns {value}"),
            Self::Ret(value) => write!(f, "returns {value:#x}"),
            Self::Err(errno) => write!(f, "fails with {errno}"),
            Self::Signal(signal) => write!(f, "raises {signal}"),
        }
    }
}

fn layout_sides(process: u32, sides: &Sides<Vec<MapsRow>>) -> Sides<Vec<String>> {
    let only = |rows: &[MapsRow], others: &[MapsRow]| {
        let missing = rows.iter().filter(|row| !others.contains(row));
        missing
            .map(|row| format!("process {process}: {row}"))
            .collect()
    };
    Sides {
        linux: only(&sides.linux, &sides.emmu),
        emmu: only(&sides.emmu, &sides.linux),
    }
}

fn page_sides(sides: &Sides<PageTables>) -> Sides<Vec<String>> {
    let stretches = differing_pages(sides, MOST + 1);
    let show = |s: &Stretch, pick: fn(&Sides<Option<Entry>>) -> Option<Entry>| {
        let at = s.page.saturating_mul(PAGE_SIZE);
        let tokens = tokens(s.page, s.sides.iter().map(pick));
        format!("process {}: {at:#x}: {tokens}", s.process)
    };
    Sides {
        linux: stretches
            .iter()
            .map(|s| show(s, |page| page.linux))
            .collect(),
        emmu: stretches
            .iter()
            .map(|s| show(s, |page| page.emmu))
            .collect(),
    }
}

/// Returns entries in the form of a script; `-` for no entry.
fn tokens(first: u64, entries: impl Iterator<Item = Option<Entry>>) -> String {
    let mut words: Vec<String> = Vec::new();
    let mut runs: Vec<Run> = Vec::new();
    for (page, entry) in (first..).zip(entries) {
        let Some(Entry { kind, frame }) = entry else {
            words.extend(runs.drain(..).map(|run| run.to_string()));
            words.push("-".into());
            continue;
        };
        Run::append(
            &mut runs,
            Run {
                page,
                len: 1,
                kind,
                frame,
            },
        );
    }
    words.extend(runs.drain(..).map(|run| run.to_string()));
    words.join(" ")
}
