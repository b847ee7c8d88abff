//! Recording scripts on the kernel that this program runs on (Linux on x86-64).
//!
//! A [`Plan`] is what processes shall do; [`record`] has real processes do it and returns a
//! [`Script`] with what the kernel did after each step, in the format of the recorded scripts.
//! [`replay_parts`](crate::replay::replay_parts) runs it on this library and compares; anyone with
//! an address space of their own can compare it in the same way.
//!
//! ```no_run
//! use emmu::{host::{Plan, record}, replay::{Op, Report, replay_parts}};
//!
//! let plan = Plan {
//!     name: "one store".into(),
//!     files: Default::default(),
//!     steps: vec![
//!         (0, serde_json::from_str::<Op>(r#"{"op": "mmap", "addr": "0x10000000000", "len": 8192,
//!             "prot": "rw-", "flags": ["private", "fixed"], "file": null, "off": 0}"#)?),
//!         (0, Op::Store { addr: 1 << 40, byte: 1 }),
//!     ],
//! };
//! let recording = record(&plan)?;
//! println!("{}", recording.script.to_jsonl());
//! let done = replay_parts(&recording.script, recording.parts)?;
//! assert!(done.is_whole(), "{}", Report::of(&done).unwrap());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A script that is there already, such as one that `testkit::Suite` saved, is a plan too:
//! `Plan::from(&script)`.
//!
//! Files of kind `disk` lie where temporary files do (`TMPDIR`), which must be an ext4 with blocks
//! of a page.
//!
//! What can be seen depends on rights, and [`Recording::parts`] says what was: outcomes always and,
//! with them, the contents that loads returned; layouts always; page tables where
//! `/proc/PID/pagemap` shows frames (`CAP_SYS_ADMIN`); windows where `/dev/kvm` and tracefs can be
//! used: process 0 then holds a virtual machine, so that a real MMU notifier is registered, and the
//! tracepoint `kvm_unmap_hva_range` tells what it is told. The kernel's rules are compared only
//! where they are those that this library follows: on another release than 6.18, only outcomes are.
//!
//! # How it runs
//!
//! The processes are forked from the calling one and do nothing but system calls, loads and stores
//! in the arena, 64 GiB from 1 TiB on, where no kernel puts anything by itself. A signal of such an
//! access is caught and is its outcome. They end with the recording, also when the caller dies.

mod call;
mod executor;
mod family;
mod look;
mod record;
mod trace;

pub use record::{Plan, Recording, Unavailable, record};

use std::ops::Range;

/// The addresses that a plan may use; what lies outside is not recorded.
pub const ARENA: Range<u64> = 0x100_0000_0000..0x110_0000_0000;

/// The most processes of a plan, counting those that have exited.
pub const MAX_PROCESSES: u32 = 8;

/// The release whose rules this library follows.
const RELEASE: &str = "6.18.";

#[cfg(doc)]
use crate::replay::Script;
