//! Errors of memory objects.

use super::{common::NoMemory, errno::Errno};
use thiserror::Error;

/// A memory object could not do what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[cfg_attr(feature = "remote", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum ObjectError {
    /// The page lies at or beyond the end.
    #[error("page {0} lies beyond the end of the object")]
    Beyond(u64),
    /// An empty range, or one beyond the largest offset.
    #[error("[{from:#x}, +{len:#x}) is no range of the object")]
    Range {
        /// First byte.
        from: u64,
        /// Bytes.
        len: u64,
    },
    /// The size would exceed what objects can have.
    #[error("{0:#x} bytes are more than an object can have")]
    TooLarge(u64),
    /// The file was not opened for this.
    #[error("the file was not opened for that")]
    Access,
    /// The object cannot do it.
    #[error("the object cannot do that")]
    Unsupported,
    /// The store behind the object failed.
    #[error("block {0} cannot be read or written")]
    Io(u64),
    /// The page had to be brought in first: fault again, and more of its neighbours may be there.
    #[error("the page was brought in: fault again")]
    Again,
    /// What the object gave out for a page is not that page: a frame of another machine, or one that it does not own.
    #[error("the frame that was given out for page {0} is not that page of the object")]
    NotItsPage(u64),
    /// Memory is used up.
    #[error("out of memory for {0}")]
    NoMemory(#[from] NoMemory),
}

impl ObjectError {
    /// Linux's errno.
    pub const fn errno(self) -> Errno {
        match self {
            Self::Beyond(_) | Self::Range { .. } => Errno::EINVAL,
            Self::TooLarge(_) => Errno::EFBIG,
            Self::Access => Errno::EBADF,
            Self::Unsupported => Errno::EOPNOTSUPP,
            Self::Io(_) | Self::NotItsPage(_) => Errno::EIO,
            Self::Again => Errno::EAGAIN,
            Self::NoMemory(_) => Errno::ENOMEM,
        }
    }
}
