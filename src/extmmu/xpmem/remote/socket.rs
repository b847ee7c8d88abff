//! The owner's end of a socket, on which no send ever waits.

use super::wire::{ToRemote, send_at_once};
use crate::{
    extmmu::xpmem::partition::{Link, Recall},
    frame::Loan,
    sync::Mutex,
};
use std::{net::Shutdown, os::unix::net::UnixStream, sync::Arc};

/// The owner's end of a socket.
pub(super) struct Socket {
    pub(super) stream: Arc<UnixStream>,
    /// Held while a message is written.
    pub(super) writing: Mutex<()>,
}

/// No send waits for a partition that does not read. The socket has room for every answer that the
/// partition may ask for, and for recalls beside them; when there is no room left, the partition
/// counts as dead.
impl Socket {
    /// Sends a message. Returns false if it cannot be sent.
    pub(super) fn send(&self, message: &ToRemote) -> bool {
        let _alone = self.writing.lock();
        send_at_once(&self.stream, message, None).is_ok()
    }
    /// Sends a piece of memory. Returns false if it cannot be sent.
    pub(super) fn send_memory(&self, loan: &Loan, writable: bool) -> bool {
        let _alone = self.writing.lock();
        let message = ToRemote::Memory {
            id: loan.id(),
            writable,
        };
        send_at_once(&self.stream, &message, Some(loan.memory().fd())).is_ok()
    }
}

impl Link for Arc<Socket> {
    fn ask(&self, recall: Recall) -> bool {
        self.send(&ToRemote::Recall {
            serial: recall.serial,
            start: recall.range.start().0,
            end: recall.range.end().0,
        })
    }
    /// Ends both threads of the connection; the second of them takes the lent pages home.
    fn fence(&self) {
        let _closed_already = self.stream.shutdown(Shutdown::Both);
    }
}
