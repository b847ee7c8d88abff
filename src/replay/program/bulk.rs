//! The number of pages that a call of a recorded program may bring in, guard or lock.

use super::call::Call;
use crate::{mm::Advice, replay::work::Work};

impl Work {
    /// Returns the work of a call, before the call.
    pub(super) fn of_call(call: &Call) -> Self {
        match *call {
            Call::Mmap { len, flags, .. } => Self::mapping(len, flags),
            Call::Mlock { addr, len, flags } => Self::locked(flags, addr, len),
            Call::Mlockall { flags } => Self::all_locked(flags),
            Call::Madvise { addr, len, advice } => {
                let advice = i32::try_from(advice).ok().and_then(Advice::from_raw);
                Self::advised(addr, len, advice)
            }
            _ => Self::Little,
        }
    }
}
