//! Recorded scripts of real memory operations, run and compared step by step with what Linux did.
//!
//! A script is a file of JSON lines: a header, then one operation a line with its outcome, the
//! notices that a real MMU notifier got, the VMAs and the page tables (`data/README.md` has the
//! format). [`load`] or [`shipped`] reads scripts, [`replay`] runs one on a machine of its own up
//! to the first difference, [`Summary`] counts, [`Report`] shows a difference.
//!
//! ```
//! use emmu::replay::{Report, Summary, replay, shipped};
//!
//! let scripts = shipped()?;
//! let dense = scripts.iter().filter(|s| s.header.profile == "dense").take(3);
//! let done = dense.map(replay).collect::<Result<Vec<_>, _>>()?;
//! for report in done.iter().filter_map(Report::of) {
//!     println!("{report}");
//! }
//! println!("{}", Summary::of(&done).line());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Page tables are compared up to the names of their frames: Linux and this library agree when some
//! renaming of frames, the same in all processes, makes their page tables equal.

mod agree;
mod calls;
mod came;
mod compare;
mod devices;
mod family;
#[cfg(feature = "svg")]
mod figure;
mod ground;
mod hex;
mod json;
mod limits;
mod load;
mod objects;
mod op;
mod own;
mod pages;
mod parse;
mod process;
pub mod program;
mod record;
mod report;
mod run;
mod script;
mod seen;
mod summary;
mod timeline;
mod trace;
mod words;
mod work;
mod write;

#[cfg(test)]
mod round_trip;
#[cfg(test)]
mod tests;

pub use compare::{Difference, Expected, Observed, Parts, Sides, Stretch, differing_pages};
pub use devices::{Devices, MmuKind, NoSuchMmu, Presented, Standing};
#[cfg(feature = "svg")]
pub use figure::{FigureError, svg};
pub use ground::{Before, OpenMode, Seed};
pub use hex::Hex;
pub use limits::{InputError, Limits, ReplayError};
pub use load::{Inputs, load, natural, read, shipped};
pub use op::{Op, Resource};
pub use pages::{Entry, Kind, MAX_PAGES, Numbering, PageTables, Parser, Run};
pub use record::{Follow, Next, Processes, blank, record};
pub use report::Report;
pub use run::{First, Replayed, replay, replay_forking, replay_parts, replay_with, replay_within};
pub use script::{
    FileKind, FileSpec, Header, MapsRow, Notice, Notified, OURS, Outcome, Script, ScriptError, Step,
};
pub use summary::{Summary, Tally};
pub use timeline::{Followed, Hold, Moment, Timeline};
pub use trace::trace;
