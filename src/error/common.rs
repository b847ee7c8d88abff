//! Errors that several calls share.

use super::errno::Errno;
use crate::addr::{PAGE_SIZE, TASK_SIZE, Vpn, VpnRange};
use std::fmt;
use thiserror::Error;

/// The range of bytes that a call names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteRange {
    /// The address, in bytes.
    pub addr: u64,
    /// The length, in bytes.
    pub len: u64,
}

impl ByteRange {
    /// Returns the pages that the bytes lie in; `None` if there are no bytes, or if some lie above
    /// what a process can map.
    pub(crate) fn pages(self) -> Option<VpnRange> {
        let end = self.addr.checked_add(self.len);
        let end = end.filter(|&end| self.len > 0 && end <= TASK_SIZE)?;
        let end = Vpn::containing(end.next_multiple_of(PAGE_SIZE));
        VpnRange::new(Vpn::containing(self.addr), end)
    }
}

impl fmt::Display for ByteRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{:#x}, +{:#x})", self.addr, self.len)
    }
}

/// The error of calls that split, add or move VMAs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum VmaError {
    /// A split would exceed `max_map_count`.
    #[error("{count} mappings: a split would exceed max_map_count")]
    MapCount {
        /// The number of VMAs.
        count: usize,
    },
    /// An internal allocation failed.
    #[error("out of memory for {0}")]
    NoMemory(#[from] NoMemory),
    /// The VMA at this address is sealed (`mseal`).
    #[error("the mapping at {0:#x} is sealed")]
    Sealed(u64),
    /// The VMA at this address maps huge pages, and would be split inside of one.
    #[error("the mapping at {0:#x} cannot be split inside of a huge page")]
    InsideHugePage(u64),
}

impl VmaError {
    /// Returns Linux's errno.
    pub const fn errno(self) -> Errno {
        match self {
            Self::MapCount { .. } | Self::NoMemory(_) => Errno::ENOMEM,
            Self::Sealed(_) => Errno::EPERM,
            Self::InsideHugePage(_) => Errno::EINVAL,
        }
    }
}

/// The kind of memory that could not be allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
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

/// The error of a change that a resource limit or the commit limit forbids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum LimitError {
    /// The pages would exceed `RLIMIT_AS`.
    #[error("{pages} more pages exceed RLIMIT_AS")]
    AddressSpace {
        /// The number of pages that would be added.
        pages: u64,
    },
    /// The pages would exceed `RLIMIT_DATA`.
    #[error("{pages} more pages exceed RLIMIT_DATA")]
    Data {
        /// The number of pages that would be added.
        pages: u64,
    },
    /// The overcommit rule forbids the pages.
    #[error("cannot commit {pages} more pages")]
    Commit {
        /// The number of pages that would be added.
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

/// The error of `swapoff` and `swapon`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SwapError {
    /// The machine has no swap device, or the device is not in use.
    #[error("no swap device is in use")]
    NotInUse,
    /// The device is in use already.
    #[error("the swap device is in use already")]
    InUse,
    /// Memory is used up: some pages are still in swap, and the device is still in use.
    #[error("out of memory for {0}")]
    NoMemory(#[from] NoMemory),
    /// Other threads keep pages of the device busy; it is still in use.
    #[error("pages of the swap device are busy")]
    Busy,
}

impl SwapError {
    /// Returns Linux's errno.
    pub const fn errno(self) -> Errno {
        match self {
            Self::NotInUse => Errno::EINVAL,
            Self::InUse | Self::Busy => Errno::EBUSY,
            Self::NoMemory(_) => Errno::ENOMEM,
        }
    }
}

/// More pages are in use than a new limit of memory allows, and they cannot be reclaimed; the limit
/// in pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the pages in use cannot be reclaimed to {0}")]
pub struct LimitBusy(
    /// The limit.
    pub u64,
);

impl LimitBusy {
    /// Returns Linux's errno, EBUSY.
    pub const fn errno(self) -> Errno {
        Errno::EBUSY
    }
}

/// The error of a call with an address above `TASK_SIZE`. Nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{0:#x} lies above TASK_SIZE")]
pub struct BeyondTask(
    /// The address.
    pub u64,
);

impl BeyondTask {
    /// Returns the address if it is at most [`TASK_SIZE`](crate::addr::TASK_SIZE), the end of an
    /// address space.
    pub(crate) const fn check(addr: u64) -> Result<u64, Self> {
        if addr > crate::addr::TASK_SIZE {
            return Err(Self(addr));
        }
        Ok(addr)
    }
    /// Returns Linux's errno.
    pub const fn errno(self) -> Errno {
        Errno::EINVAL
    }
}
