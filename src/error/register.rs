//! Errors of the registration of a driver.

use super::errno::Errno;
use thiserror::Error;

/// The error of a registration that would leave windows without an answer. Nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RegisterError {
    /// The driver has no gate on its seat: `build` dropped the seat, or kept it for later.
    #[error("{0} built no gate on its seat, so it cannot answer a window")]
    NoGate(
        /// The name of the driver.
        &'static str,
    ),
    /// The driver is registered already, here or in another address space, and its gate belongs to
    /// that registration.
    #[error("{0} is registered already")]
    Twice(
        /// The name of the driver.
        &'static str,
    ),
}

impl RegisterError {
    /// Returns a fitting errno; Linux has no such error.
    pub const fn errno(self) -> Errno {
        match self {
            Self::NoGate(_) => Errno::EINVAL,
            Self::Twice(_) => Errno::EEXIST,
        }
    }
}
