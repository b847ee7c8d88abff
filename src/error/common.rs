//! Errors that several calls share.

use super::errno::Errno;
use thiserror::Error;

/// Changing the list of VMAs failed: the part that all operations share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum VmaError {
    /// A split would exceed `max_map_count`.
    #[error("{count} mappings: a split would exceed max_map_count")]
    MapCount {
        /// VMAs present.
        count: usize,
    },
    /// An internal allocation failed.
    #[error("out of memory for {0}")]
    NoMemory(#[from] NoMemory),
    /// The VMA at this address is sealed (`mseal`).
    #[error("the mapping at {0:#x} is sealed")]
    Sealed(u64),
}

impl VmaError {
    /// Linux's errno.
    pub const fn errno(self) -> Errno {
        match self {
            Self::MapCount { .. } | Self::NoMemory(_) => Errno::ENOMEM,
            Self::Sealed(_) => Errno::EPERM,
        }
    }
}

/// What could not be allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[cfg_attr(feature = "remote", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum NoMemory {
    /// Physical memory is used up.
    #[error("a frame")]
    Frame,
    /// A page-table page.
    #[error("a page table")]
    Table,
    /// A VMA.
    #[error("a VMA")]
    Vma,
    /// A node of the anonymous reverse map.
    #[error("an anon_vma")]
    AnonVma,
    /// A memory object.
    #[error("a memory object")]
    Object,
}

/// A resource limit or the commit limit stands in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum LimitError {
    /// `RLIMIT_AS`.
    #[error("{pages} more pages exceed RLIMIT_AS")]
    AddressSpace {
        /// Pages asked for.
        pages: u64,
    },
    /// `RLIMIT_DATA`.
    #[error("{pages} more pages exceed RLIMIT_DATA")]
    Data {
        /// Pages asked for.
        pages: u64,
    },
    /// The overcommit rule refuses.
    #[error("cannot commit {pages} more pages")]
    Commit {
        /// Pages asked for.
        pages: u64,
    },
}

impl NoMemory {
    /// Returns Linux's errno, ENOMEM.
    pub const fn errno(self) -> Errno {
        Errno::ENOMEM
    }
}

impl LimitError {
    /// Returns Linux's errno, ENOMEM.
    pub const fn errno(self) -> Errno {
        Errno::ENOMEM
    }
}

/// An address above `TASK_SIZE` where one of a process is wanted; nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{0:#x} lies above TASK_SIZE")]
pub struct BeyondTask(
    /// The address.
    pub u64,
);

impl BeyondTask {
    /// The address itself if it is one of a process, or the end of the address space.
    pub(crate) const fn check(addr: u64) -> Result<u64, Self> {
        if addr > crate::addr::TASK_SIZE {
            return Err(Self(addr));
        }
        Ok(addr)
    }
    /// Linux's errno.
    pub const fn errno(self) -> Errno {
        Errno::EINVAL
    }
}
