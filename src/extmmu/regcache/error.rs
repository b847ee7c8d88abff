//! The error of a registration or a transfer.

use crate::error::{ByteRange, Errno, HasErrno, PinError, RangeFault};
use thiserror::Error;

/// The error of an operation on a registration cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RegError {
    /// The range is empty, or leaves the address space.
    #[error("{0} is no part of the address space")]
    Range(ByteRange),
    /// A page cannot be had: the process would be refused as well.
    #[error(transparent)]
    Fault(#[from] RangeFault),
    /// A page cannot be pinned. The cache registers it without pins then.
    #[error(transparent)]
    Pin(#[from] PinError),
    /// The bytes are not all in the region, or are to be written and the region may only be read.
    #[error("the registered region does not allow an access to {0}")]
    Outside(ByteRange),
    /// A window has taken the region, which holds no pins: the bytes must be registered anew.
    #[error("the region at {0:#x} was invalidated")]
    Invalidated(u64),
    /// The region was deregistered while it was in use: the adapter stops the transfer. No cache
    /// without a mistake gives this.
    #[error("the region at {0:#x} was deregistered in use")]
    Revoked(u64),
    /// The process has ended, or the cache is no longer registered.
    #[error("the cache is no longer registered")]
    Gone,
}

impl RegError {
    /// Returns the errno of the verbs: `EFAULT` for pages that cannot be had, `EACCES` for an
    /// access that the region does not allow.
    pub const fn errno(self) -> Errno {
        match self {
            Self::Range(_) => Errno::EINVAL,
            Self::Fault(why) => why.errno(),
            Self::Pin(why) => why.errno(),
            Self::Outside(_) => Errno::EACCES,
            Self::Invalidated(_) | Self::Revoked(_) => Errno::EFAULT,
            Self::Gone => Errno::ENODEV,
        }
    }
}

impl HasErrno for RegError {
    fn errno(&self) -> Errno {
        RegError::errno(*self)
    }
}
