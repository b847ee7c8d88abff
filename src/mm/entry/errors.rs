//! How populating a range treats a page that cannot be made present, and why it stopped.

use crate::error::FaultError;

/// How populating treats a page that cannot be made present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::mm) enum Errors {
    /// Go on with the next VMA (`MAP_POPULATE`).
    Ignore,
    /// Stop and return the error (`mlock`).
    Stop,
}

/// Why `MADV_POPULATE_READ` or `MADV_POPULATE_WRITE` stopped. Addresses are in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::mm) enum PopulateError {
    /// No VMA is at this address.
    Hole(u64),
    /// The VMA at this address lacks the right.
    Denied(u64),
    /// The fault failed.
    Fault(FaultError),
}
