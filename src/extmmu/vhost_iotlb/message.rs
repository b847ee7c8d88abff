//! Messages about an IOTLB as bytes (`struct vhost_iotlb_msg`).

use crate::error::Errno;
use thiserror::Error;
use vm_memory::Permissions;

/// The kind of a message (`VHOST_IOTLB_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum MessageKind {
    /// The back-end lacks a translation, or the right to an access.
    Miss = 1,
    /// A translation is valid from now on.
    Update = 2,
    /// The translations of a range are valid no more.
    Invalidate = 3,
    /// The messages up to the end of the batch count as one (`VHOST_IOTLB_BATCH_BEGIN`).
    BatchBegin = 5,
    /// The batch takes effect.
    BatchEnd = 6,
}

/// A message about an IOTLB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IotlbMessage {
    /// The first I/O address.
    pub iova: u64,
    /// The number of bytes.
    pub size: u64,
    /// Of an update: the address in the memory that the back-end has.
    pub uaddr: u64,
    /// The access that is missed, or given (`VHOST_ACCESS_*`).
    pub perm: Permissions,
    /// The kind.
    pub kind: MessageKind,
}

/// Bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BadMessage {
    /// The kind is unknown.
    #[error("no IOTLB message has kind {0}")]
    Kind(u8),
    /// The access is unknown.
    #[error("no access has number {0}")]
    Access(u8),
    /// The range is empty, or leaves the 64-bit space.
    #[error("[{iova:#x}, +{size:#x}) is no range of I/O addresses")]
    Range {
        /// The first I/O address.
        iova: u64,
        /// The number of bytes.
        size: u64,
    },
}

impl BadMessage {
    /// Returns the errno that fits.
    pub const fn errno(self) -> Errno {
        Errno::EINVAL
    }
}

impl IotlbMessage {
    /// The number of bytes of a message.
    pub const BYTES: usize = 32;

    /// Returns the bytes, in the order of the machine as Linux has them.
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        for (word, at) in [self.iova, self.size, self.uaddr]
            .into_iter()
            .zip([0, 8, 16])
        {
            bytes[at..at + 8].copy_from_slice(&word.to_ne_bytes());
        }
        bytes[24] = match self.perm {
            Permissions::No => 0,
            Permissions::Read => 1,
            Permissions::Write => 2,
            Permissions::ReadWrite => 3,
        };
        bytes[25] = self.kind as u8;
        bytes
    }
    /// Reads a message.
    ///
    /// # Errors
    ///
    /// [`BadMessage`].
    pub fn from_bytes(bytes: &[u8; Self::BYTES]) -> Result<Self, BadMessage> {
        let word = |at: usize| {
            let word = bytes[at..at + 8].try_into().expect("eight bytes");
            u64::from_ne_bytes(word)
        };
        let [iova, size, uaddr] = [word(0), word(8), word(16)];
        let kind = match bytes[25] {
            1 => MessageKind::Miss,
            2 => MessageKind::Update,
            3 => MessageKind::Invalidate,
            5 => MessageKind::BatchBegin,
            6 => MessageKind::BatchEnd,
            other => return Err(BadMessage::Kind(other)),
        };
        let perm = match bytes[24] {
            0 => Permissions::No,
            1 => Permissions::Read,
            2 => Permissions::Write,
            3 => Permissions::ReadWrite,
            other => return Err(BadMessage::Access(other)),
        };
        let message = Self {
            iova,
            size,
            uaddr,
            perm,
            kind,
        };
        if !message.is_mark() && (size == 0 || iova.checked_add(size).is_none()) {
            return Err(BadMessage::Range { iova, size });
        }
        Ok(message)
    }
    /// Returns true if it begins or ends a batch.
    pub(super) fn is_mark(self) -> bool {
        matches!(self.kind, MessageKind::BatchBegin | MessageKind::BatchEnd)
    }
    /// Returns a message that begins or ends a batch.
    pub(super) fn mark(kind: MessageKind) -> Self {
        Self {
            iova: 0,
            size: 0,
            uaddr: 0,
            perm: Permissions::No,
            kind,
        }
    }
}
