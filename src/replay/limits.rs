//! The limits of an input, and the errors that name them.

use crate::{
    ctx::AlreadyEntered,
    frame::{Contents, MemConfig, RefusedAllocations},
    mm::{Machine, MachineConfig},
};
use std::sync::Arc;
use thiserror::Error;

/// An input that cannot be read or followed: file, line and reason.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{file}:{line}: {why}")]
pub struct InputError {
    /// The file.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// The reason.
    pub why: String,
}

/// The reason for a replay without a result.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// The current thread is on a machine already.
    #[error(transparent)]
    Entered(#[from] AlreadyEntered),
    /// The input exceeds the [`ReplayLimits`], contradicts itself, or made this library panic.
    #[error(transparent)]
    Input(#[from] InputError),
}

/// Limits on the cost of an input. Only an input that would exhaust the host meets the defaults; a
/// step beyond a limit is an error that names the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplayLimits {
    /// Bytes of all inputs of one reader, decompressed.
    pub input: u64,
    /// Bytes of all files of a script together, filled before the first step.
    pub files: u64,
    /// Pages of 4 KiB of all processes and files at a time.
    pub pages: u32,
    /// Page-table pages of all processes at a time.
    pub tables: u64,
    /// Pages that one step may bring in, guard or lock.
    pub step: u64,
    /// Processes at a time.
    pub processes: usize,
    /// Mappings of all processes at a time, when one of them forks; those of a process whose line
    /// has several forks count once for each.
    pub mappings: usize,
    /// Open descriptors of all processes at a time, when one of them forks.
    pub descriptors: usize,
}

impl Default for ReplayLimits {
    /// Returns the usual limits: 256 MiB of input, 256 MiB of files, 2 GiB of memory, 32 GiB of
    /// addresses with something in their page tables, 4 GiB of them in one step, 1024 processes
    /// with four million mappings and a million descriptors.
    fn default() -> Self {
        Self {
            input: 256 << 20,
            files: 256 << 20,
            pages: 1 << 19,
            tables: 1 << 14,
            step: 1 << 20,
            processes: 1024,
            mappings: 1 << 22,
            descriptors: 1 << 20,
        }
    }
}

impl ReplayLimits {
    /// Returns a machine with this much memory and no more. The commit limit counts `total` pages,
    /// the assumed memory of the recorded machine.
    pub(super) fn machine(&self, (total, swap): (u64, u32), rest: MachineConfig) -> Arc<Machine> {
        Machine::new(MachineConfig {
            memory: MemConfig {
                frames: self.pages.min(1 << 28),
                contents: Contents::Real,
                swap,
            },
            page_tables: Some(self.tables),
            commit_total: Some(total),
            ..rest
        })
    }
}

/// Returns the limit of the machine that was met since `before`; `None` if every request was
/// granted.
pub(super) fn met(machine: &Machine, before: RefusedAllocations) -> Option<String> {
    let now = machine.mem().refused();
    if now.frames > before.frames {
        let pages = machine.mem().capacity();
        return Some(beyond(pages, "pages of memory"));
    }
    let tables = machine.config().page_tables.unwrap_or_default();
    (now.tables > before.tables).then(|| beyond(tables, "page tables"))
}

/// Returns the text of an exceeded limit.
pub(super) fn beyond(most: impl std::fmt::Display, what: &str) -> String {
    format!("more than {most} {what}, which is the limit")
}
