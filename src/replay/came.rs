//! Results of the library as outcomes of scripts.

use super::script::Outcome;
use crate::error::{Errno, FaultError};

pub(super) fn failed(errno: Errno) -> Outcome {
    Outcome::Err(errno.to_string())
}

pub(super) fn touched(result: Result<u8, FaultError>) -> Outcome {
    match result {
        Ok(byte) => Outcome::Ret(u64::from(byte)),
        Err(e) => e
            .signal()
            .map_or_else(|| failed(e.errno()), Outcome::Signal),
    }
}
