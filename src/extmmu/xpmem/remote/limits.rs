//! What partitions in other processes may have: whatever they ask for, the owner's process stays able to go on.

use crate::{
    notifier::Access,
    sync::{AtomicUsize, Ordering::Relaxed},
};
use std::sync::Arc;

/// How a partition is served.
#[derive(Clone, Copy, Debug)]
pub struct RemoteConfig {
    /// `Read`: it gets memory that nobody but the owner can write, by whatever descriptor.
    pub access: Access,
    /// What it may have.
    pub limits: Limits,
}

impl Default for RemoteConfig {
    fn default() -> Self {
        Self {
            access: Access::Write,
            limits: Limits::default(),
        }
    }
}

/// How much a partition may have at a time. Who wants more is told so ([`Limit`](crate::extmmu::xpmem::XpmemError::Limit)); who
/// asks more questions is no partition of this protocol, and is cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Partitions of this owner that are connected, this one among them: two threads and a descriptor each.
    pub connections: usize,
    /// Questions that are not answered; from 1 to 128, and taken for the nearest of these. The partition is told, and keeps
    /// to it.
    pub questions: usize,
    /// Attachments.
    pub attachments: usize,
    /// Segments that it made of them.
    pub segments: usize,
    /// Pages that it has faulted in: each has a reference, and an entry of some 100 bytes.
    pub pages: usize,
    /// Pieces of memory that were sent to it, each of which costs the owner a descriptor: one or two for a segment of up to
    /// 63 pages, two more for each eightfold size.
    pub memories: usize,
}

impl Limits {
    /// The answers to so many have room in a socket of the host's usual size, with some recalls beside them.
    pub(super) const MOST_QUESTIONS: usize = 128;
}

impl Default for Limits {
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

/// A connection that is counted.
pub(super) struct ConnectionSlot(Arc<AtomicUsize>);

impl ConnectionSlot {
    /// `None`: there are as many already.
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
