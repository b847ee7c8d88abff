//! Page faults of the adapter.

use crate::{
    addr::VpnRange, driver::TranslateError, error::FaultError, extmmu::fault_queue::DeviceFault,
    notifier::Access,
};

/// The number under which an adapter reaches a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(pub u32);

/// Counts of page faults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultStats {
    /// Faults that the adapter has raised.
    pub raised: u64,
    /// Faults that were answered: the queue pair resumes, or gets an error.
    pub answered: u64,
    /// Answers to faults that wait for none.
    pub stray: u64,
}

impl FaultStats {
    /// Returns the number of faults that wait for an answer.
    pub fn waiting(&self) -> u64 {
        self.raised - self.answered
    }
}

/// A page fault: the pages that the adapter needs, and the access.
#[derive(Clone, Copy, Debug)]
pub(super) struct PageFault {
    pub(super) number: u64,
    pub(super) key: Key,
    pub(super) pages: VpnRange,
    pub(super) access: Access,
}

impl DeviceFault for PageFault {
    type Id = u64;
    type User = Key;
    /// Resume, or the error.
    type Answer = Result<(), TranslateError>;

    fn id(&self) -> u64 {
        self.number
    }
    fn user(&self) -> Key {
        self.key
    }
    fn gone(&self) -> Self::Answer {
        Err(FaultError::NotMapped(self.pages.start().addr()).into())
    }
}
