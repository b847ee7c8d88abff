//! Errors of an importer.

use super::{partition::PartitionId, segment::SegId};
use crate::error::FaultError;
use thiserror::Error;

/// An importer's access, or an attachment, was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum XpmemError {
    /// The segment was removed, or its owner ended.
    #[error("segment {0:?} is gone")]
    NoSegment(
        /// The segment.
        SegId,
    ),
    /// The attachment was detached, or never existed.
    #[error("there is no attachment {0}")]
    NoAttachment(
        /// The number of the attachment.
        u64,
    ),
    /// Not all of the pages are in the segment.
    #[error("bytes {0:#x} and beyond are not in the segment")]
    Range(
        /// The first byte, from the start of the segment.
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
        /// The byte, from the start of the attachment.
        at: u64,
        /// The error of the owner's address space.
        why: FaultError,
    },
    /// The partition is dead, or was fenced off.
    #[error("partition {0:?} is cut off")]
    CutOff(
        /// The partition.
        PartitionId,
    ),
    /// The partition has reached a limit.
    #[error("no more than {0} {1}")]
    Limit(
        /// The limit.
        u64,
        /// The resource.
        Limited,
    ),
    /// The owner's host has no memory, or no descriptor, for the memory to be lent.
    #[error("the host refuses the memory: error {0}")]
    Host(
        /// The errno of the host.
        i32,
    ),
}

/// A resource of which a partition in another process may have a limited number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Limited {
    /// Attachments at a time.
    Attachments,
    /// Segments made of attachments, at a time.
    Segments,
    /// Pages at a time.
    Pages,
    /// Pieces of memory that were sent to the partition.
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
