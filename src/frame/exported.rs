//! Frames that a driver has by number: flagged, and kept until it was told that their mappings are gone.
//!
//! Where a mapping goes, no frame can be locked, and nobody who sleeps be told. So a frame that is exported gets a reference
//! there, and is put off until somebody who holds no lock below that of a frame tells of it: it is never freed before.

use crate::{
    addr::Pfn,
    sync::{AtomicUsize, Mutex},
};
use std::collections::VecDeque;

/// What happened to a frame that is exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lost {
    /// A mapping, perhaps the last.
    Mapping,
    /// The right to write.
    Write,
}

/// Exported frames of a machine.
#[derive(Debug, Default)]
pub(super) struct Exported {
    /// How many are flagged.
    pub(super) flagged: AtomicUsize,
    /// How many are in `deferred`.
    pub(super) waiting: AtomicUsize,
    /// Those to be told of, each with a reference.
    pub(super) deferred: Mutex<VecDeque<(Pfn, Lost)>>,
}
