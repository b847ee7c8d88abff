//! Questions about an operation, which a replay asks before it executes it.

use super::{op::Op, uffd_op};
use crate::mm::MsyncFlags;

/// `PR_SET_MEMORY_MERGE`.
pub(super) const SET_MERGE: u32 = 67;
/// `PR_GET_MEMORY_MERGE`.
pub(super) const GET_MERGE: u32 = 68;

/// `PR_SET_THP_DISABLE`.
pub(super) const SET_THP_DISABLE: u32 = 41;
/// `PR_GET_THP_DISABLE`.
pub(super) const GET_THP_DISABLE: u32 = 42;

/// The options of `prctl` that scripts can have.
pub(super) const OPTIONS: [u32; 4] = [SET_MERGE, GET_MERGE, SET_THP_DISABLE, GET_THP_DISABLE];

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
            | Self::PagemapScan(uffd_op::ScanOf { target, .. })
            | Self::ClearRefs(uffd_op::Clear { target, .. })
            | Self::MemRead { target, .. }
            | Self::MemWrite { target, .. }
            | Self::ExitAndReap { target } => (Some(*target), &[]),
            Self::MigrateMany { moves } => (None, moves),
            _ => (None, &[]),
        };
        target.into_iter().chain(moves.iter().map(|m| m.0))
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
                | Self::Mremap(_)
                | Self::Brk { .. }
                | Self::MmapSecret(_)
                | Self::Shmat(_)
        )
    }
}
