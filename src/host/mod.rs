//! Recording of scripts on the kernel of this machine (Linux on x86-64).
//!
//! A [`Plan`] lists operations of processes. [`record`] executes them with real processes and
//! returns a [`Script`] with the kernel's reaction to each step, in the format of the recorded
//! scripts. [`replay_parts`](crate::replay::replay_parts) runs that script on this library and
//! compares; another address space can be compared in the same way.
//!
//! ```no_run
//! use emmu::{host::{Plan, record}, replay::{Op, Report, replay_parts}};
//!
//! let plan = Plan {
//!     name: "one store".into(),
//!     steps: vec![
//!         (0, serde_json::from_str::<Op>(r#"{"op": "mmap", "addr": "0x10000000000", "len": 8192,
//!             "prot": "rw-", "flags": ["private", "fixed"], "file": null, "off": 0}"#)?),
//!         (0, Op::Store { addr: 1 << 40, byte: 1 }),
//!     ],
//!     ..Plan::default()
//! };
//! let recording = record(&plan)?;
//! println!("{}", recording.script.to_jsonl());
//! let done = replay_parts(&recording.script, recording.parts)?;
//! assert!(done.is_whole(), "{}", Report::of(&done).unwrap());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! An existing script, such as one that `testkit::Suite` saved, is a plan too:
//! `Plan::from(&script)`.
//!
//! Files of kind `disk` are on the file system of temporary files (`TMPDIR`), which must be ext4
//! with blocks of a page.
//!
//! A plan that maps huge pages has the pool of the machine alone, with as many free pages of 2 MiB
//! as [`Plan::huge_pages`] asks for; the pool is as before afterwards. It takes root, and a pool
//! that nothing else uses; other recordings wait, also those of other processes. Every step that
//! makes secret memory, a segment of System V or a userfaultfd makes a new one; the recorder is the
//! handler of all userfaultfds, and answers a fault as the plan says. A jump runs one instruction,
//! whatever it is. Daemons of the kernel work for one recording of the machine at a time; their
//! settings are as before afterwards. A heap begins where the plan says. A file that a plan opens
//! by its path is read only, but for `/dev/zero` and `/dev/null`.
//!
//! The visible parts depend on rights, and [`Recording::parts`] names them: outcomes always, with
//! the contents that loads returned; layouts and the flags of VMAs always; page tables where
//! `/proc/PID/pagemap` shows frames (`CAP_SYS_ADMIN`); windows where `/dev/kvm` and tracefs are
//! usable. In that case process 0 holds a virtual machine, so that a real MMU notifier is
//! registered, and the tracepoint `kvm_unmap_hva_range` shows its invalidations. A comparison is
//! limited to the rules that this library follows: on another release than 6.18, only outcomes
//! count.
//!
//! # Processes
//!
//! The processes are forks of the calling one and do nothing but system calls, loads and stores in
//! the arena, 64 GiB from 1 TiB on, where no kernel puts anything by itself. A handler catches the
//! signal of such an access, which is its outcome. The processes end with the recording, also when
//! the caller dies.
//!
//! | file | holds |
//! | --- | --- |
//! | `plan`, `plan_check`, `record` | plans, those that are refused, and the recording |
//! | `files`, `opened`, `pool` | the files of a plan, those that it opens by path, its huge pages |
//! | `family`, `executor`, `protocol`, `call` | the processes, their loop, and its requests |
//! | `access`, `held` | loads, stores and jumps of a process; the memory that it holds for devices |
//! | `own_calls` | calls with structures in the process's own memory |
//! | `others`, `limits` | operations on other processes, and limits |
//! | `daemons` | `ksmd` and `khugepaged` at work |
//! | `alone` | settings of the machine, for one recording at a time |
//! | `special` | secret memory, and segments of System V |
//! | `userfaults` | userfaultfds, and scans of pagemaps |
//! | `raw` | system calls without a safe wrapper |
//! | `look` | the state of the processes, from `/proc` |
//! | `trace` | the invalidations of a real MMU notifier |

mod access;
mod alone;
mod call;
mod daemons;
mod executor;
mod family;
mod files;
mod held;
mod limits;
mod look;
mod opened;
mod others;
mod own_calls;
mod plan;
mod plan_check;
mod pool;
mod protocol;
mod raw;
mod record;
mod special;
mod trace;
mod userfaults;

pub use plan::{Plan, Unavailable};
pub use record::{Recording, record};

use std::ops::Range;

/// The addresses of a plan; a recording does not include others.
pub const ARENA: Range<u64> = 0x100_0000_0000..0x110_0000_0000;

/// Most processes of a plan, those that have exited included.
pub const MAX_PROCESSES: u32 = 8;

/// The release whose rules this library follows.
const RELEASE: &str = "6.18.";

#[cfg(doc)]
use crate::replay::Script;
