//! The owner's side of a connection: one thread that hears answers, one that works on questions. The second may open
//! windows of its own, which wait for what the first hears.

use super::wire::{
    Attached, Grant, Messages, NoMessage, Reply, Request, ToOwner, ToRemote, VERSION, Welcome,
    send, send_with,
};
use crate::{
    addr::Vpn,
    ctx::{Cx, Sleepable, rank},
    extmmu::xpmem::{
        Attachment, Breach, Owner, PartitionId, SegId, XpmemError,
        owner::fresh,
        partition::{Link, Partition, Recall},
    },
    frame::PhysMem,
    mm::Machine,
    notifier::{Access, Cached},
    sync::Mutex,
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};
use std::{
    collections::BTreeMap,
    io,
    net::Shutdown,
    os::{fd::OwnedFd, unix::net::UnixStream},
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel},
    },
    thread,
};
use thiserror::Error;

type Idle<'t> = Cx<'t, rank::Idle, Sleepable>;

/// How a partition that hangs, or breaks the protocol, is kept from the memory that it has mapped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fence {
    /// Its process is killed, and its end waited for. A partition that is in the owner's own process is disconnected.
    #[default]
    Kill,
    /// It is disconnected: it is trusted to drop its entries then, as [`RemotePartition`](super::RemotePartition) does.
    Disconnect,
}

/// How a partition is served.
#[derive(Clone, Copy, Debug)]
pub struct RemoteConfig {
    /// `Read`: the descriptor that it gets does not allow more.
    pub access: Access,
    /// How it is fenced off.
    pub fence: Fence,
}

impl Default for RemoteConfig {
    fn default() -> Self {
        Self {
            access: Access::Write,
            fence: Fence::default(),
        }
    }
}

/// Why a connection cannot be served.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The machine's frames are not [shared](crate::Contents::Shared).
    #[error("the frames of this machine are not in shared memory")]
    NotShared,
    /// The owner's address space has ended.
    #[error("the address space has ended")]
    Ended,
    /// The host said so.
    #[error(transparent)]
    Host(#[from] io::Error),
}

/// A partition in another process, as its owner sees it.
#[derive(Clone, Debug)]
pub struct Remote(Arc<Partition>);

impl Remote {
    /// Its name.
    pub fn id(&self) -> PartitionId {
        self.0.id()
    }
    /// Whether it is dead or fenced off.
    pub fn is_cut_off(&self) -> bool {
        self.0.is_cut_off()
    }
    /// Entries that it could use now.
    pub fn entries(&self) -> usize {
        self.0.entries()
    }
    /// Answers that it has given.
    pub fn answers(&self) -> u64 {
        self.0.answers()
    }
    /// Fences it off.
    pub fn kill(&self) {
        self.0.kill();
    }
}

/// The owner's end of a socket.
struct Socket {
    stream: UnixStream,
    /// Held while a message is written.
    writing: Mutex<()>,
    /// Who is to be killed.
    process: Option<OwnedFd>,
}

impl Socket {
    fn new(stream: UnixStream, fence: Fence) -> io::Result<Self> {
        let peer = rustix::net::sockopt::socket_peercred(&stream)?.pid;
        let process = if fence == Fence::Kill && peer != rustix::process::getpid() {
            Some(pidfd_open(peer, PidfdFlags::empty())?)
        } else {
            None
        };
        Ok(Self {
            stream,
            writing: Mutex::default(),
            process,
        })
    }
    /// `false` if it cannot be sent, or not before the deadline.
    fn send(&self, message: &ToRemote) -> bool {
        let _alone = self.writing.lock();
        send(&self.stream, message).is_ok()
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
    fn fence(&self) {
        let _closed_already = self.stream.shutdown(Shutdown::Both);
        if let Some(process) = &self.process {
            let _dead_already = pidfd_send_signal(process, Signal::KILL);
            // A process that does not end within this time is in the kernel, and comes back to nothing of its own.
            let second = Timespec {
                tv_sec: 1,
                tv_nsec: 0,
            };
            let mut end = [PollFd::new(process, PollFlags::IN)];
            while poll(&mut end, Some(&second)) == Err(rustix::io::Errno::INTR) {}
        }
    }
}

impl Owner {
    /// Serves a partition at the other end of a socket, which finds the memory there. Returns at once; threads of its own
    /// serve it until it goes.
    ///
    /// # Errors
    ///
    /// [`ServeError`]; the stream is closed then.
    pub fn serve(
        self: &Arc<Self>,
        stream: UnixStream,
        id: PartitionId,
        config: RemoteConfig,
    ) -> Result<Remote, ServeError> {
        let mm = self.mm.upgrade().ok_or(ServeError::Ended)?;
        let machine = Arc::clone(mm.machine());
        let memory = machine.mem().shared().ok_or(ServeError::NotShared)?;
        // Who does not read what he asked for hangs as well.
        stream.set_write_timeout(Some(self.config.deadline))?;
        let writable = config.access == Access::Write;
        let welcome = Welcome {
            version: VERSION,
            partition: id,
            writable,
        };
        if writable {
            send_with(&stream, &welcome, memory.fd())?;
        } else {
            let fd = memory.read_only_fd()?;
            send_with(&stream, &welcome, std::os::fd::AsFd::as_fd(&fd))?;
        }
        let messages = Messages::new(stream.try_clone()?);
        let socket = Arc::new(Socket::new(stream, config.fence)?);
        let partition = Partition::with_link(id, Box::new(Arc::clone(&socket)));
        let partition = Arc::new(partition);
        self.introduce(&partition);
        let server = Server {
            owner: Arc::clone(self),
            partition: Arc::clone(&partition),
            socket,
            access: config.access,
            machine,
            attachments: BTreeMap::new(),
        };
        let (questions, asked) = channel();
        thread::spawn(move || server.work(&asked));
        let heard = Arc::clone(&partition);
        thread::spawn(move || hear(messages, &heard, &questions));
        Ok(Remote(partition))
    }
}

/// Hears what the partition says, until it is gone.
fn hear(mut messages: Messages, partition: &Partition, questions: &Sender<(u64, Request)>) {
    loop {
        let heard = match messages.next() {
            Ok(ToOwner::Cleared { serial }) => partition.answer(serial, true),
            Ok(ToOwner::Ask { token, request }) => {
                // The worker only ends with this thread.
                let _heard = questions.send((token, request));
                Ok(())
            }
            Err(NoMessage::Garbage) => Err(Breach::Garbage),
            Err(NoMessage::Gone(_)) => return partition.died(),
        };
        if let Err(breach) = heard {
            return partition.broke(breach);
        }
    }
}

/// Works on what a partition asks for.
struct Server {
    owner: Arc<Owner>,
    partition: Arc<Partition>,
    socket: Arc<Socket>,
    access: Access,
    machine: Arc<Machine>,
    attachments: BTreeMap<u64, Attachment>,
}

impl Server {
    fn work(mut self, asked: &Receiver<(u64, Request)>) {
        let machine = Arc::clone(&self.machine);
        let mut thread = machine.enter().expect("a new thread");
        let mut cx = thread.cx();
        while let Ok((token, request)) = asked.recv() {
            // A page has been sent when this returns, since no recall may come between.
            let reply = match self.work_on(&mut cx, token, request) {
                Ok(None) => continue,
                Ok(Some(reply)) => Ok(reply),
                Err(why) => Err(why),
            };
            self.reply(token, reply);
        }
        // What it made of its attachments ends with it.
        for (_, attachment) in self.attachments {
            let _gone_already = attachment.detach(&mut cx);
        }
    }
    fn reply(&self, token: u64, reply: Result<Reply, XpmemError>) {
        if !self.socket.send(&ToRemote::Reply { token, reply }) {
            self.partition.kill();
        }
    }
    fn work_on(
        &mut self,
        cx: &mut Idle<'_>,
        token: u64,
        request: Request,
    ) -> Result<Option<Reply>, XpmemError> {
        match request {
            Request::Attach {
                segment,
                first,
                pages,
            } => self.attach(segment, first, pages).map(Some),
            Request::Make {
                handle,
                first,
                pages,
                access,
            } => {
                let segment = self.attachment(handle)?.make(first, pages, access)?;
                Ok(Some(Reply::Segment(segment)))
            }
            Request::Detach { handle } => {
                let attachment = self.attachments.remove(&handle);
                let attachment = attachment.ok_or(XpmemError::NoAttachment(handle))?;
                attachment.detach(cx)?;
                Ok(Some(Reply::Done))
            }
            Request::Page { handle, at, access } => {
                let attachment = self.attachment(handle)?;
                if access == Access::Write && self.access == Access::Read {
                    return Err(XpmemError::ReadOnly(attachment.segment()));
                }
                attachment.fault(cx, at, access, |cached| {
                    let grant = grant(self.machine.mem(), cached);
                    self.reply(token, Ok(Reply::Page(grant)));
                })?;
                Ok(None)
            }
        }
    }
    fn attachment(&self, handle: u64) -> Result<&Attachment, XpmemError> {
        let attachment = self.attachments.get(&handle);
        attachment.ok_or(XpmemError::NoAttachment(handle))
    }
    fn attach(&mut self, segment: SegId, first: u64, pages: u64) -> Result<Reply, XpmemError> {
        let owner = &self.owner;
        let attachment = owner.import(&self.partition, segment, first, pages)?;
        let (range, access) = attachment.what()?;
        let handle = fresh();
        self.attachments.insert(handle, attachment);
        Ok(Reply::Attached(Attached {
            handle,
            first: range.start().0,
            pages: range.pages(),
            access,
        }))
    }
}

fn grant(mem: &PhysMem, cached: &Cached) -> Grant {
    let Vpn(page) = cached.range().start();
    let writable = cached.is_writable();
    let at = mem.lend(cached.translation().pfn(), writable);
    Grant {
        page,
        at: at.expect("serving requires shared memory"),
        writable,
    }
}
