//! Results of the library as outcomes of scripts.

use super::script::Outcome;
use crate::error::{Errno, FaultError, HasErrno};

/// Returns the outcome of an operation that failed with `errno`.
pub(super) fn failed(errno: Errno) -> Outcome {
    Outcome::Err(errno.to_string())
}

/// Returns the outcome of an operation that returns a number.
pub(super) fn returned(result: Result<u64, impl HasErrno>) -> Outcome {
    result.map_or_else(|e| failed(e.errno()), Outcome::Ret)
}

/// Returns the outcome of an operation that returns a number of bytes or pages.
pub(super) fn counted(result: Result<usize, impl HasErrno>) -> Outcome {
    returned(result.map(|n| n as u64))
}

/// Returns the outcome of an operation that returns 0.
pub(super) fn done(result: Result<(), impl HasErrno>) -> Outcome {
    returned(result.map(|()| 0))
}

/// Returns the outcome of a load (its byte) or a store (0), or the signal of the fault.
///
/// A [`FaultError`] without a signal, such as a lack of memory, becomes its errno.
pub(super) fn touched(result: Result<u8, FaultError>) -> Outcome {
    match result {
        Ok(byte) => Outcome::Ret(u64::from(byte)),
        Err(e) => e
            .signal()
            .map_or_else(|| failed(e.errno()), Outcome::Signal),
    }
}
