//! Mistakes that were made with external MMUs: each as it was, with the test that catches it, and its sound twin.
//!
//! A piece is one of three kinds ([`Shown`]):
//!
//! * a **device** with the mistake, on trial: the property that catches it, on a real machine of this library;
//! * a **schedule** on paper, step by step, for mistakes of the kernel itself, which this library cannot make: windows are
//!   values, entries change only inside of them, the chain keeps its drivers;
//! * a **type**: the mistake does not compile, and a case of `tests/ui/` shows the error.
//!
//! ```sh
//! cargo run --features testkit --example museum           all of them
//! cargo run --features testkit --example museum B22 gVisor  some
//! ```
//!
//! The catalogue has 48 families of mistakes. Two have no piece, as they are no mistakes but costs: B10, windows for each table
//! instead of one for the range (Linux since 2014; a matter of windows for each call), and B48, hardware without
//! accessed bits, for which "young" means "was mapped", and which pays with refaults (what a device of
//! [`Declared::ages`](super::Declared) is asked for: after an access, the answer is yes). What came of a family in more than
//! one way has several pieces: `B11`, `B11'`, `B11''`.
//!
//! | file | |
//! | --- | --- |
//! | `pairing` | begins, ends and the shape of windows |
//! | `ordering` | look-ups against windows |
//! | `bits` | rights, dirty bits, aging |
//! | `lifetime` | coming, going, sleeping, locks |
//! | `peers` | what other systems found in themselves |
//! | `specimen`, `interface` | a driver with one of thirty flaws |
//! | `paper` | a kernel that can be told every step |

mod bits;
mod interface;
mod lifetime;
mod ordering;
mod pairing;
mod paper;
mod peers;
mod specimen;

pub use paper::{Broken, Do};
pub use specimen::Flaw;

use super::{Kit, Property, Verdict, verdict::columns};
use std::fmt;

/// How a piece is shown.
#[derive(Clone, Copy)]
pub enum Shown {
    /// A device on trial.
    Device {
        /// The property that catches it.
        property: Property,
        /// Who sees it: one of these first. See [`Seen::oracle`](super::Seen::oracle).
        oracles: &'static [&'static str],
        /// With the mistake.
        broken: fn() -> Kit,
        /// Without.
        sound: fn() -> Kit,
    },
    /// A schedule on paper.
    Schedule {
        /// What it violates.
        broken_by: Broken,
        /// With the mistake.
        broken: &'static [Do],
        /// Without.
        sound: &'static [Do],
    },
    /// A case of `tests/ui/`, by its name without `.rs`.
    Type(&'static str),
}

/// One mistake.
#[derive(Clone, Copy)]
pub struct Piece {
    /// Its number in the catalogue: `B1` to `B48` for Linux and its drivers, the system's name for others.
    pub id: &'static str,
    /// When it was made or found.
    pub year: u16,
    /// Where.
    pub system: &'static str,
    /// The commit, message or report.
    pub reference: &'static str,
    /// What was wrong.
    pub what: &'static str,
    /// How it is shown.
    pub shown: Shown,
}

/// What showing a piece came to.
#[derive(Debug)]
pub struct Showing {
    /// What was done, in two columns.
    pub schedule: String,
    /// What was seen, and by whom; nothing, if all was well.
    pub seen: Vec<(&'static str, String)>,
}

impl Piece {
    /// Every piece, by family.
    pub fn all() -> Vec<Self> {
        [
            pairing::PIECES,
            ordering::PIECES,
            bits::PIECES,
            lifetime::PIECES,
            peers::PIECES,
        ]
        .concat()
    }
    /// Shows it with the mistake.
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
    /// Shows the same without the mistake: nothing may be seen.
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
    /// What catches it: the property or the kind of show, in a word.
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

/// Lines of a schedule that are worth showing.
const LINES: usize = 10;

fn of_verdict(verdict: &Verdict) -> Showing {
    let seen = verdict.seen().iter();
    Showing {
        schedule: verdict.schedule(LINES),
        seen: seen.map(|s| (s.oracle(), s.to_string())).collect(),
    }
}

fn of_schedule(schedule: &[Do]) -> Showing {
    let (steps, broken) = paper::play(schedule);
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

/// A device that is a specimen with a flaw; its twin is one without.
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
use flawed;
