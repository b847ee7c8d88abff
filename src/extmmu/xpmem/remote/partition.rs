//! The remote side, for its users: attachments, and accesses through them.

use super::{
    entries::Connection,
    error::RemoteError,
    wire::{Attached, Messages, Reply, Request, ToRemote, VERSION},
};
use crate::{
    addr::{PAGE_SIZE, by_page},
    extmmu::xpmem::{Manners, PartitionId, SegId, XpmemError},
    frame::SharedMemory,
    notifier::Access,
    sync::{Condvar, Mutex},
};
use std::{
    net::Shutdown,
    os::unix::net::UnixStream,
    path::Path,
    sync::Arc,
    thread::{Builder, JoinHandle},
};

/// A partition in this process, of an owner in another one.
///
/// It answers recalls on a thread of its own. When it is dropped it disconnects, and its
/// attachments are [`Closed`](RemoteError::Closed).
#[derive(Debug)]
pub struct RemotePartition {
    connection: Arc<Connection>,
    hears: Option<JoinHandle<()>>,
}

/// Pages of a segment, as memory of a remote partition.
#[derive(Debug)]
pub struct RemoteAttachment {
    connection: Arc<Connection>,
    attached: Attached,
}

impl RemotePartition {
    /// Connects to an owner that listens at `path`.
    ///
    /// # Errors
    ///
    /// [`RemoteError`]: no process listens, or it is no owner of this version.
    pub fn connect(path: impl AsRef<Path>) -> Result<Self, RemoteError> {
        Self::new(UnixStream::connect(path)?)
    }
    /// Makes a partition of a socket that is connected to an owner.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect).
    pub fn new(stream: UnixStream) -> Result<Self, RemoteError> {
        let stream = Arc::new(stream);
        let mut messages = Messages::with_descriptors(Arc::clone(&stream));
        let ToRemote::Welcome {
            version,
            partition,
            questions,
        } = messages.next()?
        else {
            return Err(RemoteError::NoOwner);
        };
        if version != VERSION {
            return Err(RemoteError::Version(version));
        }
        let connection = Arc::new(Connection {
            id: partition,
            questions: usize::try_from(questions).unwrap_or(usize::MAX).max(1),
            stream,
            writing: Mutex::default(),
            state: Mutex::default(),
            replied: Condvar::new(),
        });
        let heard = Arc::clone(&connection);
        let hears = Builder::new().spawn(move || heard.hear(messages))?;
        let hears = Some(hears);
        Ok(Self { connection, hears })
    }
    /// Returns the number by which the owner knows the partition.
    pub fn id(&self) -> PartitionId {
        self.connection.id
    }
    /// Attaches `pages` pages of a segment, from its page `first` on.
    ///
    /// # Errors
    ///
    /// [`RemoteError`]: the owner refuses, or is gone.
    pub fn attach(
        &self,
        segment: SegId,
        first: u64,
        pages: u64,
    ) -> Result<RemoteAttachment, RemoteError> {
        let request = Request::Attach {
            segment,
            first,
            pages,
        };
        match self.connection.ask(request)? {
            Reply::Attached(attached) => Ok(RemoteAttachment {
                connection: Arc::clone(&self.connection),
                attached,
            }),
            _ => Err(RemoteError::NoOwner),
        }
    }
    /// Returns the number of entries that the partition could use now.
    pub fn entries(&self) -> usize {
        self.connection.state.lock().entries.len()
    }
    /// Returns true if the owner is gone, or has fenced this partition off.
    pub fn is_closed(&self) -> bool {
        self.connection.state.lock().closed
    }
    /// Sets the manner of answering from now on, to test an owner.
    pub fn set_manners(&self, manners: Manners) {
        self.connection.state.lock().manners = manners;
    }
}

impl Drop for RemotePartition {
    fn drop(&mut self) {
        let _closed_already = self.connection.stream.shutdown(Shutdown::Both);
        if let Some(hears) = self.hears.take() {
            hears
                .join()
                .expect("the thread that answers does not panic");
        }
    }
}

impl RemoteAttachment {
    /// Returns the number of pages.
    pub fn pages(&self) -> u64 {
        self.attached.pages
    }
    /// Loads bytes from byte `at` of the attachment on. Each byte is loaded whole, and the page is
    /// not recalled meanwhile.
    ///
    /// # Errors
    ///
    /// [`RemoteError`]; the bytes before the page that failed have been loaded.
    pub fn read(&self, at: u64, out: &mut [u8]) -> Result<(), RemoteError> {
        by_page(at, out, |nth, offset, part| {
            let from = nth.addr() + offset as u64;
            self.touch(from, Access::Read, |memory, page| {
                memory.read(page + offset, part);
            })
        })
    }
    /// Stores bytes from byte `at` of the attachment on. Each byte is stored whole, and the page is
    /// not recalled meanwhile.
    ///
    /// # Errors
    ///
    /// [`RemoteError`]; the bytes before the page that failed have been stored.
    pub fn write(&self, at: u64, bytes: &[u8]) -> Result<(), RemoteError> {
        by_page(at, bytes, |nth, offset, part| {
            let to = nth.addr() + offset as u64;
            self.touch(to, Access::Write, |memory, page| {
                memory.write(page + offset, part);
            })
        })
    }
    /// Exports part of the attachment to others, as
    /// [`Attachment::make`](crate::extmmu::xpmem::Attachment::make) does.
    ///
    /// # Errors
    ///
    /// [`RemoteError`]: the owner refuses, or is gone.
    pub fn make(&self, first: u64, pages: u64, access: Access) -> Result<SegId, RemoteError> {
        let request = Request::Make {
            handle: self.attached.handle,
            first,
            pages,
            access,
        };
        match self.connection.ask(request)? {
            Reply::Segment(id) => Ok(id),
            _ => Err(RemoteError::NoOwner),
        }
    }
    /// Detaches, and removes the segments that were made of the attachment.
    ///
    /// # Errors
    ///
    /// [`RemoteError`]: the owner refuses, or is gone.
    pub fn detach(self) -> Result<(), RemoteError> {
        let handle = self.attached.handle;
        self.connection
            .ask(Request::Detach { handle })
            .map(|_done| ())
    }
    /// Runs `f` on the memory and the place of byte `at`'s page, which is not recalled while it
    /// runs.
    fn touch(
        &self,
        at: u64,
        access: Access,
        f: impl FnOnce(&SharedMemory, usize),
    ) -> Result<(), RemoteError> {
        let nth = at / PAGE_SIZE;
        if nth >= self.attached.pages {
            return Err(XpmemError::Range(at).into());
        }
        let write = access == Access::Write;
        // An attachment for reading must not use an entry that another attachment of the page may
        // write.
        let mine = !write || self.attached.access == Access::Write;
        let page = self.attached.first + nth;
        let mut asked = None;
        loop {
            let mut state = self.connection.state.lock();
            if state.closed {
                return Err(RemoteError::Closed);
            }
            let used = asked.and_then(|token| state.unused.remove(&token));
            let entry = state.entries.get(&page);
            if let Some(grant) = entry.filter(|g| mine && (g.writable || !write)) {
                let place = usize::try_from(grant.at).expect("checked when it came");
                let memory = state.memories.get(&grant.memory);
                f(memory.expect("its entries go with it"), place);
                drop(state);
                if used.is_some() {
                    self.connection.replied.notify_all();
                }
                return Ok(());
            }
            drop(state);
            if used.is_some() {
                self.connection.replied.notify_all();
            }
            let handle = self.attached.handle;
            let request = Request::Page { handle, at, access };
            asked = Some(self.connection.ask_for(Some(page), request)?.0);
        }
    }
}
