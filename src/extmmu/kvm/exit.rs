//! The reasons for which an access leaves the guest.

use super::attributes::PageKind;
use crate::error::{Errno, FaultError};
use thiserror::Error;

/// An access left the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Exit {
    /// No memory slot has the frame (`KVM_EXIT_MMIO`).
    #[error("guest address {0:#x} is in no memory slot")]
    Mmio(u64),
    /// The frame is in a slot that the guest may not write (`KVM_EXIT_MMIO` for a store).
    #[error("guest address {0:#x} is in a read-only slot")]
    ReadOnly(u64),
    /// The address space refuses the page (`-EFAULT` of `KVM_RUN`).
    #[error("guest address {gpa:#x}: {why}")]
    Fault {
        /// The guest-physical byte address.
        gpa: u64,
        /// The error of the address space.
        why: FaultError,
    },
    /// The access is not of the kind that the guest frame has, or a private frame has no page
    /// (`KVM_EXIT_MEMORY_FAULT`).
    #[error("{kind:?} access to [{gpa:#x}, +{size:#x}): {errno}")]
    MemoryFault {
        /// The guest-physical address of the first byte, without the C-bit.
        gpa: u64,
        /// The number of bytes.
        size: u64,
        /// The kind of the access; `Private` is `KVM_MEMORY_EXIT_FLAG_PRIVATE`.
        kind: PageKind,
        /// The errno of `KVM_RUN`: `EFAULT`, or the error of the guest file.
        errno: Errno,
    },
    /// The address space has ended, or the machine was unregistered.
    #[error("the address space behind the guest is gone")]
    Gone,
}
