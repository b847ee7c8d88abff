//! Errors of the calls that change mappings.

use super::{
    common::{ByteRange, LimitError, VmaError},
    errno::Errno,
};
use thiserror::Error;

/// The error of `munmap`. Nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum MunmapError {
    /// The range is not page aligned, empty, or beyond `TASK_SIZE`.
    #[error("{0} is not a range of pages")]
    Range(ByteRange),
    /// The list of VMAs could not be changed.
    #[error(transparent)]
    Vma(#[from] VmaError),
}

impl MunmapError {
    /// Returns Linux's errno.
    pub const fn errno(self) -> Errno {
        match self {
            Self::Range(_) => Errno::EINVAL,
            Self::Vma(e) => e.errno(),
        }
    }
}

/// The error of `mprotect`. VMAs before the failing one keep the new protection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum MprotectError {
    /// The protection has unknown bits, or both `PROT_GROWSDOWN` and `PROT_GROWSUP`.
    #[error("protection {0:#x}")]
    Prot(u32),
    /// The address is not page aligned.
    #[error("address {0:#x} is not page aligned")]
    Unaligned(u64),
    /// Address plus length wraps.
    #[error("{0} wraps")]
    Wraps(ByteRange),
    /// The range has a hole.
    #[error("nothing is mapped at {0:#x}")]
    Hole(u64),
    /// The call has `PROT_GROWSDOWN` or `PROT_GROWSUP`, and the VMA does not grow that way.
    #[error("the mapping at {0:#x} does not grow that way")]
    NotGrowing(u64),
    /// No such protection key was allocated: the processor has none.
    #[error("protection key {0}")]
    Key(i32),
    /// The VMA may never have this right.
    #[error("the mapping at {0:#x} may not have this protection")]
    Denied(u64),
    /// The change would exceed a limit.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// The list of VMAs could not be changed.
    #[error(transparent)]
    Vma(#[from] VmaError),
}

impl MprotectError {
    /// Returns Linux's errno.
    pub const fn errno(self) -> Errno {
        match self {
            Self::Prot(_) | Self::Unaligned(_) | Self::NotGrowing(_) | Self::Key(_) => {
                Errno::EINVAL
            }
            Self::Wraps(_) | Self::Hole(_) | Self::Limit(_) => Errno::ENOMEM,
            Self::Denied(_) => Errno::EACCES,
            Self::Vma(e) => e.errno(),
        }
    }
}

/// The error of `mremap`. After a late failure the target or the tail stays unmapped, as on Linux.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum MremapError {
    /// The flags are unknown, or contradict each other.
    #[error("mremap flags {0:#x}")]
    Flags(u32),
    /// An address is not page aligned.
    #[error("address {0:#x} is not page aligned")]
    Unaligned(u64),
    /// The new length is 0 or larger than the address space.
    #[error("new length {0:#x}")]
    NewLength(u64),
    /// The new range does not fit below `TASK_SIZE`.
    #[error("new range {0} does not fit below TASK_SIZE")]
    TooHigh(ByteRange),
    /// Old and new ranges overlap.
    #[error("old and new ranges overlap at {0:#x}")]
    Overlap(u64),
    /// The old length is 0, and the mapping is private.
    #[error("the mapping at {0:#x} is private and cannot be duplicated")]
    NotShared(u64),
    /// The page offset would wrap.
    #[error("the page offset of the grown mapping at {0:#x} wraps")]
    OffsetOverflow(u64),
    /// Nothing is mapped there, or the range leaves its VMA.
    #[error("{0:#x}: not mapped, or the range leaves its mapping")]
    BadRange(u64),
    /// The mapping may not be expanded.
    #[error("the mapping at {0:#x} may not be expanded")]
    DontExpand(u64),
    /// The mapping has huge pages: its addresses must be multiples of their size, and it does not
    /// grow.
    #[error("the mapping at {0:#x} moves by whole huge pages, and does not grow")]
    WholeHugePages(u64),
    /// The pages would exceed `RLIMIT_MEMLOCK`.
    #[error("{0} more locked pages exceed RLIMIT_MEMLOCK")]
    LockLimit(u64),
    /// The mapping cannot grow in place and may not move, or no hole is large enough.
    #[error("no room for {0:#x} bytes")]
    NoRoom(u64),
    /// The change would exceed a limit.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// The list of VMAs could not be changed.
    #[error(transparent)]
    Vma(#[from] VmaError),
}

impl MremapError {
    /// Returns Linux's errno.
    pub const fn errno(self) -> Errno {
        match self {
            Self::Flags(_)
            | Self::Unaligned(_)
            | Self::NewLength(_)
            | Self::TooHigh(_)
            | Self::Overlap(_)
            | Self::NotShared(_)
            | Self::WholeHugePages(_)
            | Self::OffsetOverflow(_) => Errno::EINVAL,
            Self::BadRange(_) | Self::DontExpand(_) => Errno::EFAULT,
            Self::LockLimit(_) => Errno::EAGAIN,
            Self::NoRoom(_) | Self::Limit(_) => Errno::ENOMEM,
            Self::Vma(e) => e.errno(),
        }
    }
}

impl From<MunmapError> for MremapError {
    fn from(e: MunmapError) -> Self {
        match e {
            MunmapError::Range(range) => Self::Unaligned(range.addr),
            MunmapError::Vma(v) => Self::Vma(v),
        }
    }
}
