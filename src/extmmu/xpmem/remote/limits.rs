//! Limits of partitions in other processes: the owner's process can go on, whatever they ask for.

use crate::{
    notifier::Access,
    sync::{AtomicUsize, Ordering::Relaxed},
};
use std::sync::Arc;

/// The configuration of a connection.
#[derive(Clone, Copy, Debug)]
pub struct RemoteConfig {
    /// `Read`: the partition gets only memory that no process but the owner can write, by any
    /// descriptor.
    pub access: Access,
    /// The limits of the partition.
    pub limits: PartitionLimits,
}

impl Default for RemoteConfig {
    fn default() -> Self {
        Self {
            access: Access::Write,
            limits: PartitionLimits::default(),
        }
    }
}

/// Limits of one partition.
///
/// A request beyond a limit is refused ([`Limit`](crate::extmmu::xpmem::XpmemError::Limit)). A
/// partition that asks more questions at a time than it may breaks the protocol, and is cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionLimits {
    /// Partitions of this owner that are connected, this one included; each has two threads and a
    /// descriptor.
    pub connections: usize,
    /// Questions without an answer: from 1 to 128, and taken for the nearest of these. The
    /// partition is sent the number, and keeps to it.
    pub questions: usize,
    /// Attachments.
    pub attachments: usize,
    /// Segments that it made of attachments.
    pub segments: usize,
    /// Pages that it has faulted in; each has a reference, and an entry of some 100 bytes.
    pub pages: usize,
    /// Pieces of memory that were sent to it, at most 512; each costs both processes a descriptor:
    /// one or two for a segment of up to 63 pages, two more for each eightfold size.
    pub memories: usize,
}

impl PartitionLimits {
    /// The answers to so many questions, and some recalls beside them, have room in a socket of the
    /// host's usual size.
    pub(super) const MOST_QUESTIONS: usize = 128;
    /// More pieces of memory are sent to no partition, and a partition takes no more: each has a
    /// descriptor, of which a process has 1,024 by default.
    pub(super) const MOST_MEMORIES: usize = 512;
}

impl Default for PartitionLimits {
    fn default() -> Self {
        Self {
            connections: 32,
            questions: 64,
            attachments: 1024,
            segments: 1024,
            pages: 1 << 20,
            memories: 24,
        }
    }
}

/// The count of a connection, until this is dropped.
pub(super) struct ConnectionSlot(Arc<AtomicUsize>);

impl ConnectionSlot {
    /// Counts a connection. Returns `None` if there are `most` already.
    pub(super) fn take(taken: &Arc<AtomicUsize>, most: usize) -> Option<Self> {
        let more = |n| (n < most).then_some(n + 1);
        taken.fetch_update(Relaxed, Relaxed, more).ok()?;
        Some(Self(Arc::clone(taken)))
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}
