//! Errors of a mapping.

use crate::error::Errno;
use std::io;
use thiserror::Error;

/// Memory of a process was not mapped in the host.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum HostMappingError {
    /// The range is empty, does not begin or end with a page, or leaves the address space.
    #[error("[{addr:#x}, +{len:#x}) is not made of pages of the address space")]
    Range {
        /// The first address, in bytes.
        addr: u64,
        /// The length in bytes.
        len: usize,
    },
    /// Frames have no [contents](crate::Contents), or the host has no memory for them that can be
    /// mapped twice (`memfd_create`).
    #[error("the frames of this machine cannot be mapped in the host")]
    NoFrames,
    /// The host has no userfaultfd, does not allow it, or its kernel is older than Linux 6.6.
    #[error("no userfaultfd: {0}")]
    NoUserfaultfd(#[source] io::Error),
    /// The host refused, for instance a thread.
    #[error(transparent)]
    Host(#[from] io::Error),
}

impl HostMappingError {
    /// Returns the errno that fits.
    pub fn errno(&self) -> Errno {
        match self {
            Self::Range { .. } => Errno::EINVAL,
            Self::NoFrames | Self::NoUserfaultfd(_) => Errno::EOPNOTSUPP,
            Self::Host(why) => {
                let known = why.raw_os_error().and_then(Errno::from_raw);
                known.unwrap_or(Errno::EIO)
            }
        }
    }
}
