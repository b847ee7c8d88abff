//! Errors of userfaultfd, of `PAGEMAP_SCAN` and of `clear_refs`.

use super::{
    common::{ByteRange, NoMemory, VmaError},
    errno::Errno,
    object::ObjectError,
};
use thiserror::Error;

/// The error of a call on a userfaultfd.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum UserfaultError {
    /// The handshake asks for an unknown version or feature, is missing, or is over.
    #[error("the handshake of the userfaultfd is missing, over, or asks for too much")]
    Handshake,
    /// The mode is empty or unknown, contradicts itself, or protects memory that is not registered
    /// for that.
    #[error("mode {0:#x}")]
    Mode(u64),
    /// The range is not page aligned, empty, or beyond the address space.
    #[error("{0} is not a range of pages")]
    Range(ByteRange),
    /// The range from this address on begins or ends inside of a huge page of a pool.
    #[error("the range from {0:#x} on cuts a huge page")]
    InsideHugePage(u64),
    /// The address space is gone.
    #[error("the address space has ended")]
    Ended,
    /// The address space changes, and the handler has not read about that.
    #[error("the handler has not read about a change of the address space")]
    Changing,
    /// The memory is of a kind that does not allow this, or registered with another userfaultfd.
    #[error("the mapping at {0:#x} does not allow this")]
    Unsuitable(u64),
    /// The memory can never be written.
    #[error("the mapping at {0:#x} can never be written")]
    Denied(u64),
    /// The memory is registered with another userfaultfd.
    #[error("the mapping at {0:#x} is registered already")]
    Taken(u64),
    /// No memory of the range is mapped.
    #[error("nothing is mapped from {0:#x} on")]
    NothingMapped(u64),
    /// The range is not part of one mapping that is registered.
    #[error("the range from {0:#x} on is not registered for this")]
    NotRegistered(u64),
    /// A page is there already.
    #[error("a page is at {0:#x} already")]
    Exists(u64),
    /// The page lies beyond the end of the object.
    #[error("{0:#x} lies beyond the end of its object")]
    Beyond(u64),
    /// The object does not have the page.
    #[error("the object has no page for {0:#x}")]
    NoPage(u64),
    /// The source of a move has no page.
    #[error("no page is at {0:#x}")]
    Hole(u64),
    /// The page to be moved is not of this process alone.
    #[error("the page at {0:#x} is shared")]
    Shared(u64),
    /// The page to be moved is a marker.
    #[error("{0:#x} has a marker")]
    Marker(u64),
    /// The object failed.
    #[error("the object failed: {0}")]
    Object(ObjectError),
    /// Memory ran out.
    #[error("out of memory for {0}")]
    NoMemory(#[from] NoMemory),
    /// The list of VMAs could not be changed.
    #[error(transparent)]
    Vma(#[from] VmaError),
}

impl UserfaultError {
    /// Returns Linux's errno.
    pub const fn errno(self) -> Errno {
        match self {
            Self::Handshake
            | Self::Mode(_)
            | Self::Range(_)
            | Self::InsideHugePage(_)
            | Self::Unsuitable(_)
            | Self::NothingMapped(_) => Errno::EINVAL,
            Self::Ended => Errno::ESRCH,
            Self::Changing => Errno::EAGAIN,
            Self::Denied(_) => Errno::EPERM,
            Self::Taken(_) | Self::Shared(_) => Errno::EBUSY,
            Self::NotRegistered(_) | Self::Hole(_) => Errno::ENOENT,
            Self::Exists(_) => Errno::EEXIST,
            Self::Beyond(_) | Self::NoPage(_) | Self::Marker(_) => Errno::EFAULT,
            Self::Object(why) => why.errno(),
            Self::NoMemory(_) => Errno::ENOMEM,
            Self::Vma(e) => e.errno(),
        }
    }
}

/// The error of `PAGEMAP_SCAN`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ScanError {
    /// The flags are unknown.
    #[error("flags {0:#x}")]
    Flags(u64),
    /// A category is unknown.
    #[error("categories {0:#x}")]
    Categories(u64),
    /// The start is not page aligned.
    #[error("{0:#x} is not page aligned")]
    Unaligned(u64),
    /// The range is beyond the address space, or wraps.
    #[error("{start:#x}-{end:#x} is no range of the address space")]
    Range {
        /// The first byte.
        start: u64,
        /// One past the last byte.
        end: u64,
    },
    /// Writes to this memory are not tracked, and the caller asked to be told.
    #[error("writes to {0:#x} are not tracked")]
    NotTracked(u64),
    /// Memory for page tables of markers ran out.
    #[error("out of memory for {0}")]
    NoMemory(#[from] NoMemory),
}

impl ScanError {
    /// Returns Linux's errno.
    pub const fn errno(self) -> Errno {
        match self {
            Self::Flags(_) | Self::Categories(_) | Self::Unaligned(_) => Errno::EINVAL,
            Self::Range { .. } => Errno::EFAULT,
            Self::NotTracked(_) => Errno::EPERM,
            Self::NoMemory(_) => Errno::ENOMEM,
        }
    }
}

/// A number that `/proc/PID/clear_refs` does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("clear_refs has no number {0}")]
pub struct ClearRefsError(pub i64);

impl ClearRefsError {
    /// Returns Linux's errno.
    pub const fn errno(self) -> Errno {
        Errno::EINVAL
    }
}
