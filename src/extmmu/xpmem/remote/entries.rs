//! The remote side of a connection: the entries of a partition, its open questions, and the thread
//! that hears the owner.

use super::{
    error::RemoteError,
    limits::PartitionLimits,
    wire::{Grant, Messages, Reply, Request, ToOwner, ToRemote, send},
};
use crate::{
    addr::PAGE_SIZE,
    extmmu::xpmem::{Manners, PartitionId, XpmemError},
    frame::SharedMemory,
    notifier::Access,
    sync::{Condvar, Mutex},
};
use std::{
    collections::{BTreeMap, HashMap, btree_map::Entry},
    io,
    net::Shutdown,
    os::unix::net::UnixStream,
    sync::Arc,
    thread,
};

/// The partition's end of a socket, shared with its attachments.
pub(super) struct Connection {
    pub(super) id: PartitionId,
    /// The limit of open questions, as the owner sent it.
    pub(super) questions: usize,
    pub(super) stream: Arc<UnixStream>,
    /// Held while a message is written.
    pub(super) writing: Mutex<()>,
    pub(super) state: Mutex<State>,
    pub(super) replied: Condvar,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) memories: BTreeMap<u64, SharedMemory>,
    pub(super) entries: BTreeMap<u64, Grant>,
    /// The open questions by token.
    pub(super) asked: HashMap<u64, Question>,
    /// By token, pages that came and that the asking thread has not used yet.
    pub(super) unused: HashMap<u64, u64>,
    pub(super) next: u64,
    pub(super) manners: Manners,
    pub(super) closed: bool,
}

/// An open question.
pub(super) struct Question {
    request: Request,
    /// The number of the owner's page that is asked for, if it is one.
    page: Option<u64>,
    /// The reply, once it has come.
    reply: Option<Result<Reply, XpmemError>>,
}

impl Question {
    /// Returns true if the reply is one to this question. The owner is not trusted: what it sends
    /// is checked before it is used.
    fn is_answered_by(&self, reply: &Result<Reply, XpmemError>) -> bool {
        let Ok(reply) = reply else {
            return true;
        };
        match (self.request, reply) {
            (Request::Attach { pages, .. }, Reply::Attached(attached)) => {
                attached.pages == pages && attached.first.checked_add(pages).is_some()
            }
            (Request::Page { access, .. }, Reply::Page(grant)) => {
                self.page == Some(grant.page) && (grant.writable || access == Access::Read)
            }
            (Request::Make { .. }, Reply::Segment(_)) | (Request::Detach { .. }, Reply::Done) => {
                true
            }
            _ => false,
        }
    }
}

impl Connection {
    fn send(&self, message: &ToOwner) -> io::Result<()> {
        let _alone = self.writing.lock();
        send(&self.stream, message)
    }
    /// Asks the owner, and waits for the reply.
    pub(super) fn ask(&self, request: Request) -> Result<Reply, RemoteError> {
        self.ask_for(None, request).map(|(_, reply)| reply)
    }
    /// Asks the owner, for one of its pages or for something else, and waits for the reply. A page
    /// that comes must be used under the token returned.
    pub(super) fn ask_for(
        &self,
        page: Option<u64>,
        request: Request,
    ) -> Result<(u64, Reply), RemoteError> {
        let mut state = self.state.lock();
        // The owner cuts off a partition that asks more at a time.
        while state.asked.len() >= self.questions && !state.closed {
            self.replied.wait(&mut state);
        }
        let token = state.next;
        state.next += 1;
        let question = Question {
            request,
            page,
            reply: None,
        };
        state.asked.insert(token, question);
        drop(state);
        if self.send(&ToOwner::Ask { token, request }).is_err() {
            self.leave(token);
            return Err(RemoteError::Closed);
        }
        let mut state = self.state.lock();
        loop {
            if state.closed {
                return Err(RemoteError::Closed);
            }
            if let Some(reply) = state.asked.get(&token).and_then(|question| question.reply) {
                state.asked.remove(&token);
                drop(state);
                self.replied.notify_all();
                return Ok((token, reply?));
            }
            self.replied.wait(&mut state);
        }
    }
    /// Ends the connection, since a question could not be sent: no thread waits for its answer, or
    /// uses a page that an owner sends all the same.
    fn leave(&self, token: u64) {
        let _closed_already = self.stream.shutdown(Shutdown::Both);
        let mut state = self.state.lock();
        state.asked.remove(&token);
        state.unused.remove(&token);
        drop(state);
        self.replied.notify_all();
    }
    /// Hears messages of the owner until the connection ends.
    pub(super) fn hear(&self, mut messages: Messages) {
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
    /// Maps a piece of memory. Returns false, and changes nothing, if the number is in use: entries
    /// lead to the piece that has it. Returns false as well if that is one piece too many.
    fn map(&self, id: u64, memory: SharedMemory) -> bool {
        let mut state = self.state.lock();
        let has_room = state.memories.len() < PartitionLimits::MOST_MEMORIES;
        match state.memories.entry(id) {
            Entry::Vacant(place) if has_room => {
                place.insert(memory);
                true
            }
            _ => false,
        }
    }
    /// Unmaps a piece of memory, and drops the entries in it. Returns false if it was not mapped.
    fn unmap(&self, id: u64) -> bool {
        let mut state = self.state.lock();
        state.entries.retain(|_, grant| grant.memory != id);
        state.memories.remove(&id).is_some()
    }
    /// Takes a reply. Returns false if it breaks the protocol: it answers no open question, or
    /// another one than was asked.
    fn take(&self, token: u64, reply: Result<Reply, XpmemError>) -> bool {
        let mut state = self.state.lock();
        let question = state.asked.get(&token);
        let is_owed = |question: &Question| question.reply.is_none();
        if !question.is_some_and(|q| is_owed(q) && q.is_answered_by(&reply)) {
            return false;
        }
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
            state.unused.insert(token, grant.page);
        }
        if let Some(question) = state.asked.get_mut(&token) {
            question.reply = Some(reply);
        }
        drop(state);
        self.replied.notify_all();
        true
    }
    /// Clears entries and answers a recall. Returns false if the partition is to die of the recall.
    fn clear(&self, serial: u64, start: u64, end: u64) -> bool {
        let manners = self.state.lock().manners;
        match manners {
            Manners::Hangs => return true,
            Manners::Dies => return false,
            Manners::Slow(time) => thread::sleep(time),
            _ => {}
        }
        if manners != Manners::Lies {
            // Accesses hold this lock, so none is in progress when the answer goes. A page that a
            // thread has asked for is used once before it is cleared: the thread is on its way.
            // Without that, partitions that take a page from each other could go on for ever
            // without an access.
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

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RemotePartition")
            .field("id", &self.id)
            .field("memories", &self.state.lock().memories)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::{Condvar, Connection, PartitionId, State};
    use crate::{frame::SharedMemory, sync::Mutex};
    use rustix::fs::{MemfdFlags, SealFlags};
    use std::{os::unix::net::UnixStream, sync::Arc};

    fn memory(len: u64) -> SharedMemory {
        let file = rustix::fs::memfd_create(c"piece", MemfdFlags::ALLOW_SEALING).unwrap();
        rustix::fs::ftruncate(&file, len).unwrap();
        rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW).unwrap();
        SharedMemory::open(file, true).unwrap()
    }

    /// An entry may lead to the end of the first piece, so a shorter one is no replacement for it.
    #[test]
    fn a_second_piece_of_one_number_replaces_nothing() {
        let (mine, _theirs) = UnixStream::pair().unwrap();
        let connection = Connection {
            id: PartitionId(1),
            questions: 1,
            stream: Arc::new(mine),
            writing: Mutex::default(),
            state: Mutex::new(State::default()),
            replied: Condvar::new(),
        };
        assert!(connection.map(1, memory(8192)) && connection.map(2, memory(4096)));
        assert!(!connection.map(1, memory(4096)));
        assert_eq!(connection.state.lock().memories[&1].len(), 8192);
    }
}
