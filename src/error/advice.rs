//! Errors of the calls that advise, lock and inspect.

use super::{
    access::FaultError,
    common::{ByteRange, LimitError, NoMemory, VmaError},
    errno::Errno,
    object::ObjectError,
};
use thiserror::Error;

/// The error of `madvise`. VMAs before the failing one keep the advice; after a
/// [`Hole`](Self::Hole) all mapped ones do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum MadviseError {
    /// The address is not page aligned, or the range wraps.
    #[error("{0} is not a range of pages")]
    Range(ByteRange),
    /// The advice does not fit this VMA (locked, shared, not anonymous, …).
    #[error("the mapping at {0:#x} does not take this advice")]
    Unsuitable(u64),
    /// The memory of another process does not take this advice (`process_madvise`); its number.
    #[error("the memory of another process does not take advice {0}")]
    OfAnother(i32),
    /// One call has more than 1024 ranges (`process_madvise`); their number.
    #[error("{0} ranges are more than 1024")]
    TooManyRanges(usize),
    /// The length of a range is negative as a signed number (`process_madvise`).
    #[error("a range of {0:#x} bytes is too long")]
    TooLong(u64),
    /// A range ends above all addresses of a process (`process_madvise`).
    #[error("{0} ends above the memory of a process")]
    BeyondTask(ByteRange),
    /// The object behind the mapping may not be changed through it (`MADV_REMOVE`).
    #[error("the mapping at {0:#x} may not change its object")]
    Denied(u64),
    /// The object behind the mapping failed (`MADV_REMOVE`).
    #[error("the object mapped at {at:#x}: {why}")]
    Object {
        /// The first address of the mapping.
        at: u64,
        /// The object's error.
        why: ObjectError,
    },
    /// The mapping has a name already, that of its file (`PR_SET_VMA_ANON_NAME`).
    #[error("the mapping at {0:#x} is not anonymous")]
    NotAnonymous(u64),
    /// A page has other users; a later call may succeed (`MADV_COLLAPSE`).
    #[error("a page at {0:#x} is in use otherwise")]
    Busy(u64),
    /// The range has a hole; the advice was applied to everything mapped.
    #[error("nothing is mapped at {0:#x}")]
    Hole(u64),
    /// A page could not be populated.
    #[error("populating failed: {0}")]
    Populate(#[from] FaultError),
    /// Populating needs a right that the VMA does not have.
    #[error("the mapping at {0:#x} lacks the right to be populated so")]
    PopulateDenied(u64),
    /// The list of VMAs could not be changed; Linux turns its ENOMEM into EAGAIN here.
    #[error(transparent)]
    Vma(#[from] VmaError),
    /// Memory for the page tables of guard markers ran out.
    #[error("out of memory for {0}")]
    NoMemory(NoMemory),
}

impl MadviseError {
    /// Returns Linux's errno.
    pub const fn errno(self) -> Errno {
        match self {
            Self::Range(_)
            | Self::Unsuitable(_)
            | Self::PopulateDenied(_)
            | Self::OfAnother(_)
            | Self::TooManyRanges(_)
            | Self::TooLong(_) => Errno::EINVAL,
            Self::BeyondTask(_) => Errno::EFAULT,
            Self::Denied(_) => Errno::EACCES,
            Self::NotAnonymous(_) => Errno::EBADF,
            Self::Object { why, .. } => why.errno(),
            Self::Busy(_) => Errno::EAGAIN,
            Self::Hole(_) | Self::NoMemory(_) => Errno::ENOMEM,
            Self::Populate(FaultError::Poisoned(_)) => Errno::EHWPOISON,
            Self::Populate(e) => e.errno(),
            Self::Vma(e @ (VmaError::Sealed(_) | VmaError::InsideHugePage(_))) => e.errno(),
            Self::Vma(_) => Errno::EAGAIN,
        }
    }
}

/// The error of `mlock`, `mlock2`, `munlock`, `mlockall` and `munlockall`. VMAs before the failing
/// one keep the change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum MlockError {
    /// The flags are unknown, or contradict each other.
    #[error("flags {0:#x}")]
    Flags(u32),
    /// The range wraps.
    #[error("{0} wraps")]
    Wraps(ByteRange),
    /// The caller has no right to lock memory.
    #[error("no right to lock memory")]
    Denied,
    /// The pages would exceed `RLIMIT_MEMLOCK`.
    #[error("{0} pages exceed RLIMIT_MEMLOCK")]
    Limit(u64),
    /// The range has a hole.
    #[error("nothing is mapped at {0:#x}")]
    Hole(u64),
    /// A page could not be made present; the VMA stays locked.
    #[error("populating failed: {0}")]
    Populate(#[from] FaultError),
    /// The list of VMAs could not be changed.
    #[error(transparent)]
    Vma(#[from] VmaError),
}

impl MlockError {
    /// Returns Linux's errno: ENOMEM if a fault failed while populating, EAGAIN if memory ran out
    /// there.
    pub const fn errno(self) -> Errno {
        match self {
            Self::Flags(_) | Self::Wraps(_) => Errno::EINVAL,
            Self::Denied => Errno::EPERM,
            Self::Limit(_) | Self::Hole(_) => Errno::ENOMEM,
            Self::Populate(FaultError::NoMemory(_)) => Errno::EAGAIN,
            Self::Populate(_) => Errno::ENOMEM,
            Self::Vma(e) => e.errno(),
        }
    }
}

/// The error of `mincore`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum MincoreError {
    /// The address is not page aligned.
    #[error("address {0:#x} is not page aligned")]
    Unaligned(u64),
    /// The range leaves user space.
    #[error("{0} leaves user space")]
    TooHigh(ByteRange),
    /// The range has a hole.
    #[error("nothing is mapped at {0:#x}")]
    Hole(u64),
}

impl MincoreError {
    /// Returns Linux's errno.
    pub const fn errno(self) -> Errno {
        match self {
            Self::Unaligned(_) => Errno::EINVAL,
            Self::TooHigh(_) | Self::Hole(_) => Errno::ENOMEM,
        }
    }
}

/// The error of `msync`. Mapped parts of the range were synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum MsyncError {
    /// The flags are unknown, or have both `MS_SYNC` and `MS_ASYNC`.
    #[error("flags {0:#x}")]
    Flags(u32),
    /// The address is not page aligned.
    #[error("address {0:#x} is not page aligned")]
    Unaligned(u64),
    /// The range wraps.
    #[error("{0} wraps")]
    Wraps(ByteRange),
    /// The range has a hole.
    #[error("nothing is mapped at {0:#x}")]
    Hole(u64),
    /// The VMA is locked in memory, and the call has `MS_INVALIDATE`.
    #[error("the mapping at {0:#x} is locked")]
    Locked(u64),
    /// Writeback failed, and the call ended there.
    #[error("the object mapped at {at:#x}: {why}")]
    Object {
        /// The first address of the mapping.
        at: u64,
        /// The object's error.
        why: ObjectError,
    },
}

impl MsyncError {
    /// Returns Linux's errno.
    pub const fn errno(self) -> Errno {
        match self {
            Self::Flags(_) | Self::Unaligned(_) => Errno::EINVAL,
            Self::Wraps(_) | Self::Hole(_) => Errno::ENOMEM,
            Self::Locked(_) => Errno::EBUSY,
            Self::Object { why, .. } => why.errno(),
        }
    }
}

/// The error of `mseal`. Nothing changed, unless the map limit stopped the call half-way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum MsealError {
    /// The address is not page aligned, or the range wraps.
    #[error("{0} is not a range of pages")]
    Range(ByteRange),
    /// The range has a hole.
    #[error("nothing is mapped at {0:#x}")]
    Hole(u64),
    /// The list of VMAs could not be changed.
    #[error(transparent)]
    Vma(#[from] VmaError),
}

impl MsealError {
    /// Returns Linux's errno.
    pub const fn errno(self) -> Errno {
        match self {
            Self::Range(_) => Errno::EINVAL,
            Self::Hole(_) => Errno::ENOMEM,
            Self::Vma(e) => e.errno(),
        }
    }
}

/// The error of `fork`. There is no child, and the parent is unchanged, but for writable pages that
/// may have become copy-on-write, which no load or store can tell.
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
    /// Returns Linux's errno.
    pub const fn errno(self) -> Errno {
        Errno::ENOMEM
    }
}
