//! Why an importer gets nothing.

use super::{partition::PartitionId, segment::SegId};
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
