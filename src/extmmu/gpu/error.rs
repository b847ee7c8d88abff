//! The error of an access or a migration.

use crate::error::{ByteRange, Errno, ExclusiveError, HasErrno, MigrateError, RangeFault};
use thiserror::Error;

/// The error of an operation of a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum GpuError {
    /// The address space refuses the access, as it would refuse the process.
    #[error(transparent)]
    Fault(#[from] RangeFault),
    /// The page cannot be had alone.
    #[error(transparent)]
    Exclusive(#[from] ExclusiveError),
    /// The pages cannot migrate.
    #[error(transparent)]
    Migrate(#[from] MigrateError),
    /// The range is empty, or leaves the address space.
    #[error("{0} is no part of the address space")]
    Range(ByteRange),
    /// The address of an atomic operation is no multiple of 8.
    #[error("{0:#x} is no address of a word")]
    Misaligned(u64),
    /// The GPU has no memory of its own.
    #[error("the GPU has no memory")]
    NoMemory,
    /// The process has ended, or the GPU is no longer registered.
    #[error("the GPU is no longer registered")]
    Gone,
}

impl GpuError {
    /// Returns Linux's errno.
    pub const fn errno(self) -> Errno {
        match self {
            Self::Fault(why) => why.errno(),
            Self::Exclusive(why) => why.errno(),
            Self::Migrate(why) => why.errno(),
            Self::Range(_) | Self::Misaligned(_) => Errno::EINVAL,
            Self::NoMemory | Self::Gone => Errno::ENODEV,
        }
    }
}

impl HasErrno for GpuError {
    fn errno(&self) -> Errno {
        GpuError::errno(*self)
    }
}
