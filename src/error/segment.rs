//! Errors of segments of System V.

use super::{
    common::{LimitError, NoMemory},
    errno::Errno,
    mmap::MmapError,
};
use thiserror::Error;

/// The error of `shmget`, `shmat`, `shmdt` or `shmctl`. Nothing changed, but as for
/// [`MmapError`] where a mapping failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ShmError {
    /// No segment has that number, or it was removed and is gone.
    #[error("no segment {0}")]
    NoSegment(u32),
    /// No segment has that key.
    #[error("no segment has key {0:#x}")]
    NoKey(i32),
    /// A segment with that key exists, and a new one was asked for.
    #[error("a segment has key {0:#x} already")]
    Exists(i32),
    /// The size is 0 or too large for a new segment, or larger than the segment of that key.
    #[error("no segment of {0:#x} bytes")]
    Size(u64),
    /// There are as many segments as there can be.
    #[error("{0} segments already")]
    TooMany(usize),
    /// Flags that are unknown here.
    #[error("flags {0:#x}")]
    Flags(u32),
    /// The address is not page aligned, or missing where it is needed.
    #[error("no segment can be attached at {0:#x}")]
    Address(u64),
    /// Another mapping is at the address.
    #[error("the range at {0:#x} is mapped already")]
    Occupied(u64),
    /// No segment is attached at the address.
    #[error("no segment is attached at {0:#x}")]
    NotAttached(u64),
    /// The pool has too few huge pages for a segment of so many bytes.
    #[error("the pool has no huge pages for {0:#x} bytes")]
    NoHugePages(u64),
    /// No memory may be locked at all: `RLIMIT_MEMLOCK` is 0.
    #[error("no memory may be locked")]
    Denied,
    /// So many pages would exceed `RLIMIT_MEMLOCK`.
    #[error("{0} more locked pages exceed RLIMIT_MEMLOCK")]
    Locked(u64),
    /// The segment's memory would exceed a limit.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// An internal allocation failed.
    #[error("out of memory for {0}")]
    NoMemory(#[from] NoMemory),
    /// The segment could not be mapped.
    #[error(transparent)]
    Mmap(#[from] MmapError),
}

impl ShmError {
    /// Returns Linux's errno.
    pub const fn errno(self) -> Errno {
        match self {
            Self::NoKey(_) => Errno::ENOENT,
            Self::Exists(_) => Errno::EEXIST,
            Self::TooMany(_) => Errno::ENOSPC,
            Self::Denied => Errno::EPERM,
            Self::NoSegment(_)
            | Self::Size(_)
            | Self::Flags(_)
            | Self::Address(_)
            | Self::Occupied(_)
            | Self::NotAttached(_) => Errno::EINVAL,
            Self::NoHugePages(_) | Self::Locked(_) | Self::Limit(_) | Self::NoMemory(_) => {
                Errno::ENOMEM
            }
            Self::Mmap(e) => e.errno(),
        }
    }
}
