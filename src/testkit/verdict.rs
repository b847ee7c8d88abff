//! [`Verdict`]: the property, the steps, the violations, and the oracle of each.

use super::{Property, place::pages};
use crate::oracle::Finding;
use std::{fmt, time::Duration};

/// The side of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The process, or the machine.
    Process,
    /// The device.
    Device,
}

/// A step of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrialStep {
    /// The side that acted.
    pub side: Side,
    /// The text of the step.
    pub what: String,
}

/// The violation of a property, as the kit or its oracle saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// The oracle found a difference between the device and the address space.
    Oracle(Finding),
    /// The device read another byte than the process.
    Stale {
        /// Byte address.
        addr: u64,
        /// The byte that the device read.
        got: u8,
        /// The byte in memory.
        wanted: u8,
    },
    /// A byte that the device wrote is missing.
    LostWrite {
        /// Byte address.
        addr: u64,
        /// The byte that the process reads.
        got: u8,
        /// The byte that the device wrote.
        wanted: u8,
    },
    /// A write of the device changed a byte beside the one that it was to write.
    Overwritten {
        /// Byte address.
        addr: u64,
        /// The byte that the process reads.
        got: u8,
        /// The byte that was there.
        wanted: u8,
    },
    /// A store of the process between the halves of an atomic operation of the device is missing.
    LostStore {
        /// Byte address.
        addr: u64,
        /// The byte that the process reads.
        got: u8,
        /// The byte that the process stored.
        wanted: u8,
    },
    /// The device used a page while a window over it was open.
    NotHeldOff(String),
    /// The device made an access that it must not make.
    Allowed(String),
    /// The device did not make an access that it must make.
    RefusedWrongly(String),
    /// A page was used after its accessed state was cleared, and the device says that it is old.
    Forgot(u64),
    /// A page was not used since then, and the device says that it is young.
    StaysYoung(u64),
    /// A device that declares not to sleep refused a window of an atomic context.
    WouldBlock,
    /// An access or operation did not end.
    Stuck {
        /// The access or operation.
        what: String,
        /// The time limit.
        after: Duration,
    },
    /// The device panicked, or made this library panic.
    Panicked(String),
    /// Counters of the device are up with no window open.
    Unsettled(String),
    /// The device serves accesses, and [`translations`](crate::notifier::ExternalMmu::translations)
    /// shows no entry: no oracle can watch it.
    Hidden(u64),
    /// The outcome of a step differs from the [model of pages](super::Reference).
    Differs(String),
    /// The structures of the processes differ from the [model of pages](super::Reference::check),
    /// or some are left in the end.
    Miscounted(String),
    /// A kept script cannot be read, for this reason.
    Unreadable(String),
    /// A frame has more references than the device declares.
    Held {
        /// Byte address of the page.
        addr: u64,
        /// References on its frame, beyond its mappings.
        extra: u32,
    },
    /// A device that pins has other pins than translations.
    Pinned {
        /// The page, and when its pins were counted.
        what: String,
        /// Pins on the frame of the page.
        pins: u64,
        /// Translations of the device that lead to the frame.
        shown: u64,
    },
}

impl Seen {
    /// Returns the source of the report: an invariant by its number, `bytes` (a comparison of both
    /// sides), `time`, `panic`, `answer` (the result of a call), `model` (the model of pages),
    /// `script` (a kept script).
    pub fn oracle(&self) -> &'static str {
        match self {
            Self::Oracle(finding) => finding.invariant().number(),
            Self::Stale { .. }
            | Self::LostWrite { .. }
            | Self::Overwritten { .. }
            | Self::LostStore { .. } => "bytes",
            Self::NotHeldOff(_) => "O4",
            Self::Stuck { .. } => "time",
            Self::Panicked(_) => "panic",
            Self::Forgot(_) | Self::StaysYoung(_) => "O10",
            Self::Unsettled(_) => "O12",
            Self::Held { .. } => "O5",
            Self::Pinned { .. } => "pins",
            Self::Hidden(_) => "O0",
            Self::Differs(_) | Self::Miscounted(_) => "model",
            Self::Unreadable(_) => "script",
            Self::Allowed(_) | Self::RefusedWrongly(_) | Self::WouldBlock => "answer",
        }
    }
}

/// Returns true for an echo of a panic: a report about the lock that the panic poisoned.
pub(super) fn is_echo(seen: &Seen) -> bool {
    match seen {
        Seen::Panicked(why) => why.contains("PoisonError"),
        Seen::Oracle(finding) => matches!(finding, Finding::Panicked { .. }),
        _ => false,
    }
}

/// Sorts violations so that a panic comes before its echoes: other threads find the lock that the
/// panic poisoned, and the kit may catch those earlier.
pub(super) fn in_order(mut seen: Vec<Seen>) -> Vec<Seen> {
    seen.sort_by_key(is_echo);
    seen
}

fn write_age(f: &mut fmt::Formatter<'_>, addr: u64, says: &str) -> fmt::Result {
    write!(
        f,
        "O10: the device says that the page at {addr:#x} is {says} since the accessed state was cleared"
    )
}

fn write_memory(f: &mut fmt::Formatter<'_>, has: u8, what: &str) -> fmt::Result {
    write!(f, ", and memory has {has} there: {what}")
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Oracle(finding) => write!(f, "{finding}"),
            Self::Stale { addr, got, wanted } => {
                write!(f, "the device reads {got} at {addr:#x}")?;
                write_memory(f, *wanted, "a stale translation")
            }
            Self::LostWrite { addr, got, wanted } => {
                write!(f, "the device wrote {wanted} to {addr:#x}")?;
                write_memory(f, *got, "a lost write")
            }
            Self::Overwritten { addr, got, wanted } => write!(
                f,
                "the device wrote beside {addr:#x}, and changed the byte there from {wanted} to {got}"
            ),
            Self::LostStore { addr, got, wanted } => {
                write!(
                    f,
                    "the process stored {wanted} at {addr:#x} between the halves of an atomic operation"
                )?;
                write_memory(f, *got, "a lost store")
            }
            Self::NotHeldOff(what) => write!(
                f,
                "O4: an access must wait for the open window, and the device ends it: {what}"
            ),
            Self::Allowed(what) => write!(f, "the device must refuse {what}"),
            Self::RefusedWrongly(what) => write!(f, "the device must not refuse {what}"),
            Self::Forgot(addr) => write_age(f, *addr, "old, and has used it"),
            Self::StaysYoung(addr) => write_age(f, *addr, "young, and has not used it"),
            Self::WouldBlock => f.write_str(
                "a device that declares not to sleep refuses a window that must not block",
            ),
            Self::Stuck { what, after } => write!(f, "after {after:?} there is no end of {what}"),
            Self::Panicked(why) => write!(f, "panic: {why}"),
            Self::Unsettled(what) => write!(f, "O12: {what}, though no window is open"),
            Self::Hidden(addr) => write!(
                f,
                "O0: the device used the page at {addr:#x}, and `translations` does not show it: no oracle can watch it. A device that evicts translations by itself declares `Holds::Tlb`"
            ),
            Self::Differs(what) | Self::Miscounted(what) => write!(f, "model: {what}"),
            Self::Unreadable(why) => write!(f, "a kept script cannot be read: {why}"),
            Self::Held { addr, extra } => write!(
                f,
                "O5: the page at {addr:#x} has {extra} more references than mappings, and the device declares that it takes none"
            ),
            Self::Pinned { what, pins, shown } => write!(
                f,
                "pins: {what} has {pins}, and the device shows {shown} translations of it"
            ),
        }
    }
}

/// The outcome of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PropertyOutcome {
    /// The check found no violation.
    Passed,
    /// The device does not declare the behaviour that the property is about, for this reason.
    Skipped(&'static str),
    /// The check found these violations, in this order.
    Failed(Vec<Seen>),
}

/// The result of one property for one device.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// The property.
    pub property: Property,
    /// The outcome.
    pub outcome: PropertyOutcome,
    /// The steps, up to the first violation.
    pub steps: Vec<TrialStep>,
    /// The duration of the check.
    pub time: Duration,
}

impl Verdict {
    /// Returns true if the check found a violation.
    pub fn is_failed(&self) -> bool {
        matches!(self.outcome, PropertyOutcome::Failed(_))
    }
    /// Returns the violations.
    pub fn seen(&self) -> &[Seen] {
        match &self.outcome {
            PropertyOutcome::Failed(seen) => seen,
            _ => &[],
        }
    }
    /// Returns the last steps in two columns, the process on the left and the device on the right,
    /// in at most `lines` lines.
    pub fn schedule(&self, lines: usize) -> String {
        columns(&self.steps[self.steps.len().saturating_sub(lines)..])
    }
}

/// Returns steps in two columns.
pub(super) fn columns(steps: &[TrialStep]) -> String {
    let left = |s: &TrialStep| (s.side == Side::Process).then(|| s.what.chars().count());
    let wide = steps.iter().filter_map(left).max().unwrap_or(0).max(8) + 3;
    let mut out = String::new();
    for step in steps {
        let line = match step.side {
            Side::Process => step.what.clone(),
            Side::Device => format!("{:wide$}{}", "", step.what),
        };
        out += "    ";
        out += &line;
        out.push('\n');
    }
    out
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, time) = (self.property.name(), self.time);
        match &self.outcome {
            PropertyOutcome::Passed => write!(f, "{name:22} passed   {time:.1?}"),
            PropertyOutcome::Skipped(why) => write!(f, "{name:22} skipped  {why}"),
            PropertyOutcome::Failed(seen) => {
                writeln!(f, "{name:22} FAILED   {}", self.property.says())?;
                if !self.property.is_of_scripts() {
                    writeln!(f, "    page 0 is {}", pages(0, 1))?;
                }
                f.write_str(&self.schedule(24))?;
                for one in seen.iter().take(6) {
                    writeln!(f, "  seen: {one}")?;
                }
                Ok(())
            }
        }
    }
}

/// The results of all properties for one device.
#[derive(Clone, Debug)]
pub struct Conformance {
    /// One verdict for each property.
    pub verdicts: Vec<Verdict>,
}

impl Conformance {
    /// Returns true if no property failed.
    pub fn passed(&self) -> bool {
        !self.verdicts.iter().any(Verdict::is_failed)
    }
    /// Returns the properties that failed.
    pub fn failed(&self) -> Vec<Property> {
        let failed = self.verdicts.iter().filter(|v| v.is_failed());
        failed.map(|v| v.property).collect()
    }
    /// Panics with the report unless every property passed or was skipped.
    ///
    /// # Panics
    ///
    /// Panics if a property failed.
    #[track_caller]
    pub fn assert(&self) {
        assert!(self.passed(), "{self}");
    }
}

impl fmt::Display for Conformance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.verdicts.iter().try_for_each(|v| writeln!(f, "{v}"))
    }
}
