//! Errors of accesses to memory.

use super::{
    common::{ByteRange, NoMemory},
    errno::{Errno, Signal},
    object::ObjectError,
};
use crate::addr::{Vpn, VpnRange};
use thiserror::Error;

/// The error of an access to memory that could not be completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
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
    /// The page is secret: only the processes that map it reach it, not a driver and not another
    /// process.
    #[error("{0:#x} is secret memory")]
    Secret(u64),
    /// The page lies beyond the end of the object: SIGBUS.
    #[error("{0:#x} lies beyond the end of its object")]
    Beyond(u64),
    /// The memory of the process was taken away while it is being killed (`process_mrelease`):
    /// SIGBUS.
    #[error("the memory at {0:#x} was released")]
    Released(u64),
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
    /// The page lies on a device that has lost it: SIGBUS.
    #[error("the device has lost the page of {0:#x}")]
    DeviceLost(u64),
    /// The page lies on a device, and cannot come home for a long-term pin since it is in use.
    #[error("the page of {0:#x} is in use on its device")]
    Busy(u64),
    /// An atomic access of a word that does not lie at a multiple of its size: SIGBUS, as on a
    /// kernel that forbids split locks (`handle_user_split_lock`).
    #[error("the word at {0:#x} is not aligned")]
    Misaligned(u64),
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
            Self::Beyond(_)
            | Self::Released(_)
            | Self::Object { .. }
            | Self::Unhandled(_)
            | Self::Poisoned(_)
            | Self::DeviceLost(_)
            | Self::Misaligned(_) => Some(Signal::Bus),
            Self::Userfault(_)
            | Self::NoMemory(_)
            | Self::WrongAddressSpace
            | Self::Unsubscribed(_)
            | Self::Busy(_)
            | Self::Secret(_) => None,
        }
    }
    /// Returns the errno of a system call that accesses the page for the user.
    pub const fn errno(self) -> Errno {
        match self {
            Self::NoMemory(_) => Errno::ENOMEM,
            // `check_and_migrate_movable_pages`.
            Self::Busy(_) => Errno::EBUSY,
            // No errno of Linux, where the call would wait: it must be repeated.
            Self::Userfault(_) => Errno::EAGAIN,
            // As of a futex (`get_futex_key`).
            Self::Misaligned(_) | Self::WrongAddressSpace | Self::Unsubscribed(_) => Errno::EINVAL,
            _ => Errno::EFAULT,
        }
    }
}

/// The error of one page of a range that a driver looks up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("page {} of the range: {why}", VpnRange::single(*.at))]
pub struct RangeFault {
    /// The page; the pages below it were looked up.
    pub at: Vpn,
    /// The error.
    pub why: FaultError,
    /// Set if the page may be read, and the request was to write.
    pub read_only: bool,
}

impl RangeFault {
    /// Returns Linux's errno (`hmm_range_fault`): `EPERM` for a write to memory that may only be
    /// read.
    pub const fn errno(self) -> Errno {
        match self.why {
            _ if self.read_only => Errno::EPERM,
            FaultError::WrongAddressSpace
            | FaultError::Unsubscribed(_)
            | FaultError::Userfault(_) => self.why.errno(),
            _ => Errno::EFAULT,
        }
    }
}

/// The error of a copy between two address spaces that copied no byte.
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

/// The error of a transfer between a file and memory that moved no byte.
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

/// The error of a pin, or of references on pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PinError {
    /// The range leaves the address space.
    #[error("{0} leaves the address space")]
    Range(ByteRange),
    /// A page could not be had. [`FaultError::Denied`]: the mapping lacks the right, or its file
    /// must know of each write and cannot under a long-term pin.
    #[error(transparent)]
    Fault(#[from] FaultError),
}

impl PinError {
    /// Returns Linux's errno (`pin_user_pages`).
    pub const fn errno(self) -> Errno {
        match self {
            Self::Range(_) => Errno::EFAULT,
            Self::Fault(e) => e.errno(),
        }
    }
}

/// The error of an access to another process's memory that reached no byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("in the other process, {0}")]
pub struct RemoteAccessError(pub FaultError);

impl RemoteAccessError {
    /// Returns Linux's errno, `EIO` whatever the reason (`mem_rw`, `ptrace`).
    pub const fn errno(self) -> Errno {
        Errno::EIO
    }
}

/// The error of `process_mrelease`: a driver would have had to sleep. The memory of other mappings
/// has been released.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a driver of the mapping at {0:#x} would have to sleep")]
pub struct ReleaseError(pub u64);

impl ReleaseError {
    /// Returns Linux's errno.
    pub const fn errno(self) -> Errno {
        Errno::EAGAIN
    }
}
