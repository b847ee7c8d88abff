//! The exported frames of a machine: frames that a driver knows by number.
//!
//! Guarantee: an exported frame is not freed before its driver has been notified that a mapping is
//! gone. The place where a mapping goes holds the lock of a leaf: it can neither lock a frame nor
//! call a driver that sleeps. So the frame gets a reference there and is deferred, until a caller
//! that holds no lock below that of a frame notifies the driver
//! (docs/adr/0025-exported-frames-wait.md).

use crate::{
    addr::Pfn,
    sync::{AtomicUsize, Mutex},
};
use std::collections::VecDeque;

/// The loss that the driver of an exported frame must be notified of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lost {
    /// The frame lost a mapping, perhaps its last.
    Mapping,
    /// A mapping of the frame lost the right to write.
    Write,
}

/// The exported frames of a machine, and the notices that are deferred.
#[derive(Debug, Default)]
pub(super) struct Exported {
    /// The number of frames that have the flag.
    pub(super) flagged: AtomicUsize,
    /// The length of `deferred`, to be read without the lock.
    pub(super) waiting: AtomicUsize,
    /// Notices to be given, oldest first; each holds a reference on its frame.
    pub(super) deferred: Mutex<VecDeque<(Pfn, Lost)>>,
}
