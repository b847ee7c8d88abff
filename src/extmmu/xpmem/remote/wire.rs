//! Messages, and their way over a socket: postcard with COBS framing, each ended by a zero byte.
//! The descriptor of a piece of memory travels beside the message that announces it.

use crate::{
    extmmu::xpmem::{PartitionId, SegId, XpmemError},
    notifier::Access,
};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    collections::VecDeque,
    io::{self, BufRead, BufReader, IoSlice, IoSliceMut, Read, Write},
    mem::MaybeUninit,
    os::{
        fd::{BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    sync::Arc,
};
use thiserror::Error;

/// The version of the protocol, which both sides must share.
pub(super) const VERSION: u32 = 2;
/// The most bytes of a message. A longer frame is none.
const LONGEST: u64 = 256;

/// Messages to a remote partition.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum ToRemote {
    /// The first message.
    Welcome {
        version: u32,
        partition: PartitionId,
        /// The limit of open questions.
        questions: u64,
    },
    /// A piece of memory, whose descriptor travels beside this message.
    Memory { id: u64, writable: bool },
    /// A piece of memory that has no pages any more.
    Forget { id: u64 },
    Reply {
        token: u64,
        reply: Result<Reply, XpmemError>,
    },
    /// The demand to clear the pages from `start` to before `end`.
    Recall { serial: u64, start: u64, end: u64 },
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) enum Reply {
    Attached(Attached),
    Segment(SegId),
    Page(Grant),
    Done,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Attached {
    pub(super) handle: u64,
    /// The number of the owner's first page.
    pub(super) first: u64,
    pub(super) pages: u64,
    pub(super) access: Access,
}

/// A page, and its place in a piece of memory.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Grant {
    pub(super) page: u64,
    pub(super) memory: u64,
    pub(super) at: u64,
    pub(super) writable: bool,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum ToOwner {
    Ask { token: u64, request: Request },
    Cleared { serial: u64 },
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) enum Request {
    Attach {
        segment: SegId,
        first: u64,
        pages: u64,
    },
    Make {
        handle: u64,
        first: u64,
        pages: u64,
        access: Access,
    },
    Detach {
        handle: u64,
    },
    Page {
        handle: u64,
        at: u64,
        access: Access,
    },
}

/// No message came.
#[derive(Debug, Error)]
pub(super) enum NoMessage {
    #[error("the other side is gone")]
    Gone(io::Error),
    #[error("no message")]
    Garbage,
}

fn encode<T: Serialize>(message: &T) -> io::Result<Vec<u8>> {
    postcard::to_stdvec_cobs(message).map_err(io::Error::other)
}

/// Sends a message. The caller keeps other senders out.
pub(super) fn send<T: Serialize>(mut to: &UnixStream, message: &T) -> io::Result<()> {
    to.write_all(&encode(message)?)
}

/// Sends a message, with a descriptor beside its first byte, to a process that may not read: all at
/// once or not at all.
pub(super) fn send_at_once<T: Serialize>(
    to: &UnixStream,
    message: &T,
    fd: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let bytes = encode(message)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = fd.map(|fd| [fd]);
    if let Some(fds) = &fds {
        control.push(SendAncillaryMessage::ScmRights(fds));
    }
    let parts = [IoSlice::new(&bytes)];
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    if rustix::net::sendmsg(to, &parts, &mut control, flags)? == bytes.len() {
        Ok(())
    } else {
        Err(io::ErrorKind::WriteZero.into())
    }
}

/// The most descriptors that have come and whose messages have not: that of a message that began in
/// the bytes read before, and that of one that begins in the last ones. More came beside messages
/// that announce none.
const MOST_DESCRIPTORS: usize = 2;

/// The bytes that come off a socket, and the descriptors beside them if they are wanted. The host
/// closes the others.
struct Incoming {
    stream: Arc<UnixStream>,
    descriptors: Option<VecDeque<OwnedFd>>,
}

impl Read for Incoming {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let Some(descriptors) = &mut self.descriptors else {
            return (&*self.stream).read(bytes);
        };
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [IoSliceMut::new(bytes)];
        let flags = RecvFlags::CMSG_CLOEXEC;
        let got = rustix::net::recvmsg(&*self.stream, &mut parts, &mut control, flags)?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                descriptors.extend(fds);
            }
        }
        match descriptors.len() {
            0..=MOST_DESCRIPTORS => Ok(got.bytes),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

/// The messages of a socket, one after the other.
pub(super) struct Messages(BufReader<Incoming>);

impl Messages {
    pub(super) fn new(stream: Arc<UnixStream>) -> Self {
        Self(BufReader::new(Incoming {
            stream,
            descriptors: None,
        }))
    }
    pub(super) fn with_descriptors(stream: Arc<UnixStream>) -> Self {
        Self(BufReader::new(Incoming {
            stream,
            descriptors: Some(VecDeque::new()),
        }))
    }
    /// Returns the next message. A frame is one if it is the encoding of one: no other bytes stand
    /// in it.
    pub(super) fn next<T: Serialize + DeserializeOwned>(&mut self) -> Result<T, NoMessage> {
        let mut frame = Vec::new();
        let read = (&mut self.0).take(LONGEST).read_until(0, &mut frame);
        match read.map_err(NoMessage::Gone)? {
            0 => Err(NoMessage::Gone(io::ErrorKind::UnexpectedEof.into())),
            _ if !frame.ends_with(&[0]) => Err(NoMessage::Garbage),
            _ => {
                let message = postcard::from_bytes_cobs(&mut frame.clone());
                let message = message.map_err(|_| NoMessage::Garbage)?;
                let is_its_encoding = encode(&message).is_ok_and(|bytes| bytes == frame);
                is_its_encoding.then_some(message).ok_or(NoMessage::Garbage)
            }
        }
    }
    /// Returns the descriptor that came beside the last message.
    pub(super) fn descriptor(&mut self) -> Option<OwnedFd> {
        self.0.get_mut().descriptors.as_mut()?.pop_front()
    }
}
