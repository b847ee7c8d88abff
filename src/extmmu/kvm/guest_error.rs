//! Errors of guest files and of memory attributes.

use crate::error::{Errno, HasErrno, NoMemory};
use thiserror::Error;

/// A guest file cannot be created, or attributes cannot be set. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum GuestMemoryError {
    /// The machine does not support these flags.
    #[error("a guest file of this machine has no flags {0:#x}")]
    Flags(u64),
    /// The size is zero, no whole number of pages, or too large.
    #[error("a guest file has no {0:#x} bytes")]
    Size(u64),
    /// The machine does not support these attributes.
    #[error("memory of this machine has no attributes {0:#x}")]
    Attributes(u64),
    /// The range is empty, has parts of pages, or leaves the address space.
    #[error("[{gpa:#x}, +{size:#x}) are no guest frames")]
    Range {
        /// The first guest-physical byte address.
        gpa: u64,
        /// The number of bytes.
        size: u64,
    },
    /// The address space has ended.
    #[error("the address space behind the guest is gone")]
    Gone,
    /// Memory is used up.
    #[error("out of memory for {0}")]
    NoMemory(#[from] NoMemory),
}

impl GuestMemoryError {
    /// Returns the errno of the ioctl.
    pub const fn errno(self) -> Errno {
        match self {
            Self::Flags(_) | Self::Size(_) | Self::Attributes(_) | Self::Range { .. } => {
                Errno::EINVAL
            }
            Self::Gone => Errno::EIO,
            Self::NoMemory(_) => Errno::ENOMEM,
        }
    }
}

impl HasErrno for GuestMemoryError {
    fn errno(&self) -> Errno {
        GuestMemoryError::errno(*self)
    }
}
