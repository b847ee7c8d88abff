//! Recorded scripts of real memory operations, run and compared with Linux step by step.
//!
//! A script is a file of JSON lines: a header, then one operation a line with its outcome, the
//! notices of a real MMU notifier, the VMAs and the page tables (`data/README.md` has the format).
//! [`load`] or [`shipped`] reads scripts, [`replay`] runs one on a machine of its own up to the
//! first difference, [`Summary`] counts, [`Report`] shows a difference.
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
//! Page tables are compared up to the names of their frames: Linux and this library agree if one
//! renaming of frames, for all processes at once, makes their page tables equal.
//!
//! | file | holds |
//! | --- | --- |
//! | `script`, `op`, `about_op`, `resource`, `ground` | a script as types: header, steps, operations, initial state |
//! | `parse`, `write`, `load` | reading, writing and finding scripts |
//! | `json`, `wire_words`, `hex`, `file_names` | the words of the format, and the names of files |
//! | `run` | the replay of a script |
//! | `family`, `calls`, `process`, `objects` | the processes of a script, and the execution of operations |
//! | `background` | memory of a recorded process outside of the arena |
//! | `buffers` | memory that the kernel's I/O holds for processes |
//! | `special_op`, `special` | files by path, secret memory, segments, keys, policies: arguments, execution |
//! | `own_memory` | a device with memory of its own |
//! | `uffd_op`, `userfaults` | userfaultfds: arguments, results, execution |
//! | `came` | results of the library as outcomes of scripts |
//! | `limits`, `work`, `refused` | the limits of an input, and the cost of a step |
//! | `notices` | the invalidations of process 0 |
//! | `compare`, `compare_pages`, `observe`, `pages`, `names` | the comparison with Linux, and the state of processes |
//! | `report`, `summary` | a difference in readable form, and the counts of many scripts |
//! | `record` | the recording of this library |
//! | `daemons` | operations of the kernel by itself |
//! | `followers` | the external MMUs behind one trait |
//! | `mmu_kind`, `devices` | external MMUs that take part in a replay |
//! | `timeline`, `trace`, `figure` | the events of a replay, for viewers |
//! | `program` | recordings of real programs |
//! | `round_trip` | a test: every operation reads back as written |

mod about_op;
mod background;
mod buffers;
mod calls;
mod came;
mod compare;
mod compare_pages;
mod daemons;
mod devices;
mod family;
#[cfg(feature = "svg")]
mod figure;
mod file_names;
mod followers;
mod ground;
mod hex;
mod json;
mod limits;
mod load;
mod mmu_kind;
mod names;
mod notices;
mod objects;
mod observe;
mod op;
mod own_memory;
mod pages;
mod parse;
mod process;
pub mod program;
mod record;
mod refused;
mod report;
mod resource;
mod run;
mod script;
mod special;
mod special_op;
mod summary;
mod timeline;
mod trace;
mod uffd_op;
mod userfaults;
mod wire_words;
mod work;
mod write;

#[cfg(test)]
mod round_trip;
#[cfg(test)]
mod tests;

pub use compare::{Difference, Expected, Observed, Parts, Sides, Stretch, differing_pages};
pub use devices::{Devices, Presented, Standing};
#[cfg(feature = "svg")]
pub use figure::{FigureError, svg};
#[cfg(feature = "host")]
pub(crate) use file_names::is_fileless;
pub use ground::{Before, OpenMode, PoolBefore, Seed};
pub use hex::Hex;
pub use limits::{InputError, ReplayError, ReplayLimits};
pub use load::{Inputs, load, natural, read, shipped};
pub use mmu_kind::{MmuKind, NoSuchMmu};
pub use op::Op;
pub use pages::{Entry, Kind, MAX_PAGES, Numbering, PageTables, Parser, Run};
pub use record::{Follow, Next, Processes, blank, record};
pub use report::Report;
pub use resource::Resource;
pub use run::{First, Replayed, replay, replay_forking, replay_parts, replay_with, replay_within};
pub use script::{
    FileKind, FileSpec, Header, MapsRow, Notice, Notified, OURS, Outcome, Script, ScriptError, Step,
};
pub use special_op::{
    AnonName, Bytes, Mbind, MmapSecret, NewDevice, OpenPath, PkeyMprotect, Shmat, Shmget,
};
pub use summary::{Summary, Tally};
pub use timeline::{Followed, Hold, Moment, Timeline};
pub use trace::trace;
pub use uffd_op::{
    Answer, Answered, Clear, Copy, FaultLoad, FaultStore, Fill, Moded, More, Move, Open, Part,
    Resolve, Results, ScanOf,
};
