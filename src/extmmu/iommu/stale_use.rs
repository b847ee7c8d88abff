//! The report of a slice that a device used after the window that took its page.

use crate::{
    addr::VpnRange,
    notifier::{Access, Event},
};
use thiserror::Error;

/// The way in which a slice was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum SliceUse {
    /// Bytes were stored.
    Store {
        /// The I/O address of the first byte.
        iova: u64,
        /// The number of bytes.
        len: usize,
    },
    /// A part of the slice was taken, to be read or written.
    Part {
        /// The I/O address of its first byte.
        iova: u64,
    },
}

/// A slice was used that does not lead to memory of the process any more, or in a way that it was
/// not asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[error("slice [{iova:#x}, +{len:#x}) for {access:?}: {used}, {}", Reason(.window))]
#[non_exhaustive]
pub struct StaleUse {
    /// The I/O address of the first byte of the slice.
    pub iova: u64,
    /// The length of the slice in bytes.
    pub len: usize,
    /// The access that the slice was asked for.
    pub access: Access,
    /// The use.
    pub used: SliceUse,
    /// Range and reason of the window that took the page; `None` if none did: then it is a store
    /// through a slice for reading.
    pub window: Option<(VpnRange, Event)>,
}

impl std::fmt::Display for SliceUse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Store { iova, len } => write!(f, "a store to [{iova:#x}, +{len:#x})"),
            Self::Part { iova } => write!(f, "a use of its part at {iova:#x}"),
        }
    }
}

struct Reason<'r>(&'r Option<(VpnRange, Event)>);

impl std::fmt::Display for Reason<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some((range, event)) => write!(f, "after a window ({event:?}) over {range}"),
            None => f.write_str("though it was not asked for writing"),
        }
    }
}
