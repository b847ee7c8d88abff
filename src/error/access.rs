//! Errors of accesses to memory.

use super::{
    common::NoMemory,
    errno::{Errno, Signal},
    object::ObjectError,
};
use thiserror::Error;

/// The error of an access to memory that could not be completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[cfg_attr(feature = "remote", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum FaultError {
    /// Nothing is mapped at the address: SIGSEGV with `SEGV_MAPERR`.
    #[error("nothing is mapped at {0:#x}")]
    NotMapped(u64),
    /// The mapping forbids this access: SIGSEGV with `SEGV_ACCERR`.
    #[error("access to {0:#x} is denied")]
    Denied(u64),
    /// The page has a guard marker (`MADV_GUARD_INSTALL`): SIGSEGV.
    #[error("{0:#x} is guarded")]
    Guarded(u64),
    /// The page lies beyond the end of the object: SIGBUS.
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
    /// The access waits for a userfaultfd: its handler has a message, and the access must be
    /// repeated after the answer.
    #[error("the access to {0:#x} waits for userfaultfd")]
    Userfault(u64),
    /// The page is absent or write-protected, and the userfaultfd wants a signal instead of a
    /// message (`UFFD_FEATURE_SIGBUS`): SIGBUS.
    #[error("userfaultfd refuses the access to {0:#x}")]
    Unhandled(u64),
    /// The page was poisoned by userfaultfd: SIGBUS.
    #[error("{0:#x} is poisoned")]
    Poisoned(u64),
    /// Memory is used up, where Linux would call its OOM killer.
    #[error("out of memory for {0}")]
    NoMemory(#[from] NoMemory),
    /// The ticket was drawn by a driver of another address space.
    #[error("the ticket belongs to another address space")]
    WrongAddressSpace,
    /// The ticket was drawn by a driver of a range, and the address lies outside of that.
    #[error("{0:#x} lies outside of the range that the driver subscribed to")]
    Unsubscribed(u64),
}

impl FaultError {
    /// Returns the signal that a load or store would have raised; `None` when memory ran out, or
    /// the access waits.
    pub const fn signal(self) -> Option<Signal> {
        match self {
            Self::NotMapped(_) | Self::Denied(_) | Self::Guarded(_) => Some(Signal::Segv),
            Self::Beyond(_) | Self::Object { .. } | Self::Unhandled(_) | Self::Poisoned(_) => {
                Some(Signal::Bus)
            }
            Self::Userfault(_)
            | Self::NoMemory(_)
            | Self::WrongAddressSpace
            | Self::Unsubscribed(_) => None,
        }
    }
    /// Returns the errno of a system call that accesses the page for the user.
    pub const fn errno(self) -> Errno {
        match self {
            Self::NoMemory(_) => Errno::ENOMEM,
            // No errno of Linux, where the call would wait: it must be repeated.
            Self::Userfault(_) => Errno::EAGAIN,
            Self::WrongAddressSpace | Self::Unsubscribed(_) => Errno::EINVAL,
            _ => Errno::EFAULT,
        }
    }
}

/// The error of a copy between two address spaces of which not one byte could be copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CopyError {
    /// A page of the calling address space could not be accessed.
    #[error("on the caller's side, {0}")]
    Own(FaultError),
    /// A page of the other address space could not be accessed.
    #[error("on the other side, {0}")]
    Other(FaultError),
}

impl CopyError {
    /// Returns Linux's errno (`process_vm_readv`).
    pub const fn errno(self) -> Errno {
        match self {
            Self::Own(_) | Self::Other(_) => Errno::EFAULT,
        }
    }
}

/// The error of a transfer between a file and memory of which not one byte could be moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TransferError {
    /// A page of the memory could not be accessed.
    #[error("in memory, {0}")]
    Memory(FaultError),
    /// The file could not be read or written.
    #[error("in the file, {0}")]
    File(ObjectError),
}

impl TransferError {
    /// Returns Linux's errno (`pread`, `pwrite`).
    pub const fn errno(self) -> Errno {
        match self {
            Self::Memory(_) => Errno::EFAULT,
            Self::File(why) => why.errno(),
        }
    }
}
