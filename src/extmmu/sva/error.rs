//! The errors of binding, and the faults of devices.

use crate::error::{Errno, FaultError, HasErrno};
use thiserror::Error;

/// The error of a binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SvaError {
    /// All PASIDs are in use.
    #[error("no PASID is free")]
    NoPasid,
    /// The device belongs to another IOMMU.
    #[error("the device is behind another IOMMU")]
    OtherIommu,
}

impl SvaError {
    /// Returns Linux's errno.
    pub const fn errno(self) -> Errno {
        match self {
            Self::NoPasid => Errno::ENOSPC,
            Self::OtherIommu => Errno::ENODEV,
        }
    }
}

impl HasErrno for SvaError {
    fn errno(&self) -> Errno {
        SvaError::errno(*self)
    }
}

/// An access that a device did not make.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SvaFault {
    /// The PASID is bound to no process.
    #[error("PASID {0} is not bound")]
    NotBound(u32),
    /// The process has ended: the access was aborted.
    #[error("the process of PASID {0} has ended")]
    Gone(u32),
    /// The page request was answered as invalid.
    #[error("access of the device at {addr:#x}: {why}")]
    Refused {
        /// The byte address.
        addr: u64,
        /// The reason of the address space.
        why: FaultError,
    },
    /// The device found a translation of another process, or of another life of this PASID. A real
    /// device would have reached memory of another owner: no driver without a mistake gives this.
    #[error("a stale translation of {0:#x} was used")]
    Stale(u64),
}
