//! Errors of memory policies and protection keys.

use super::{
    common::{ByteRange, VmaError},
    errno::Errno,
};
use thiserror::Error;

/// The error of `mbind`. VMAs below the failing one have the new policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum MbindError {
    /// The policy needs nodes and has none that exist, or has nodes and needs none.
    #[error("no policy {mode} for nodes {nodes:#x}")]
    Policy {
        /// The number of the mode.
        mode: u32,
        /// The nodes, a bit each.
        nodes: u64,
    },
    /// There are no such flags.
    #[error("flags {0:#x}")]
    Flags(u32),
    /// The range is not one of pages, or wraps.
    #[error("{0} is not a range of pages")]
    Range(ByteRange),
    /// The range has a hole.
    #[error("nothing is mapped at {0:#x}")]
    Hole(u64),
    /// The list of VMAs could not be changed.
    #[error(transparent)]
    Vma(#[from] VmaError),
}

impl MbindError {
    /// Returns Linux's errno.
    pub const fn errno(self) -> Errno {
        match self {
            Self::Policy { .. } | Self::Flags(_) | Self::Range(_) => Errno::EINVAL,
            Self::Hole(_) => Errno::EFAULT,
            Self::Vma(e) => e.errno(),
        }
    }
}

/// The error of a request for a protection key, of which this processor has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the processor has no protection keys")]
pub struct KeyError;

impl KeyError {
    /// Returns Linux's errno, EINVAL.
    pub const fn errno(self) -> Errno {
        Errno::EINVAL
    }
}
