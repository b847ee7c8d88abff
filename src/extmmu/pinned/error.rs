//! The errors of an I/O address space, and the faults of devices.

use crate::error::{Errno, HasErrno, PinError};
use thiserror::Error;

/// The error of an operation on an I/O address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum IoasError {
    /// The length is 0, or an address or a length is no multiple of the pages of the domains.
    #[error("I/O range [{iova:#x}, +{len:#x}) is empty or not aligned")]
    Unaligned {
        /// The I/O virtual address, in bytes.
        iova: u64,
        /// The length, in bytes.
        len: u64,
    },
    /// The range leaves the 64-bit space of I/O virtual addresses, or of the process's.
    #[error("range [{iova:#x}, +{len:#x}) leaves the address space")]
    Overflow {
        /// The address, in bytes.
        iova: u64,
        /// The length, in bytes.
        len: u64,
    },
    /// The range ends before it begins.
    #[error("the I/O range from {first:#x} to {last:#x} is reversed")]
    Reversed {
        /// The first byte.
        first: u64,
        /// The last byte.
        last: u64,
    },
    /// The range meets one that is reserved.
    #[error("I/O address {0:#x} is reserved")]
    Reserved(u64),
    /// The range meets an area that exists.
    #[error("I/O address {0:#x} is mapped")]
    Mapped(u64),
    /// A range cannot be reserved or allowed: it meets an area, or one of the other kind.
    #[error("I/O range from {0:#x} on is in use")]
    InUse(u64),
    /// No range of that length is free.
    #[error("no {0:#x} bytes of I/O addresses are free")]
    NoSpace(u64),
    /// Nothing is mapped there, or the range cuts an area.
    #[error("no whole areas from I/O address {0:#x} on")]
    NotMapped(u64),
    /// The area is not mapped for writing.
    #[error("I/O address {0:#x} is mapped for reading")]
    ReadOnly(u64),
    /// The area is being mapped or unmapped by another call.
    #[error("the area at I/O address {0:#x} is being changed")]
    Busy(u64),
    /// The area is being unmapped: no access may begin to use it.
    #[error("the area at I/O address {0:#x} is being unmapped")]
    Leaving(u64),
    /// The holder of pages did not let go of them, however often it was asked.
    #[error("pages at I/O address {0:#x} are not given up")]
    NotGivenUp(u64),
    /// More pages would be locked than the account allows.
    #[error("{0} more pages exceed the limit on locked memory")]
    Locked(u64),
    /// A page could not be pinned.
    #[error(transparent)]
    Pin(#[from] PinError),
    /// The process has ended.
    #[error("the process has ended")]
    NoProcess,
    /// The domain cannot track dirty pages.
    #[error("the domain cannot track dirty pages")]
    CannotTrack,
    /// The domain does not track dirty pages now.
    #[error("dirty pages are not tracked")]
    NotTracked,
}

impl IoasError {
    /// Returns Linux's errno.
    pub const fn errno(self) -> Errno {
        match self {
            Self::Unaligned { .. }
            | Self::Reversed { .. }
            | Self::Reserved(_)
            | Self::Leaving(_)
            | Self::NotTracked => Errno::EINVAL,
            Self::Overflow { .. } => Errno::EOVERFLOW,
            Self::Mapped(_) => Errno::EEXIST,
            Self::InUse(_) => Errno::EADDRINUSE,
            Self::NoSpace(_) => Errno::ENOSPC,
            Self::NotMapped(_) => Errno::ENOENT,
            Self::ReadOnly(_) => Errno::EPERM,
            Self::Busy(_) => Errno::EBUSY,
            Self::CannotTrack => Errno::EOPNOTSUPP,
            Self::NotGivenUp(_) => Errno::EDEADLK,
            Self::Locked(_) => Errno::ENOMEM,
            Self::Pin(why) => why.errno(),
            Self::NoProcess => Errno::EFAULT,
        }
    }
}

impl HasErrno for IoasError {
    fn errno(&self) -> Errno {
        IoasError::errno(*self)
    }
}

/// A transfer of a device that its IOMMU stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DmaFault {
    /// Nothing is mapped at the I/O address.
    #[error("no translation of I/O address {0:#x}")]
    NotMapped(u64),
    /// The translation does not allow writing.
    #[error("I/O address {0:#x} is mapped for reading")]
    ReadOnly(u64),
    /// The IOTLB had a translation of a page that is no longer pinned. A real device would have
    /// reached memory of another owner: no driver without a mistake gives this.
    #[error("a stale translation of I/O address {0:#x} was used")]
    Unpinned(u64),
}
