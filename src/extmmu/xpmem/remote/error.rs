//! Why a remote partition gets nothing.

use super::wire::{NoMessage, VERSION};
use crate::extmmu::xpmem::XpmemError;
use std::io;
use thiserror::Error;

/// Why a remote's connection, attachment or access failed.
#[derive(Debug, Error)]
pub enum RemoteError {
    /// The owner refused.
    #[error(transparent)]
    Refused(#[from] XpmemError),
    /// The owner is gone, or has fenced this partition off. Nothing of it is mapped any more; connect anew.
    #[error("the owner is gone, or has fenced this partition off")]
    Closed,
    /// The owner speaks another version of the protocol.
    #[error("the owner speaks version {0}, not {VERSION}")]
    Version(
        /// Its version.
        u32,
    ),
    /// The other side of the socket is no owner.
    #[error("the other side is no owner")]
    NoOwner,
    /// The host said so.
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
