//! Recordings of real programs, followed from the layout after `execve` to the kernel's final
//! layout.
//!
//! A recording is a folder (`data/README.md` has the format): the system calls of a program and its
//! children as `strace` saw them, its page faults, the layouts of its processes right after
//! `execve` and at `exit_group`. [`Program::load`] or [`shipped`] reads one, [`run`] follows it on
//! a machine of its own, [`Outcome`] says what became of each process. [`run_on`] does the same on
//! a given machine and tells a [`Watch`] of every step.
//!
//! ```
//! use emmu::replay::program::{run, shipped};
//!
//! let outcome = run(&shipped()?)?;
//! println!("{outcome}");
//! assert!(outcome.is_whole());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Every call goes through the address space's own rules. Of the recording only that is believed
//! which no layout tells: the answer of the first `brk`, the number of a forked child, what
//! descriptors lead to (one without a path is not open), what became of huge pages from a pool, and
//! errors that come from files, rights, limits and memory of the recorded machine. A recording does
//! not say how long files are: every page of a file that no recorded call cut is there. Where calls
//! of several threads overlapped, the addresses that they returned decide which came first.

mod act;
mod args;
mod believe;
mod bulk;
mod call;
mod event;
mod family;
mod faults;
mod files;
mod follow;
mod huge;
mod image;
mod layouts;
mod load;
mod maps;
mod order;
mod place;
mod race;
mod run;
mod strace;
mod text;
mod verdict;
mod watch;
mod words;

pub use call::{Call, Descriptor, OpenAccess, Returned};
pub use event::{Event, What};
pub use faults::{Fault, Kind as FaultKind, parse as parse_faults};
pub use load::{Program, ProgramError, is_program, shipped};
pub use maps::{Row, parse as parse_maps};
pub use run::{machine, machine_within, run, run_on, run_within};
pub use strace::{Body, Line, parse as parse_strace};
pub use verdict::{Differing, Outcome, Process, Verdict};
pub use watch::{Nobody, Watch, Who};
