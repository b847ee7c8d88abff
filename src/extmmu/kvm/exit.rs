//! Why an access left the guest.

use crate::error::FaultError;
use thiserror::Error;

/// Why a guest access left the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Exit {
    /// No memory slot has the frame (`KVM_EXIT_MMIO`).
    #[error("guest address {0:#x} is in no memory slot")]
    Mmio(u64),
    /// The frame is in a slot that the guest may not write (`KVM_EXIT_MMIO` for a store).
    #[error("guest address {0:#x} is in a read-only slot")]
    ReadOnly(u64),
    /// The page behind it could not be had (`-EFAULT` of `KVM_RUN`).
    #[error("guest address {gpa:#x}: {why}")]
    Fault {
        /// Guest-physical byte address.
        gpa: u64,
        /// What the address space said.
        why: FaultError,
    },
    /// The address space has ended, or the machine was taken off its chain.
    #[error("the address space behind the guest is gone")]
    Gone,
}
