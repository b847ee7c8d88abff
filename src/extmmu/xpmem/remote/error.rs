//! Errors of a remote partition.

use super::wire::{NoMessage, VERSION};
use crate::extmmu::xpmem::XpmemError;
use std::io;
use thiserror::Error;

/// A connection, attachment or access of a remote partition failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RemoteError {
    /// The owner refused.
    #[error(transparent)]
    Refused(#[from] XpmemError),
    /// The owner is gone, has fenced this partition off, or has sent what breaks the protocol. None
    /// of its memory is mapped any more; connect anew.
    #[error("the owner is gone, or has fenced this partition off")]
    Closed,
    /// The owner speaks another version of the protocol.
    #[error("the owner speaks version {0}, not {VERSION}")]
    Version(
        /// The version.
        u32,
    ),
    /// The other side of the socket is no owner.
    #[error("the other side is no owner")]
    NoOwner,
    /// The host refused.
    #[error(transparent)]
    Host(#[from] io::Error),
}

impl From<NoMessage> for RemoteError {
    fn from(why: NoMessage) -> Self {
        match why {
            NoMessage::Gone(e) => Self::Host(e),
            NoMessage::Garbage => Self::NoOwner,
        }
    }
}
