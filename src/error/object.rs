//! Errors of memory objects.

use super::{common::NoMemory, errno::Errno};
use thiserror::Error;

/// The error of an operation on a memory object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum ObjectError {
    /// The page lies at or beyond the end.
    #[error("page {0} lies beyond the end of the object")]
    Beyond(u64),
    /// The range is empty, lies beyond the largest offset, or is none that the operation can
    /// change.
    #[error("[{from:#x}, +{len:#x}) is no range of the object")]
    Range {
        /// The first byte.
        from: u64,
        /// The number of bytes.
        len: u64,
    },
    /// The object would be larger than objects can be.
    #[error("{0:#x} bytes are more than an object can have")]
    TooLarge(u64),
    /// A transfer past the cache is not one of whole sectors.
    #[error("[{offset:#x}, +{len:#x}) are no whole sectors")]
    Unaligned {
        /// The first byte.
        offset: u64,
        /// The number of bytes.
        len: usize,
    },
    /// The seals of the object forbid it.
    #[error("the object is sealed against that")]
    Sealed,
    /// The file was not opened for this access.
    #[error("the file was not opened for that")]
    Access,
    /// The object does not support the operation.
    #[error("the object cannot do that")]
    Unsupported,
    /// The store behind the object failed.
    #[error("block {0} cannot be read or written")]
    Io(u64),
    /// The page was read in first: the fault must be repeated, and may find more of its neighbours.
    #[error("the page was brought in: fault again")]
    Again,
    /// The object gave out a frame of another machine, or one that it does not own.
    #[error("the frame that was given out for page {0} is not that page of the object")]
    NotItsPage(u64),
    /// The size is not a multiple of the file's huge pages.
    #[error("{0:#x} bytes are no whole number of huge pages")]
    NotWhole(u64),
    /// The pool has no huge page left that was not promised to others, or another process took
    /// this one, which it had reserved.
    #[error("the pool has no huge page for it")]
    NoHugePage,
    /// The access is made through the file's mappings only, or by the guest that has the file.
    #[error("that access is made through the file's mappings only")]
    OnlyMapped,
    /// The page is private to a guest: no process has it.
    #[error("page {0} is private to a guest")]
    Private(u64),
    /// Memory is used up.
    #[error("out of memory for {0}")]
    NoMemory(#[from] NoMemory),
}

impl ObjectError {
    /// Returns Linux's errno.
    pub const fn errno(self) -> Errno {
        match self {
            Self::Beyond(_)
            | Self::Range { .. }
            | Self::NotWhole(_)
            | Self::OnlyMapped
            | Self::Unaligned { .. } => Errno::EINVAL,
            Self::NoHugePage => Errno::ENOSPC,
            Self::Sealed => Errno::EPERM,
            Self::Private(_) => Errno::EFAULT,
            Self::TooLarge(_) => Errno::EFBIG,
            Self::Access => Errno::EBADF,
            Self::Unsupported => Errno::EOPNOTSUPP,
            Self::Io(_) | Self::NotItsPage(_) => Errno::EIO,
            Self::Again => Errno::EAGAIN,
            Self::NoMemory(_) => Errno::ENOMEM,
        }
    }
}

/// The error of an addition of seals to an object. No seal was added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SealError {
    /// The file was opened for reading only.
    #[error("the file was not opened for writing")]
    NotWritable,
    /// There are no such seals.
    #[error("seals {0:#x}")]
    Unknown(u32),
    /// The object is of a kind without seals.
    #[error("the object has no seals")]
    Unsupported,
    /// The object takes no further seals.
    #[error("the object takes no further seals")]
    Sealed,
    /// A shared mapping can write, or become writable.
    #[error("the object is mapped by what may write to it")]
    Mapped,
    /// A page is pinned, or held by a reference.
    #[error("a page of the object is held")]
    Held,
    /// The object is being changed, for longer than ten seconds or by the caller itself: the call
    /// comes from a callback.
    #[error("the object is being changed")]
    Changing,
}

impl SealError {
    /// Returns Linux's errno (`memfd_add_seals`).
    pub const fn errno(self) -> Errno {
        match self {
            Self::NotWritable | Self::Sealed => Errno::EPERM,
            Self::Unknown(_) | Self::Unsupported => Errno::EINVAL,
            Self::Mapped | Self::Held | Self::Changing => Errno::EBUSY,
        }
    }
}
