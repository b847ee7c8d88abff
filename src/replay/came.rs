//! Results of the library as outcomes of scripts.

use super::script::Outcome;
use crate::error::{Errno, FaultError};

/// Returns the outcome of an operation that failed with `errno`.
pub(super) fn failed(errno: Errno) -> Outcome {
    Outcome::Err(errno.to_string())
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
