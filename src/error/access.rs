//! Errors of accesses to memory.

use super::{
    common::NoMemory,
    errno::{Errno, Signal},
    object::ObjectError,
};
use thiserror::Error;

/// An access could not be completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[cfg_attr(feature = "remote", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
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

/// Not one byte could be copied between two address spaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
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
#[non_exhaustive]
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
