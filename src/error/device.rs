//! Errors of devices with memory of their own.

use super::{access::FaultError, common::ByteRange, errno::Errno};
use thiserror::Error;

/// Fewer frame numbers are left for memory of devices than were asked for; the number asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("no {0} frame numbers are left for a device")]
pub struct NoDeviceFrames(pub u32);

/// The error of a migration to a device or home (`migrate_vma_setup`). Nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum MigrateError {
    /// The range does not lie in one mapping.
    #[error("{0} is not a part of one mapping")]
    Range(ByteRange),
    /// The mapping is of huge pages of a pool, of a device, of secret memory, or nonlinear.
    #[error("the mapping at {0:#x} does not migrate")]
    Unsuitable(u64),
    /// The memory belongs to a device of another machine.
    #[error("the device belongs to another machine")]
    WrongMachine,
}

/// The error of an exclusive access of a device (`make_device_exclusive`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ExclusiveError {
    /// The page cannot be written.
    #[error(transparent)]
    Fault(#[from] FaultError),
    /// The page is no private memory, or one of a pool.
    #[error("the page of {0:#x} is no private memory")]
    NotPrivate(u64),
}

impl ExclusiveError {
    /// Returns Linux's errno.
    pub const fn errno(self) -> Errno {
        match self {
            Self::Fault(why) => why.errno(),
            Self::NotPrivate(_) => Errno::EOPNOTSUPP,
        }
    }
}

impl NoDeviceFrames {
    /// Returns Linux's errno, ENOMEM.
    pub const fn errno(self) -> Errno {
        Errno::ENOMEM
    }
}

impl MigrateError {
    /// Returns Linux's errno, EINVAL.
    pub const fn errno(self) -> Errno {
        Errno::EINVAL
    }
}
