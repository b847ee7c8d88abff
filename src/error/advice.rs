//! Errors of the calls that advise, lock and inspect.

use super::{Errno, LimitError, NoMemory, ObjectError, Signal, VmaError};
use thiserror::Error;

/// `madvise` failed; VMAs before the failing one stay done, and after a [`Hole`](Self::Hole) all mapped ones are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum MadviseError {
    /// Unaligned address, or the range wraps.
    #[error("[{addr:#x}, +{len:#x}) is not a range of pages")]
    Range {
        /// Address asked for.
        addr: u64,
        /// Length asked for.
        len: u64,
    },
    /// The advice does not fit this VMA (locked, shared, not anonymous, …).
    #[error("the mapping at {0:#x} does not take this advice")]
    Unsuitable(u64),
    /// The object behind the mapping may not be changed through it (`MADV_REMOVE`).
    #[error("the mapping at {0:#x} may not change its object")]
    Denied(u64),
    /// The object behind the mapping could not do it (`MADV_REMOVE`).
    #[error("the object mapped at {at:#x}: {why}")]
    Object {
        /// Start of the mapping.
        at: u64,
        /// The object's error.
        why: ObjectError,
    },
    /// Memory that has a name already, as a file (naming it).
    #[error("the mapping at {0:#x} is not anonymous")]
    NotAnonymous(u64),
    /// A page is in use otherwise: trying again might help (`MADV_COLLAPSE`).
    #[error("a page at {0:#x} is in use otherwise")]
    Busy(u64),
    /// A hole in the range; everything mapped was done.
    #[error("nothing is mapped at {0:#x}")]
    Hole(u64),
    /// A page could not be populated.
    #[error("populating failed: {0}")]
    Populate(#[from] FaultError),
    /// Populating needs a right that the VMA does not have.
    #[error("the mapping at {0:#x} lacks the right to be populated so")]
    PopulateDenied(u64),
    /// The list of VMAs: Linux turns its ENOMEM into EAGAIN here.
    #[error(transparent)]
    Vma(#[from] VmaError),
    /// Page tables for guard markers ran out.
    #[error("out of memory for {0}")]
    NoMemory(NoMemory),
}

impl MadviseError {
    /// Linux's errno.
    pub const fn errno(self) -> Errno {
        match self {
            Self::Range { .. } | Self::Unsuitable(_) | Self::PopulateDenied(_) => Errno::EINVAL,
            Self::Denied(_) => Errno::EACCES,
            Self::NotAnonymous(_) => Errno::EBADF,
            Self::Object { why, .. } => why.errno(),
            Self::Busy(_) => Errno::EAGAIN,
            Self::Hole(_) | Self::NoMemory(_) => Errno::ENOMEM,
            Self::Populate(e) => e.errno(),
            Self::Vma(VmaError::Sealed(_)) => Errno::EPERM,
            Self::Vma(_) => Errno::EAGAIN,
        }
    }
}

/// `mlock`, `mlock2`, `munlock`, `mlockall` or `munlockall` failed; VMAs before the failing one stay done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum MlockError {
    /// Unknown or contradicting flags.
    #[error("flags {0:#x}")]
    Flags(u32),
    /// The range wraps.
    #[error("[{addr:#x}, +{len:#x}) wraps")]
    Wraps {
        /// Address asked for.
        addr: u64,
        /// Length asked for.
        len: u64,
    },
    /// No right to lock memory.
    #[error("no right to lock memory")]
    Denied,
    /// `RLIMIT_MEMLOCK`.
    #[error("{0} pages exceed RLIMIT_MEMLOCK")]
    Limit(u64),
    /// A hole in the range.
    #[error("nothing is mapped at {0:#x}")]
    Hole(u64),
    /// A page could not be made present; the VMA stays locked.
    #[error("populating failed: {0}")]
    Populate(#[from] FaultError),
    /// The list of VMAs.
    #[error(transparent)]
    Vma(#[from] VmaError),
}

impl MlockError {
    /// Linux's errno: a fault while populating is ENOMEM, memory running out EAGAIN.
    pub const fn errno(self) -> Errno {
        match self {
            Self::Flags(_) | Self::Wraps { .. } => Errno::EINVAL,
            Self::Denied => Errno::EPERM,
            Self::Limit(_) | Self::Hole(_) => Errno::ENOMEM,
            Self::Populate(FaultError::NoMemory(_)) => Errno::EAGAIN,
            Self::Populate(_) => Errno::ENOMEM,
            Self::Vma(e) => e.errno(),
        }
    }
}

/// `mincore` failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum MincoreError {
    /// Unaligned address.
    #[error("address {0:#x} is not page aligned")]
    Unaligned(u64),
    /// Outside user space.
    #[error("[{addr:#x}, +{len:#x}) leaves user space")]
    TooHigh {
        /// Address asked for.
        addr: u64,
        /// Length asked for.
        len: u64,
    },
    /// A hole in the range.
    #[error("nothing is mapped at {0:#x}")]
    Hole(u64),
}

impl MincoreError {
    /// Linux's errno.
    pub const fn errno(self) -> Errno {
        match self {
            Self::Unaligned(_) => Errno::EINVAL,
            Self::TooHigh { .. } | Self::Hole(_) => Errno::ENOMEM,
        }
    }
}

/// `msync` failed; mapped parts of the range were synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum MsyncError {
    /// Unknown flags, or `MS_SYNC` with `MS_ASYNC`.
    #[error("flags {0:#x}")]
    Flags(u32),
    /// Unaligned address.
    #[error("address {0:#x} is not page aligned")]
    Unaligned(u64),
    /// The range wraps.
    #[error("[{addr:#x}, +{len:#x}) wraps")]
    Wraps {
        /// Address asked for.
        addr: u64,
        /// Length asked for.
        len: u64,
    },
    /// A hole in the range.
    #[error("nothing is mapped at {0:#x}")]
    Hole(u64),
    /// `MS_INVALIDATE` on a locked VMA.
    #[error("the mapping at {0:#x} is locked")]
    Locked(u64),
    /// Writeback failed; the walk ended there.
    #[error("the object mapped at {at:#x}: {why}")]
    Object {
        /// Start of the mapping.
        at: u64,
        /// The object's error.
        why: ObjectError,
    },
}

impl MsyncError {
    /// Linux's errno.
    pub const fn errno(self) -> Errno {
        match self {
            Self::Flags(_) | Self::Unaligned(_) => Errno::EINVAL,
            Self::Wraps { .. } | Self::Hole(_) => Errno::ENOMEM,
            Self::Locked(_) => Errno::EBUSY,
            Self::Object { why, .. } => why.errno(),
        }
    }
}

/// `mseal` failed; nothing changed unless the map limit stopped it half-way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum MsealError {
    /// Unaligned address, or the range wraps.
    #[error("[{addr:#x}, +{len:#x}) is not a range of pages")]
    Range {
        /// Address asked for.
        addr: u64,
        /// Length asked for.
        len: u64,
    },
    /// A hole in the range.
    #[error("nothing is mapped at {0:#x}")]
    Hole(u64),
    /// The list of VMAs.
    #[error(transparent)]
    Vma(#[from] VmaError),
}

impl MsealError {
    /// Linux's errno.
    pub const fn errno(self) -> Errno {
        match self {
            Self::Range { .. } => Errno::EINVAL,
            Self::Hole(_) => Errno::ENOMEM,
            Self::Vma(e) => e.errno(),
        }
    }
}

/// `fork` failed; no child exists and the parent is as it was (its writable pages may have become
/// copy-on-write, which no load or store can tell).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ForkError {
    /// The child's memory cannot be committed.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// An allocation failed.
    #[error("out of memory for {0}")]
    NoMemory(#[from] NoMemory),
}

impl ForkError {
    /// Linux's errno.
    pub const fn errno(self) -> Errno {
        Errno::ENOMEM
    }
}

/// Not one byte could be copied between two address spaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CopyError {
    /// A page of the address space that copies.
    #[error("on the caller's side, {0}")]
    Own(FaultError),
    /// A page of the other one.
    #[error("on the other side, {0}")]
    Other(FaultError),
}

impl CopyError {
    /// Linux's errno (`process_vm_readv`).
    pub const fn errno(self) -> Errno {
        match self {
            Self::Own(_) | Self::Other(_) => Errno::EFAULT,
        }
    }
}

/// Not one byte could be moved between a file and memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TransferError {
    /// A page of the memory.
    #[error("in memory, {0}")]
    Memory(FaultError),
    /// The file.
    #[error("in the file, {0}")]
    File(ObjectError),
}

impl TransferError {
    /// Linux's errno (`pread`, `pwrite`).
    pub const fn errno(self) -> Errno {
        match self {
            Self::Memory(_) => Errno::EFAULT,
            Self::File(why) => why.errno(),
        }
    }
}

/// An access could not be completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[cfg_attr(feature = "remote", derive(serde::Serialize, serde::Deserialize))]
pub enum FaultError {
    /// Nothing mapped there: SIGSEGV with `SEGV_MAPERR`.
    #[error("nothing is mapped at {0:#x}")]
    NotMapped(u64),
    /// The mapping forbids this access: SIGSEGV with `SEGV_ACCERR`.
    #[error("access to {0:#x} is denied")]
    Denied(u64),
    /// A guard marker (`MADV_GUARD_INSTALL`): SIGSEGV.
    #[error("{0:#x} is guarded")]
    Guarded(u64),
    /// Beyond the end of the object: SIGBUS.
    #[error("{0:#x} lies beyond the end of its object")]
    Beyond(u64),
    /// The object could not give the page: SIGBUS.
    #[error("the page of {addr:#x} cannot be had: {why}")]
    Object {
        /// The address.
        addr: u64,
        /// The object's error.
        why: ObjectError,
    },
    /// Memory is used up; Linux would call its OOM killer.
    #[error("out of memory for {0}")]
    NoMemory(#[from] NoMemory),
    /// The ticket was drawn from another address space.
    #[error("the ticket belongs to another address space")]
    WrongAddressSpace,
    /// The ticket was drawn by a driver that subscribed to a range without this address.
    #[error("{0:#x} lies outside of the range that the driver subscribed to")]
    Unsubscribed(u64),
}

impl FaultError {
    /// The signal that a load or store would have raised; none when memory ran out.
    pub const fn signal(self) -> Option<Signal> {
        match self {
            Self::NotMapped(_) | Self::Denied(_) | Self::Guarded(_) => Some(Signal::Segv),
            Self::Beyond(_) | Self::Object { .. } => Some(Signal::Bus),
            Self::NoMemory(_) | Self::WrongAddressSpace | Self::Unsubscribed(_) => None,
        }
    }
    /// What a system call returns that touches the page for the user.
    pub const fn errno(self) -> Errno {
        match self {
            Self::NoMemory(_) => Errno::ENOMEM,
            Self::WrongAddressSpace | Self::Unsubscribed(_) => Errno::EINVAL,
            _ => Errno::EFAULT,
        }
    }
}
