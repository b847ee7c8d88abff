//! The remote side, as its users see it: attachments, and accesses through them.

use super::{
    entries::Inner,
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

/// A partition in this process, of an owner in another. It answers recalls on a thread of its own; dropped, it
/// disconnects, and what it attached is [`Closed`](RemoteError::Closed).
#[derive(Debug)]
pub struct RemotePartition {
    inner: Arc<Inner>,
    hears: Option<JoinHandle<()>>,
}

/// Pages of a segment, as memory of a remote partition.
#[derive(Debug)]
pub struct RemoteAttachment {
    inner: Arc<Inner>,
    what: Attached,
}

impl RemotePartition {
    /// Connects to an owner that listens at `path`.
    ///
    /// # Errors
    ///
    /// [`RemoteError`]: nobody listens, or it is no owner of this version.
    pub fn connect(path: impl AsRef<Path>) -> Result<Self, RemoteError> {
        Self::new(UnixStream::connect(path)?)
    }
    /// The same on a socket that is connected.
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
        let inner = Arc::new(Inner {
            id: partition,
            questions: usize::try_from(questions).unwrap_or(usize::MAX).max(1),
            stream,
            writing: Mutex::default(),
            state: Mutex::default(),
            replied: Condvar::new(),
        });
        let heard = Arc::clone(&inner);
        let hears = Builder::new().spawn(move || heard.hear(messages))?;
        let hears = Some(hears);
        Ok(Self { inner, hears })
    }
    /// The name that the owner gave it.
    pub fn id(&self) -> PartitionId {
        self.inner.id
    }
    /// Attaches `pages` of a segment, from its page `first` on.
    ///
    /// # Errors
    ///
    /// [`RemoteError`]: what the owner says, or that it is gone.
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
        match self.inner.ask(request)? {
            Reply::Attached(what) => Ok(RemoteAttachment {
                inner: Arc::clone(&self.inner),
                what,
            }),
            _ => Err(RemoteError::NoOwner),
        }
    }
    /// Entries that it could use now.
    pub fn entries(&self) -> usize {
        self.inner.state.lock().entries.len()
    }
    /// Whether the owner is gone, or has fenced this partition off.
    pub fn is_closed(&self) -> bool {
        self.inner.state.lock().closed
    }
    /// Sets how it answers from now on: to try out an owner.
    pub fn set_manners(&self, manners: Manners) {
        self.inner.state.lock().manners = manners;
    }
}

impl Drop for RemotePartition {
    fn drop(&mut self) {
        let _closed_already = self.inner.stream.shutdown(Shutdown::Both);
        if let Some(hears) = self.hears.take() {
            hears
                .join()
                .expect("the thread that answers does not panic");
        }
    }
}

impl RemoteAttachment {
    /// Pages.
    pub fn pages(&self) -> u64 {
        self.what.pages
    }
    /// Loads bytes from byte `at` of the attachment on; each byte whole, the page not recalled meanwhile.
    ///
    /// # Errors
    ///
    /// [`RemoteError`]; what lies before the page that failed has been loaded.
    pub fn read(&self, at: u64, out: &mut [u8]) -> Result<(), RemoteError> {
        by_page(at, out, |nth, offset, part| {
            let from = nth.addr() + offset as u64;
            self.touch(from, Access::Read, |memory, page| {
                memory.read(page + offset, part);
            })
        })
    }
    /// Stores bytes from byte `at` of the attachment on; each byte whole, the page not recalled meanwhile.
    ///
    /// # Errors
    ///
    /// [`RemoteError`]; what lies before the page that failed has been stored.
    pub fn write(&self, at: u64, bytes: &[u8]) -> Result<(), RemoteError> {
        by_page(at, bytes, |nth, offset, part| {
            let to = nth.addr() + offset as u64;
            self.touch(to, Access::Write, |memory, page| {
                memory.write(page + offset, part);
            })
        })
    }
    /// Exports part of what is attached to others, as [`Attachment::make`](crate::extmmu::xpmem::Attachment::make).
    ///
    /// # Errors
    ///
    /// [`RemoteError`]: what the owner says, or that it is gone.
    pub fn make(&self, first: u64, pages: u64, access: Access) -> Result<SegId, RemoteError> {
        let request = Request::Make {
            handle: self.what.handle,
            first,
            pages,
            access,
        };
        match self.inner.ask(request)? {
            Reply::Segment(id) => Ok(id),
            _ => Err(RemoteError::NoOwner),
        }
    }
    /// Detaches: segments made of it are gone as well.
    ///
    /// # Errors
    ///
    /// [`RemoteError`]: what the owner says, or that it is gone.
    pub fn detach(self) -> Result<(), RemoteError> {
        let handle = self.what.handle;
        self.inner.ask(Request::Detach { handle }).map(|_done| ())
    }
    /// Runs `f` on the memory and the place of byte `at`'s page, which is not recalled while it runs.
    fn touch(
        &self,
        at: u64,
        access: Access,
        f: impl FnOnce(&SharedMemory, usize),
    ) -> Result<(), RemoteError> {
        let nth = at / PAGE_SIZE;
        if nth >= self.what.pages {
            return Err(XpmemError::Range(at).into());
        }
        let write = access == Access::Write;
        // Who may only read must not use what another attachment of the page may write.
        let mine = !write || self.what.access == Access::Write;
        let mut asked = None;
        loop {
            let mut state = self.inner.state.lock();
            if state.closed {
                return Err(RemoteError::Closed);
            }
            let used = asked.and_then(|token| state.unused.remove(&token));
            let entry = state.entries.get(&(self.what.first + nth));
            if let Some(grant) = entry.filter(|g| mine && (g.writable || !write)) {
                let place = usize::try_from(grant.at).expect("checked when it came");
                let memory = state.memories.get(&grant.memory);
                f(memory.expect("its entries go with it"), place);
                drop(state);
                if used.is_some() {
                    self.inner.replied.notify_all();
                }
                return Ok(());
            }
            drop(state);
            if used.is_some() {
                self.inner.replied.notify_all();
            }
            let handle = self.what.handle;
            let page = Request::Page { handle, at, access };
            asked = Some(self.inner.ask_with_token(page)?.0);
        }
    }
}
