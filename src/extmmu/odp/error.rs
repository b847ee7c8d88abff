//! The errors of regions, and the faults of the adapter.

use crate::{
    driver::TranslateError,
    error::{Errno, HasErrno},
};
use thiserror::Error;

/// The error of an operation on a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum OdpError {
    /// The length is 0, or the range leaves the address space.
    #[error("[{addr:#x}, +{len:#x}) is no range of the address space")]
    BadRange {
        /// The address, in bytes.
        addr: u64,
        /// The length, in bytes.
        len: u64,
    },
    /// No region has this key.
    #[error("no region has key {0}")]
    NoKey(u32),
    /// The range leaves the region.
    #[error("[{addr:#x}, +{len:#x}) leaves the region")]
    Outside {
        /// The address, in bytes.
        addr: u64,
        /// The length, in bytes.
        len: u64,
    },
    /// The region was registered for reading.
    #[error("the region of key {0} is for reading")]
    ReadOnly(u32),
    /// The pages cannot be had.
    #[error(transparent)]
    Translate(#[from] TranslateError),
}

impl OdpError {
    /// Returns Linux's errno.
    pub const fn errno(self) -> Errno {
        match self {
            Self::BadRange { .. } | Self::Outside { .. } => Errno::EINVAL,
            Self::NoKey(_) => Errno::ENOENT,
            Self::ReadOnly(_) => Errno::EPERM,
            Self::Translate(why) => why.errno(),
        }
    }
}

impl HasErrno for OdpError {
    fn errno(&self) -> Errno {
        OdpError::errno(*self)
    }
}

/// A transfer that the adapter ended with an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum OdpFault {
    /// The key is unknown, the access is outside of its region, or not allowed by it.
    #[error("remote access error at {0:#x}")]
    Access(u64),
    /// The process has ended, or the region was ended meanwhile.
    #[error("the region of {0:#x} has ended")]
    Gone(u64),
    /// The page fault was answered with an error.
    #[error("page fault at {addr:#x}: {why}")]
    Refused {
        /// The byte address.
        addr: u64,
        /// The reason of the address space.
        why: TranslateError,
    },
}
