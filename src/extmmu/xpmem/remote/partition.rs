//! The remote side: entries, accesses through them, and answers to recalls.

use super::wire::{
    Attached, Grant, Messages, NoMessage, Reply, Request, ToOwner, ToRemote, VERSION, send,
};
use crate::{
    addr::{PAGE_SIZE, by_page},
    extmmu::xpmem::{Manners, PartitionId, SegId, XpmemError},
    frame::SharedMemory,
    notifier::Access,
    sync::{Condvar, Mutex},
};
use std::{
    collections::{BTreeMap, HashMap},
    io,
    net::Shutdown,
    os::unix::net::UnixStream,
    path::Path,
    sync::Arc,
    thread::{self, Builder, JoinHandle},
};
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

struct Inner {
    id: PartitionId,
    /// That many questions may be open at a time.
    questions: usize,
    stream: Arc<UnixStream>,
    /// Held while a message is written.
    writing: Mutex<()>,
    state: Mutex<State>,
    replied: Condvar,
}

#[derive(Default)]
struct State {
    memories: BTreeMap<u64, SharedMemory>,
    entries: BTreeMap<u64, Grant>,
    /// What was asked, and the reply once it has come.
    asked: HashMap<u64, Option<Result<Reply, XpmemError>>>,
    /// Pages that came and have not been used by who asked for them.
    unused: HashMap<u64, u64>,
    next: u64,
    manners: Manners,
    closed: bool,
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

impl Inner {
    fn send(&self, message: &ToOwner) -> io::Result<()> {
        let _alone = self.writing.lock();
        send(&self.stream, message)
    }
    /// Asks the owner, and waits for his reply.
    fn ask(&self, request: Request) -> Result<Reply, RemoteError> {
        self.ask_with_token(request).map(|(_, reply)| reply)
    }
    /// The same; a page that comes must be used under that token.
    fn ask_with_token(&self, request: Request) -> Result<(u64, Reply), RemoteError> {
        let mut state = self.state.lock();
        // More at once would end the partition.
        while state.asked.len() >= self.questions && !state.closed {
            self.replied.wait(&mut state);
        }
        let token = state.next;
        state.next += 1;
        state.asked.insert(token, None);
        drop(state);
        if self.send(&ToOwner::Ask { token, request }).is_err() {
            return Err(RemoteError::Closed);
        }
        let mut state = self.state.lock();
        loop {
            if state.closed {
                return Err(RemoteError::Closed);
            }
            if let Some(Some(reply)) = state.asked.get(&token).copied() {
                state.asked.remove(&token);
                drop(state);
                self.replied.notify_all();
                return Ok((token, reply?));
            }
            self.replied.wait(&mut state);
        }
    }
    /// Hears what the owner says, until he is gone.
    fn hear(&self, mut messages: Messages) {
        while let Ok(message) = messages.next() {
            let fine = match message {
                ToRemote::Reply { token, reply } => self.take(token, reply),
                ToRemote::Recall { serial, start, end } => self.clear(serial, start, end),
                ToRemote::Memory { id, writable } => messages
                    .descriptor()
                    .and_then(|fd| SharedMemory::open(fd, writable).ok())
                    .is_some_and(|memory| self.map(id, memory)),
                ToRemote::Forget { id } => self.unmap(id),
                ToRemote::Welcome { .. } => false,
            };
            if !fine {
                break;
            }
        }
        let _closed_already = self.stream.shutdown(Shutdown::Both);
        let mut state = self.state.lock();
        state.closed = true;
        state.entries.clear();
        state.memories.clear();
        drop(state);
        self.replied.notify_all();
    }
    /// Takes a piece of memory; `false` if it was there already.
    fn map(&self, id: u64, memory: SharedMemory) -> bool {
        self.state.lock().memories.insert(id, memory).is_none()
    }
    /// Gives a piece of memory up, and what it has there; `false` if it was never there.
    fn unmap(&self, id: u64) -> bool {
        let mut state = self.state.lock();
        state.entries.retain(|_, grant| grant.memory != id);
        state.memories.remove(&id).is_some()
    }
    /// Takes a reply; `false` if it makes no sense.
    fn take(&self, token: u64, reply: Result<Reply, XpmemError>) -> bool {
        let mut state = self.state.lock();
        if let Ok(Reply::Page(grant)) = reply {
            let end = grant.at.checked_add(PAGE_SIZE);
            let fits = |memory: &SharedMemory| {
                end.is_some_and(|end| end <= memory.len() as u64)
                    && (memory.is_writable() || !grant.writable)
            };
            if !state.memories.get(&grant.memory).is_some_and(fits) {
                return false;
            }
            state.entries.insert(grant.page, grant);
            if state.asked.contains_key(&token) {
                state.unused.insert(token, grant.page);
            }
        }
        if let Some(asked) = state.asked.get_mut(&token) {
            *asked = Some(reply);
        }
        drop(state);
        self.replied.notify_all();
        true
    }
    /// Clears entries and answers; `false` if it is to die of it.
    fn clear(&self, serial: u64, start: u64, end: u64) -> bool {
        let manners = self.state.lock().manners;
        match manners {
            Manners::Hangs => return true,
            Manners::Dies => return false,
            Manners::Slow(time) => thread::sleep(time),
            _ => {}
        }
        if manners != Manners::Lies {
            // Accesses run under this lock: none is in progress when the answer goes. Who asked for a page uses it once before
            // it goes, and is on the way: so those who take a page from each other all get on.
            let mut state = self.state.lock();
            while state
                .unused
                .values()
                .any(|page| (start..end).contains(page))
            {
                self.replied.wait(&mut state);
            }
            state.entries.retain(|page, _| !(start..end).contains(page));
        }
        let times = if manners == Manners::Twice { 2 } else { 1 };
        (0..times).all(|_| self.send(&ToOwner::Cleared { serial }).is_ok())
    }
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RemotePartition")
            .field("id", &self.id)
            .field("memories", &self.state.lock().memories)
            .finish_non_exhaustive()
    }
}
