//! What an input may cost before it is refused, and the errors that say so.

use crate::{
    ctx::AlreadyEntered,
    frame::{Contents, MemConfig, Refused},
    mm::{Machine, MachineConfig},
};
use std::sync::Arc;
use thiserror::Error;

/// An input that cannot be read or followed: which file, which line, why.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{file}:{line}: {why}")]
pub struct InputError {
    /// The file.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// What is wrong there.
    pub why: String,
}

/// Why a replay came to no result.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ReplayError {
    /// The current thread works on a machine already.
    #[error(transparent)]
    Entered(#[from] AlreadyEntered),
    /// The input asks for more than the [`Limits`], contradicts itself, or made this library panic.
    #[error(transparent)]
    Input(#[from] InputError),
}

/// What inputs may cost. Nobody sees the defaults but whoever wants to exhaust the host: a step
/// that needs more is an error that names the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of all inputs that are read one after the other, decompressed.
    pub input: u64,
    /// Bytes of all files of a script together, which are filled before it begins.
    pub files: u64,
    /// Pages of 4 KiB that all processes and files have at a time.
    pub pages: u32,
    /// Page-table pages that all processes have at a time.
    pub tables: u64,
    /// Pages that one step may bring in, guard or lock.
    pub step: u64,
    /// Processes that live at a time.
    pub processes: usize,
}

impl Default for Limits {
    /// 256 MiB of input, 256 MiB of files, 2 GiB of memory, 32 GiB of addresses with something in
    /// their page tables, 4 GiB of them at once, 1024 processes.
    fn default() -> Self {
        Self {
            input: 256 << 20,
            files: 256 << 20,
            pages: 1 << 19,
            tables: 1 << 14,
            step: 1 << 20,
            processes: 1024,
        }
    }
}

impl Limits {
    /// A machine that has no more than that. Promises are weighed against `total` pages: what the
    /// recorded machine may have had.
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

/// Which limit of a machine was met between two moments; none: it had all that was asked of it.
pub(super) fn met(machine: &Machine, before: Refused) -> Option<String> {
    let now = machine.mem().refused();
    if now.frames > before.frames {
        let pages = machine.mem().capacity();
        return Some(beyond(pages, "pages of memory"));
    }
    let tables = machine.config().page_tables.unwrap_or_default();
    (now.tables > before.tables).then(|| beyond(tables, "page tables"))
}

/// More than so many of those.
pub(super) fn beyond(most: impl std::fmt::Display, what: &str) -> String {
    format!("more than {most} {what}, which is the limit")
}
