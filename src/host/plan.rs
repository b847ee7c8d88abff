//! Plans, and the reasons why one cannot be recorded.

use crate::replay::{FileSpec, Op, OpenMode, Script};
use std::{collections::BTreeMap, io};

/// The operations for real processes.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The name of the script.
    pub name: String,
    /// The files, by name, filled as in every script.
    pub files: BTreeMap<String, FileSpec>,
    /// Other names under which files are open, and their modes.
    pub opens: BTreeMap<String, (String, OpenMode)>,
    /// Free huge pages of 2 MiB that the pool of the machine has at the beginning; `None`: as many
    /// as it has. The recording sets them, and gives them back.
    pub huge_pages: Option<u64>,
    /// The start of the heap of process 0, which is empty at the beginning; `None`: no heap in the
    /// observed addresses.
    pub heap: Option<u64>,
    /// Process and operation. Process 0 exists from the beginning. A step of a process that does
    /// not exist is skipped.
    pub steps: Vec<(u32, Op)>,
}

impl From<&Script> for Plan {
    /// Returns the operations of a script, without the outcomes, and the files that they name.
    fn from(script: &Script) -> Self {
        let steps: Vec<_> = script
            .steps
            .iter()
            .map(|step| (step.actor, step.op.clone()))
            .collect();
        let named = |name: &String| steps.iter().any(|(_, op)| op.file() == Some(name));
        let mut opens = script.header.opens.clone();
        opens.retain(|name, _| named(name));
        let mut files = script.header.files.clone();
        files.retain(|name, _| named(name) || opens.values().any(|(of, _)| of == name));
        let pools = script.header.huge_pages();
        let free = pools.first().map_or(0, |pool| pool.pages - pool.promised);
        let name = script.name.clone();
        Self {
            name,
            files,
            opens,
            huge_pages: (free > 0).then_some(free),
            heap: script.header.heap(),
            steps,
        }
    }
}

/// The reason why a plan cannot be recorded here.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Unavailable {
    /// A system call or a file of `/proc` failed.
    #[error("recording failed: {0}")]
    Io(#[from] io::Error),
    /// The pages of this machine have another size.
    #[error("pages of {0} bytes, not 4096")]
    PageSize(usize),
    /// The pool of huge pages cannot be had for the recording.
    #[error("the pool of huge pages: {0}")]
    Pool(&'static str),
    /// A daemon of the kernel cannot be had for the recording.
    #[error("the kernel's daemons: {0}")]
    Daemon(io::Error),
    /// The kernel has no secret memory, or keeps it from this process.
    #[error("no secret memory: {0}")]
    Secret(io::Error),
    /// An operation that cannot be recorded: `reclaim`, a file of this library's own, a process
    /// number too high.
    #[error("step {nth}: {why}")]
    Step {
        /// The step, from 0.
        nth: usize,
        /// The reason.
        why: &'static str,
    },
}
