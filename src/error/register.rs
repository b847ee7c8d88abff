//! Errors of the registration of a driver.

use super::errno::Errno;
use thiserror::Error;

/// A driver was not put on the chain: windows could never have its consent. Nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RegisterError {
    /// When the driver was built, there was no gate on its seat: it was dropped, or put away for later.
    #[error("{0} built no gate on its seat, so it cannot answer a window")]
    NoGate(
        /// What the driver is called.
        &'static str,
    ),
    /// The driver is registered already, here or in another address space. Its gate is of that registration.
    #[error("{0} is registered already")]
    Twice(
        /// What the driver is called.
        &'static str,
    ),
}

impl RegisterError {
    /// The errno that fits; Linux has none for this.
    pub const fn errno(self) -> Errno {
        match self {
            Self::NoGate(_) => Errno::EINVAL,
            Self::Twice(_) => Errno::EEXIST,
        }
    }
}
