//! Recordings of real programs, replayed from the layout after `execve` to the kernel's final
//! layout.
//!
//! A recording is a folder (`data/README.md` has the format): the system calls of a program and its
//! children in the form of `strace`, its page faults, and the layouts of its processes right after
//! `execve` and at `exit_group`. [`Program::load`] or [`shipped`] reads one, [`run`] follows it on
//! a machine of its own, and a [`ProgramOutcome`] has the result of each process. [`run_on`]
//! follows a recording on a given machine and tells a [`Watch`] of every step.
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
//! Every call goes through the address space's own rules. The replay takes from the recording only
//! the facts that no layout shows: the answer of the first `brk`, the number of a forked child, the
//! files of descriptors (one without a path is closed), the outcome of huge pages from a pool, and
//! errors that come from files, rights, limits and memory of the recorded machine. A recording does
//! not contain the lengths of files: every page exists of a file that no recorded call cut. Where
//! calls of several threads overlapped, the addresses that they returned decide the order.
//!
//! | file | holds |
//! | --- | --- |
//! | `load` | a recording from its folder |
//! | `strace`, `text`, `args`, `strace_words`, `call` | lines of `strace`, as typed calls |
//! | `faults`, `maps` | the other files of a recording |
//! | `event`, `order`, `race`, `layouts` | the order of events, and the programs of layouts |
//! | `run`, `follow` | the replay, event by event |
//! | `execute`, `place`, `huge`, `believe`, `bulk` | the execution of one call |
//! | `family`, `files`, `image` | threads, descriptors, address spaces |
//! | `verdict`, `watch` | the result, and observers |

mod args;
mod believe;
mod bulk;
mod call;
mod event;
mod execute;
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
mod strace_words;
mod text;
mod verdict;
mod watch;

pub use call::{Call, Descriptor, MemfdKind, OpenAccess, Returned};
pub use event::{ProgramEvent, What};
pub use faults::{FaultKind, RecordedFault, parse as parse_faults};
pub use load::{Program, ProgramError, is_program, shipped};
pub use maps::{Row, parse as parse_maps};
pub use run::{machine, machine_within, run, run_on, run_within};
pub use strace::{Body, Line, parse as parse_strace};
pub use verdict::{Differing, LayoutVerdict, Process, ProgramOutcome};
pub use watch::{Nobody, Watch, Who};
