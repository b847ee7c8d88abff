//! [`Piece`]: one mistake, and the way to show it.

use super::paper::{PaperStep, Violation, play};
use crate::testkit::{Kit, Property, Verdict, verdict::columns};
use std::fmt;

/// The way to show a piece.
#[derive(Clone, Copy, Debug)]
pub enum Shown {
    /// A device on trial.
    Device {
        /// The property that catches the mistake.
        property: Property,
        /// The oracles of which one reports first; see
        /// [`Seen::oracle`](crate::testkit::Seen::oracle).
        oracles: &'static [&'static str],
        /// The kit of the device with the mistake.
        broken: fn() -> Kit,
        /// The kit of the sound twin.
        sound: fn() -> Kit,
    },
    /// A schedule of the kernel on paper.
    Schedule {
        /// The violation that the schedule leads to.
        broken_by: Violation,
        /// The schedule with the mistake.
        broken: &'static [PaperStep],
        /// The schedule of the sound twin.
        sound: &'static [PaperStep],
    },
    /// A case of `tests/ui/`, by its name without `.rs`.
    Type(&'static str),
}

/// One mistake.
///
/// # Examples
///
/// ```
/// use emmu::testkit::museum::Piece;
///
/// let pieces = Piece::all();
/// let piece = pieces.iter().find(|piece| piece.id == "B22").expect("in the catalogue");
/// assert!(!piece.show().seen.is_empty(), "the mistake is caught");
/// assert!(piece.show_sound().seen.is_empty(), "its sound twin is not blamed");
/// ```
#[derive(Clone, Copy)]
pub struct Piece {
    /// Number in the catalogue: `B1` to `B51` and `C1` to `C56` for Linux and its drivers, the
    /// system's name for others.
    pub id: &'static str,
    /// Year of the mistake or of its discovery.
    pub year: u16,
    /// System with the mistake.
    pub system: &'static str,
    /// Commit, message or report.
    pub reference: &'static str,
    /// The mistake, in a sentence.
    pub what: &'static str,
    /// The way to show the piece.
    pub shown: Shown,
}

/// The result of a piece.
#[derive(Debug)]
pub struct Showing {
    /// The steps, in two columns: process and device.
    pub schedule: String,
    /// The violations, each with the oracle that reported it; empty for a sound twin.
    pub seen: Vec<(&'static str, String)>,
}

impl Piece {
    /// Runs the piece with the mistake.
    pub fn show(&self) -> Showing {
        match self.shown {
            Shown::Device {
                property, broken, ..
            } => of_verdict(&broken().check(property)),
            Shown::Schedule { broken, .. } => of_schedule(broken),
            Shown::Type(case) => Showing {
                schedule: String::new(),
                seen: vec![("type", format!("does not compile: tests/ui/{case}.rs"))],
            },
        }
    }
    /// Runs the sound twin of the piece, which must show no violation.
    pub fn show_sound(&self) -> Showing {
        match self.shown {
            Shown::Device {
                property, sound, ..
            } => of_verdict(&sound().check(property)),
            Shown::Schedule { sound, .. } => of_schedule(sound),
            Shown::Type(_) => Showing {
                schedule: String::new(),
                seen: Vec::new(),
            },
        }
    }
    /// Returns the name of the check that catches the mistake.
    pub fn catcher(&self) -> String {
        match self.shown {
            Shown::Device { property, .. } => format!("property `{property}`"),
            Shown::Schedule { broken_by, .. } => {
                format!("the paper kernel's {}", broken_by.oracle())
            }
            Shown::Type(_) => "the compiler".to_owned(),
        }
    }
}

/// The number of lines of a schedule, from its end.
const LINES: usize = 10;

fn of_verdict(verdict: &Verdict) -> Showing {
    let seen = verdict.seen().iter();
    Showing {
        schedule: verdict.schedule(LINES),
        seen: seen.map(|s| (s.oracle(), s.to_string())).collect(),
    }
}

fn of_schedule(schedule: &[PaperStep]) -> Showing {
    let (steps, broken) = play(schedule);
    Showing {
        schedule: columns(&steps),
        seen: broken
            .map(|b| (b.oracle(), b.to_string()))
            .into_iter()
            .collect(),
    }
}

impl fmt::Debug for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Piece")
            .field("id", &self.id)
            .field("what", &self.what)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            id,
            year,
            system,
            reference,
            what,
            ..
        } = self;
        write!(f, "{id}  {system}, {year}  ({reference})\n  {what}")
    }
}

/// Shows a specimen with a flaw; the twin is a specimen without one.
macro_rules! flawed {
    ($flaw:ident, $property:ident, $($oracle:literal)|+) => {
        $crate::testkit::museum::Shown::Device {
            property: $crate::testkit::Property::$property,
            oracles: &[$($oracle),+],
            broken: || $crate::testkit::museum::specimen::specimen(Some($crate::testkit::museum::Flaw::$flaw)),
            sound: || $crate::testkit::museum::specimen::specimen(None),
        }
    };
}
pub(super) use flawed;
