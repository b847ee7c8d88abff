//! XPmem: memory of a process that other partitions map, who have to acknowledge before a page may go.
//!
//! Its callbacks sleep, so it lives on sleepable windows alone and refuses the others. The rules are those of the driver
//! that was posted with the notifiers in 2008:
//!
//! * the owner keeps a table of the frames that it has exported, each with a reference;
//! * a window first waits until no fault is between its look-up and its entry, and keeps new ones waiting until its end;
//! * then it recalls the range: every partition that has a page of it is asked to clear its entries, and must answer; only
//!   then the references are given up;
//! * a fault counts as in the way of windows only before and after it looks the page up: the look-up itself may copy the
//!   page, which opens a window of the owner's own.
//!
//! ```text
//! window                          fault of an importer
//!                                 block recalls; ticket; unblock
//!                                 look up (may sleep, may open windows)
//! begin: recalls in progress
//! recall, wait for answers        wait
//! entry: A -> B
//! end                             block recalls; ticket is stale: again
//! ```
//!
//! A partition that dies has answered. One that hangs has until the deadline; then it is fenced off, which is as good as
//! dead, and [`Owner::failures`] says so.
//!
//! | file | |
//! | --- | --- |
//! | `owner` | segments, the frame table, what a window does |
//! | `failure` | partitions that had to be cut off |
//! | `fault` | how an importer comes by a page |
//! | `pages` | a table by page |
//! | `gatekeeper` | faults against recalls |
//! | `partition` | what an owner knows of a partition: entries, answers, death |
//! | `local` | a partition that is a thread of this process |
//! | `remote` | one that is another process (feature `remote`, on Linux) |
//! | `segment` | what is exported, and its names |
//! | `attachment` | what an importer holds |

mod attachment;
mod failure;
mod fault;
mod gatekeeper;
mod local;
#[cfg(all(test, loom))]
mod models;
mod owner;
mod pages;
mod partition;
#[cfg(all(feature = "remote", target_os = "linux"))]
pub mod remote;
mod segment;

pub use attachment::Attachment;
pub use failure::Failure;
pub use local::Manners;
pub use owner::{Mistake, Owner, OwnerConfig};
pub use partition::{Breach, Partition, PartitionId};
pub use segment::SegId;

use crate::error::FaultError;
use thiserror::Error;

/// Why an importer's access, or an attachment, was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[cfg_attr(feature = "remote", derive(serde::Serialize, serde::Deserialize))]
pub enum XpmemError {
    /// The segment was removed, or its owner ended.
    #[error("segment {0:?} is gone")]
    NoSegment(
        /// The segment.
        SegId,
    ),
    /// The attachment was detached, or never was.
    #[error("there is no attachment {0}")]
    NoAttachment(
        /// Its number.
        u64,
    ),
    /// The pages are not all of the segment.
    #[error("bytes {0:#x} and beyond are not in the segment")]
    Range(
        /// First byte from the start of the segment.
        u64,
    ),
    /// The segment may only be read.
    #[error("segment {0:?} may only be read")]
    ReadOnly(
        /// The segment.
        SegId,
    ),
    /// The owner's address space refuses the page.
    #[error("byte {at:#x} of the attachment: {why}")]
    Fault {
        /// From the start of the attachment.
        at: u64,
        /// What the owner's address space said.
        why: FaultError,
    },
    /// The partition is dead, or was fenced off.
    #[error("partition {0:?} is cut off")]
    CutOff(
        /// The partition.
        PartitionId,
    ),
    /// The partition has as many of these as it may have.
    #[error("no more than {0} {1}")]
    Limit(
        /// So many.
        u64,
        /// Of what.
        Limited,
    ),
    /// The owner's host has no memory, or no descriptor, for what is to be lent.
    #[error("the host refuses the memory: error {0}")]
    Host(
        /// Its errno.
        i32,
    ),
}

/// What a partition in another process has only so many of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "remote", derive(serde::Serialize, serde::Deserialize))]
pub enum Limited {
    /// Attachments at a time.
    Attachments,
    /// Segments that it made, at a time.
    Segments,
    /// Pages at a time.
    Pages,
    /// Pieces of memory that it has mapped.
    Memories,
}

impl std::fmt::Display for Limited {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Attachments => "attachments",
            Self::Segments => "segments",
            Self::Pages => "pages",
            Self::Memories => "pieces of memory",
        })
    }
}
