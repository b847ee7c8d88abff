//! Errors of the calls that change mappings.

use super::{
    common::{LimitError, VmaError},
    errno::Errno,
};
use thiserror::Error;

/// `munmap` failed; nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum MunmapError {
    /// Unaligned, empty, or beyond `TASK_SIZE`.
    #[error("[{addr:#x}, +{len:#x}) is not a range of pages")]
    Range {
        /// Address asked for.
        addr: u64,
        /// Length asked for.
        len: u64,
    },
    /// The list of VMAs.
    #[error(transparent)]
    Vma(#[from] VmaError),
}

impl MunmapError {
    /// Linux's errno.
    pub const fn errno(self) -> Errno {
        match self {
            Self::Range { .. } => Errno::EINVAL,
            Self::Vma(e) => e.errno(),
        }
    }
}

/// `mprotect` failed; VMAs before the failing one stay changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum MprotectError {
    /// Unknown bits, or both `PROT_GROWSDOWN` and `PROT_GROWSUP`.
    #[error("protection {0:#x}")]
    Prot(u32),
    /// Unaligned address.
    #[error("address {0:#x} is not page aligned")]
    Unaligned(u64),
    /// Address plus length wraps.
    #[error("[{addr:#x}, +{len:#x}) wraps")]
    Wraps {
        /// Address asked for.
        addr: u64,
        /// Length asked for.
        len: u64,
    },
    /// A hole in the range.
    #[error("nothing is mapped at {0:#x}")]
    Hole(u64),
    /// `PROT_GROWSDOWN` or `PROT_GROWSUP` on a VMA that does not grow that way.
    #[error("the mapping at {0:#x} does not grow that way")]
    NotGrowing(u64),
    /// The VMA may never have this right.
    #[error("the mapping at {0:#x} may not have this protection")]
    Denied(u64),
    /// A limit.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// The list of VMAs.
    #[error(transparent)]
    Vma(#[from] VmaError),
}

impl MprotectError {
    /// Linux's errno.
    pub const fn errno(self) -> Errno {
        match self {
            Self::Prot(_) | Self::Unaligned(_) | Self::NotGrowing(_) => Errno::EINVAL,
            Self::Wraps { .. } | Self::Hole(_) | Self::Limit(_) => Errno::ENOMEM,
            Self::Denied(_) => Errno::EACCES,
            Self::Vma(e) => e.errno(),
        }
    }
}

/// `mremap` failed; what a target or tail lost before a late failure stays lost, as on Linux.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum MremapError {
    /// Unknown or contradicting flags.
    #[error("mremap flags {0:#x}")]
    Flags(u32),
    /// An address is not page aligned.
    #[error("address {0:#x} is not page aligned")]
    Unaligned(u64),
    /// The new length is 0 or larger than the address space.
    #[error("new length {0:#x}")]
    NewLength(u64),
    /// The new range does not fit below `TASK_SIZE`.
    #[error("new range [{addr:#x}, +{len:#x}) does not fit below TASK_SIZE")]
    TooHigh {
        /// New address.
        addr: u64,
        /// New length.
        len: u64,
    },
    /// Old and new ranges overlap.
    #[error("old and new ranges overlap at {0:#x}")]
    Overlap(u64),
    /// Old length 0 on a private mapping.
    #[error("the mapping at {0:#x} is private and cannot be duplicated")]
    NotShared(u64),
    /// The page offset would wrap.
    #[error("the page offset of the grown mapping at {0:#x} wraps")]
    OffsetOverflow(u64),
    /// Nothing mapped there, or the range leaves its VMA.
    #[error("{0:#x}: not mapped, or the range leaves its mapping")]
    BadRange(u64),
    /// The mapping may not be expanded.
    #[error("the mapping at {0:#x} may not be expanded")]
    DontExpand(u64),
    /// `RLIMIT_MEMLOCK`.
    #[error("{0} more locked pages exceed RLIMIT_MEMLOCK")]
    LockLimit(u64),
    /// Cannot grow in place and may not move, or no hole is large enough.
    #[error("no room for {0:#x} bytes")]
    NoRoom(u64),
    /// A limit.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// The list of VMAs.
    #[error(transparent)]
    Vma(#[from] VmaError),
}

impl MremapError {
    /// Linux's errno.
    pub const fn errno(self) -> Errno {
        match self {
            Self::Flags(_)
            | Self::Unaligned(_)
            | Self::NewLength(_)
            | Self::TooHigh { .. }
            | Self::Overlap(_)
            | Self::NotShared(_)
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
            MunmapError::Range { addr, .. } => Self::Unaligned(addr),
            MunmapError::Vma(v) => Self::Vma(v),
        }
    }
}
