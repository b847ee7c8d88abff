//! What a replay must know of an operation before it executes it.

use super::{op::Op, resource::Resource};
use crate::{addr::PAGE_SIZE, mm::MsyncFlags};

/// `PR_SET_MEMORY_MERGE`.
pub(super) const SET_MERGE: u32 = 67;
/// `PR_GET_MEMORY_MERGE`.
pub(super) const GET_MERGE: u32 = 68;

/// `PR_SET_THP_DISABLE`.
pub(super) const SET_THP_DISABLE: u32 = 41;
/// `PR_GET_THP_DISABLE`.
pub(super) const GET_THP_DISABLE: u32 = 42;

/// The options of `prctl` that scripts can have.
const OPTIONS: [u32; 4] = [SET_MERGE, GET_MERGE, SET_THP_DISABLE, GET_THP_DISABLE];

/// Most bytes of a direct write.
const MOST_WRITTEN: u64 = 64 << 20;

/// Most pages of a `mincore`: the result has a bit for each.
const MOST_BITS: u64 = 64;

/// Pages that a new pipe takes (`PIPE_DEF_BUFFERS`); a writer of more waits.
const PIPE_PAGES: u64 = 16;

impl Op {
    /// Returns an `msync` with `MS_SYNC`.
    pub fn msync(addr: u64, len: u64) -> Self {
        let flags = MsyncFlags::SYNC;
        Self::Msync { addr, len, flags }
    }
    /// Returns the other processes that take part.
    pub(super) fn targets(&self) -> impl Iterator<Item = u32> {
        let (target, moves): (_, &[_]) = match self {
            Self::PvmRead { target, .. }
            | Self::PvmWrite { target, .. }
            | Self::ProcessMadvise { target, .. }
            | Self::MemRead { target, .. }
            | Self::MemWrite { target, .. }
            | Self::ExitAndReap { target } => (Some(*target), &[]),
            Self::MigrateMany { moves } => (None, moves),
            _ => (None, &[]),
        };
        target.into_iter().chain(moves.iter().map(|m| m.0))
    }
    /// Returns the reason if no script can have this operation.
    pub(super) fn refused(&self) -> Option<String> {
        match *self {
            Self::Mincore { len, .. } if len.div_ceil(PAGE_SIZE) > MOST_BITS => {
                Some(format!("mincore of {len} bytes, more than 64 pages"))
            }
            Self::Vmsplice { len, .. } if len > PIPE_PAGES * PAGE_SIZE => {
                Some(format!("vmsplice of {len} bytes, more than a pipe takes"))
            }
            Self::Rlimit { which, over, .. }
                if over && !matches!(which, Resource::As | Resource::Memlock) =>
            {
                Some(format!("{which:?} over what is in use is not known"))
            }
            Self::Prctl { option, .. } if !OPTIONS.contains(&option) => {
                Some(format!("option {option} of prctl"))
            }
            Self::DropCaches { value } if value != 2 => {
                Some(format!("{value} written to drop_caches"))
            }
            Self::Ksm { mode } if !matches!(mode, 1 | 2) => Some(format!("mode {mode} of ksm")),
            Self::DirectWrite { len, .. } if len > MOST_WRITTEN => Some(format!(
                "a direct write of {len} bytes, more than {MOST_WRITTEN}"
            )),
            _ => None,
        }
    }
    /// Returns the file that the operation names.
    pub fn file(&self) -> Option<&str> {
        match self {
            Self::Mmap { file, .. } => file.as_deref(),
            Self::Ftruncate { file, .. }
            | Self::PunchHole { file, .. }
            | Self::Pwrite { file, .. }
            | Self::Fsync { file }
            | Self::Pread { file, .. }
            | Self::SyncFileRange { file, .. }
            | Self::ReadInto { file, .. }
            | Self::WriteFrom { file, .. }
            | Self::Fallocate { file, .. }
            | Self::DirectWrite { file, .. }
            | Self::DirectRead { file, .. }
            | Self::DirectWriteFrom { file, .. }
            | Self::FadviseDontneed { file, .. }
            | Self::Seal { file, .. } => Some(file),
            _ => None,
        }
    }
    /// Returns true if success returns an address, which scripts write in hexadecimal.
    pub(super) fn returns_address(&self) -> bool {
        matches!(
            self,
            Self::Mmap { .. }
                | Self::Mremap { .. }
                | Self::Brk { .. }
                | Self::MmapSecret { .. }
                | Self::Shmat { .. }
        )
    }
}
