//! The owner's side of a connection: one thread that hears answers, one that works on questions.
//!
//! There must be two: the second may open windows of its own, and these wait for the answers that
//! the first hears.

use super::{
    limits::{ConnectionSlot, PartitionLimits, RemoteConfig},
    server::{Question, Server},
    socket::Socket,
    wire::{Messages, NoMessage, ToOwner, ToRemote, VERSION},
};
use crate::{
    extmmu::xpmem::{
        owner::Owner,
        partition::{Breach, Partition, PartitionId},
    },
    sync::Mutex,
};
use std::{
    io,
    net::Shutdown,
    os::unix::net::UnixStream,
    sync::{
        Arc,
        mpsc::{SyncSender, TrySendError, sync_channel},
    },
    thread::Builder,
};
use thiserror::Error;

/// A connection cannot be served.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The machine's frames cannot be [lent](crate::Contents::Shared).
    #[error("the frames of this machine cannot be lent to other processes")]
    NotShared,
    /// The owner's address space has ended.
    #[error("the address space has ended")]
    Ended,
    /// The limit of connections is reached.
    #[error("{0} partitions are connected")]
    Limit(
        /// The limit.
        usize,
    ),
    /// The host refused, for instance a thread.
    #[error(transparent)]
    Host(#[from] io::Error),
}

/// A partition in another process, as its owner sees it.
#[derive(Clone, Debug)]
pub struct Remote(Arc<Partition>);

impl Remote {
    /// Returns the name.
    pub fn id(&self) -> PartitionId {
        self.0.id()
    }
    /// Returns true if the partition is dead or fenced off.
    pub fn is_cut_off(&self) -> bool {
        self.0.is_cut_off()
    }
    /// Returns the number of entries that the partition could use now.
    pub fn entries(&self) -> usize {
        self.0.entries()
    }
    /// Returns the number of answers that came.
    pub fn answers(&self) -> u64 {
        self.0.answers()
    }
    /// Fences the partition off: it is disconnected, and its pages are taken home. The process
    /// itself is left alone.
    pub fn kill(&self) {
        self.0.kill();
    }
}

impl Owner {
    /// Serves a partition at the other end of a socket. Returns at once; two threads serve it until
    /// it goes.
    ///
    /// The process at the other end is not trusted, nor others that have the socket as well. It
    /// gets pages of the segments whose [names](crate::extmmu::xpmem::SegId) it knows, when it asks
    /// for them, in memory of these segments; and it loses them with the windows over them,
    /// whatever it does.
    ///
    /// # Errors
    ///
    /// [`ServeError`]; the stream is closed then, and nothing was lent.
    pub fn serve(
        self: &Arc<Self>,
        stream: UnixStream,
        id: PartitionId,
        config: RemoteConfig,
    ) -> Result<Remote, ServeError> {
        let stream = Arc::new(stream);
        let served = self.try_serve(&stream, id, config);
        if served.is_err() {
            let _closed_already = stream.shutdown(Shutdown::Both);
        }
        served
    }
    fn try_serve(
        self: &Arc<Self>,
        stream: &Arc<UnixStream>,
        id: PartitionId,
        config: RemoteConfig,
    ) -> Result<Remote, ServeError> {
        let mm = self.mm.upgrade().ok_or(ServeError::Ended)?;
        let machine = Arc::clone(mm.machine());
        if !machine.mem().lends() {
            return Err(ServeError::NotShared);
        }
        let limits = config.limits;
        let open = limits.questions.clamp(1, PartitionLimits::MOST_QUESTIONS);
        let seat = ConnectionSlot::take(&self.seats, limits.connections)
            .ok_or(ServeError::Limit(limits.connections))?;
        // The thread that hears blocks in reads, without a timeout.
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(None)?;
        let socket = Arc::new(Socket {
            stream: Arc::clone(stream),
            writing: Mutex::default(),
        });
        let partition = Partition::with_link(id, Box::new(Arc::clone(&socket)));
        let partition = Arc::new(partition);
        let (questions, asked) = sync_channel(open);
        let server = Server::new(self, &partition, &socket, config);
        Builder::new().spawn(move || {
            server.work(&machine, &asked);
            drop(seat);
        })?;
        let (heard, messages) = (Arc::clone(&partition), Messages::new(Arc::clone(stream)));
        Builder::new().spawn(move || hear(messages, &heard, &questions, open))?;
        self.introduce(&partition);
        let welcome = ToRemote::Welcome {
            version: VERSION,
            partition: id,
            questions: open as u64,
        };
        if !socket.send(&welcome) {
            partition.kill();
        }
        Ok(Remote(partition))
    }
}

/// Hears messages of the partition until the connection ends.
fn hear(
    mut messages: Messages,
    partition: &Partition,
    questions: &SyncSender<Question>,
    most: usize,
) {
    loop {
        let heard = match messages.next() {
            Ok(ToOwner::Cleared { serial }) => partition.answer(serial, true),
            Ok(ToOwner::Ask { token, request }) => match questions.try_send((token, request)) {
                Err(TrySendError::Full(_)) => Err(Breach::TooMany(most)),
                // The worker ends before this thread only after a panic.
                Err(TrySendError::Disconnected(_)) => return partition.kill(),
                Ok(()) => Ok(()),
            },
            Err(NoMessage::Garbage) => Err(Breach::Garbage),
            Err(NoMessage::Gone(_)) => return partition.died(),
        };
        if let Err(breach) = heard {
            return partition.broke(breach);
        }
    }
}
