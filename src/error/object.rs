//! Errors of memory objects.

use super::{common::NoMemory, errno::Errno};
use thiserror::Error;

/// The error of an operation on a memory object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[cfg_attr(feature = "remote", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum ObjectError {
    /// The page lies at or beyond the end.
    #[error("page {0} lies beyond the end of the object")]
    Beyond(u64),
    /// The range is empty, or lies beyond the largest offset.
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
    /// The file is written through its mappings only.
    #[error("the file is written through its mappings only")]
    OnlyMapped,
    /// Memory is used up.
    #[error("out of memory for {0}")]
    NoMemory(#[from] NoMemory),
}

impl ObjectError {
    /// Returns Linux's errno.
    pub const fn errno(self) -> Errno {
        match self {
            Self::Beyond(_) | Self::Range { .. } | Self::NotWhole(_) | Self::OnlyMapped => {
                Errno::EINVAL
            }
            Self::NoHugePage => Errno::ENOSPC,
            Self::TooLarge(_) => Errno::EFBIG,
            Self::Access => Errno::EBADF,
            Self::Unsupported => Errno::EOPNOTSUPP,
            Self::Io(_) | Self::NotItsPage(_) => Errno::EIO,
            Self::Again => Errno::EAGAIN,
            Self::NoMemory(_) => Errno::ENOMEM,
        }
    }
}
