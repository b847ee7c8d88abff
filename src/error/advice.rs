//! Errors of the calls that advise, lock and inspect.

use super::{
    access::FaultError,
    common::{LimitError, NoMemory, VmaError},
    errno::Errno,
    object::ObjectError,
};
use thiserror::Error;

/// `madvise` failed; VMAs before the failing one stay done, and after a [`Hole`](Self::Hole) all mapped ones are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum MadviseError {
    /// Unaligned address, or the range wraps.
    #[error("[{addr:#x}, +{len:#x}) is not a range of pages")]
    Range {
        /// Address asked for.
        addr: u64,
        /// Length asked for.
        len: u64,
    },
    /// The advice does not fit this VMA (locked, shared, not anonymous, …).
    #[error("the mapping at {0:#x} does not take this advice")]
    Unsuitable(u64),
    /// The object behind the mapping may not be changed through it (`MADV_REMOVE`).
    #[error("the mapping at {0:#x} may not change its object")]
    Denied(u64),
    /// The object behind the mapping could not do it (`MADV_REMOVE`).
    #[error("the object mapped at {at:#x}: {why}")]
    Object {
        /// Start of the mapping.
        at: u64,
        /// The object's error.
        why: ObjectError,
    },
    /// Memory that has a name already, as a file (naming it).
    #[error("the mapping at {0:#x} is not anonymous")]
    NotAnonymous(u64),
    /// A page is in use otherwise: trying again might help (`MADV_COLLAPSE`).
    #[error("a page at {0:#x} is in use otherwise")]
    Busy(u64),
    /// A hole in the range; everything mapped was done.
    #[error("nothing is mapped at {0:#x}")]
    Hole(u64),
    /// A page could not be populated.
    #[error("populating failed: {0}")]
    Populate(#[from] FaultError),
    /// Populating needs a right that the VMA does not have.
    #[error("the mapping at {0:#x} lacks the right to be populated so")]
    PopulateDenied(u64),
    /// The list of VMAs: Linux turns its ENOMEM into EAGAIN here.
    #[error(transparent)]
    Vma(#[from] VmaError),
    /// Page tables for guard markers ran out.
    #[error("out of memory for {0}")]
    NoMemory(NoMemory),
}

impl MadviseError {
    /// Linux's errno.
    pub const fn errno(self) -> Errno {
        match self {
            Self::Range { .. } | Self::Unsuitable(_) | Self::PopulateDenied(_) => Errno::EINVAL,
            Self::Denied(_) => Errno::EACCES,
            Self::NotAnonymous(_) => Errno::EBADF,
            Self::Object { why, .. } => why.errno(),
            Self::Busy(_) => Errno::EAGAIN,
            Self::Hole(_) | Self::NoMemory(_) => Errno::ENOMEM,
            Self::Populate(e) => e.errno(),
            Self::Vma(VmaError::Sealed(_)) => Errno::EPERM,
            Self::Vma(_) => Errno::EAGAIN,
        }
    }
}

/// `mlock`, `mlock2`, `munlock`, `mlockall` or `munlockall` failed; VMAs before the failing one stay done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum MlockError {
    /// Unknown or contradicting flags.
    #[error("flags {0:#x}")]
    Flags(u32),
    /// The range wraps.
    #[error("[{addr:#x}, +{len:#x}) wraps")]
    Wraps {
        /// Address asked for.
        addr: u64,
        /// Length asked for.
        len: u64,
    },
    /// No right to lock memory.
    #[error("no right to lock memory")]
    Denied,
    /// `RLIMIT_MEMLOCK`.
    #[error("{0} pages exceed RLIMIT_MEMLOCK")]
    Limit(u64),
    /// A hole in the range.
    #[error("nothing is mapped at {0:#x}")]
    Hole(u64),
    /// A page could not be made present; the VMA stays locked.
    #[error("populating failed: {0}")]
    Populate(#[from] FaultError),
    /// The list of VMAs.
    #[error(transparent)]
    Vma(#[from] VmaError),
}

impl MlockError {
    /// Linux's errno: a fault while populating is ENOMEM, memory running out EAGAIN.
    pub const fn errno(self) -> Errno {
        match self {
            Self::Flags(_) | Self::Wraps { .. } => Errno::EINVAL,
            Self::Denied => Errno::EPERM,
            Self::Limit(_) | Self::Hole(_) => Errno::ENOMEM,
            Self::Populate(FaultError::NoMemory(_)) => Errno::EAGAIN,
            Self::Populate(_) => Errno::ENOMEM,
            Self::Vma(e) => e.errno(),
        }
    }
}

/// `mincore` failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum MincoreError {
    /// Unaligned address.
    #[error("address {0:#x} is not page aligned")]
    Unaligned(u64),
    /// Outside user space.
    #[error("[{addr:#x}, +{len:#x}) leaves user space")]
    TooHigh {
        /// Address asked for.
        addr: u64,
        /// Length asked for.
        len: u64,
    },
    /// A hole in the range.
    #[error("nothing is mapped at {0:#x}")]
    Hole(u64),
}

impl MincoreError {
    /// Linux's errno.
    pub const fn errno(self) -> Errno {
        match self {
            Self::Unaligned(_) => Errno::EINVAL,
            Self::TooHigh { .. } | Self::Hole(_) => Errno::ENOMEM,
        }
    }
}

/// `msync` failed; mapped parts of the range were synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum MsyncError {
    /// Unknown flags, or `MS_SYNC` with `MS_ASYNC`.
    #[error("flags {0:#x}")]
    Flags(u32),
    /// Unaligned address.
    #[error("address {0:#x} is not page aligned")]
    Unaligned(u64),
    /// The range wraps.
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
    /// `MS_INVALIDATE` on a locked VMA.
    #[error("the mapping at {0:#x} is locked")]
    Locked(u64),
    /// Writeback failed; the walk ended there.
    #[error("the object mapped at {at:#x}: {why}")]
    Object {
        /// Start of the mapping.
        at: u64,
        /// The object's error.
        why: ObjectError,
    },
}

impl MsyncError {
    /// Linux's errno.
    pub const fn errno(self) -> Errno {
        match self {
            Self::Flags(_) | Self::Unaligned(_) => Errno::EINVAL,
            Self::Wraps { .. } | Self::Hole(_) => Errno::ENOMEM,
            Self::Locked(_) => Errno::EBUSY,
            Self::Object { why, .. } => why.errno(),
        }
    }
}

/// `mseal` failed; nothing changed unless the map limit stopped it half-way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum MsealError {
    /// Unaligned address, or the range wraps.
    #[error("[{addr:#x}, +{len:#x}) is not a range of pages")]
    Range {
        /// Address asked for.
        addr: u64,
        /// Length asked for.
        len: u64,
    },
    /// A hole in the range.
    #[error("nothing is mapped at {0:#x}")]
    Hole(u64),
    /// The list of VMAs.
    #[error(transparent)]
    Vma(#[from] VmaError),
}

impl MsealError {
    /// Linux's errno.
    pub const fn errno(self) -> Errno {
        match self {
            Self::Range { .. } => Errno::EINVAL,
            Self::Hole(_) => Errno::ENOMEM,
            Self::Vma(e) => e.errno(),
        }
    }
}

/// `fork` failed; no child exists and the parent is as it was (its writable pages may have become
/// copy-on-write, which no load or store can tell).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ForkError {
    /// The child's memory cannot be committed.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// An allocation failed.
    #[error("out of memory for {0}")]
    NoMemory(#[from] NoMemory),
}

impl ForkError {
    /// Linux's errno.
    pub const fn errno(self) -> Errno {
        Errno::ENOMEM
    }
}
