//! Messages, and how they travel: postcard with COBS framing, each ended by a zero byte; the memory's descriptor beside
//! the first of them.

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
    io::{self, BufRead, BufReader, IoSlice, IoSliceMut, Read, Write},
    mem::MaybeUninit,
    os::{
        fd::{BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
};
use thiserror::Error;

/// Both sides must speak the same.
pub(super) const VERSION: u32 = 1;
/// Longer frames are no messages.
const LONGEST: u64 = 256;

/// The first message to a remote.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Welcome {
    pub(super) version: u32,
    pub(super) partition: PartitionId,
    pub(super) writable: bool,
}

/// The others.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum ToRemote {
    Reply {
        token: u64,
        reply: Result<Reply, XpmemError>,
    },
    /// Clear the pages from `start` to before `end`.
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
    /// The owner's page.
    pub(super) first: u64,
    pub(super) pages: u64,
    pub(super) access: Access,
}

/// A page, and where in the memory it lies.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Grant {
    pub(super) page: u64,
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

/// Why no message came.
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

/// Sends a message whole; the caller keeps others out.
pub(super) fn send<T: Serialize>(mut to: &UnixStream, message: &T) -> io::Result<()> {
    to.write_all(&encode(message)?)
}

/// Sends the first message, with a descriptor.
pub(super) fn send_with<T: Serialize>(
    to: &UnixStream,
    message: &T,
    fd: BorrowedFd<'_>,
) -> io::Result<()> {
    let bytes = encode(message)?;
    let fds = [fd];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&fds));
    let parts = [IoSlice::new(&bytes)];
    let sent = rustix::net::sendmsg(to, &parts, &mut control, SendFlags::NOSIGNAL)?;
    if sent == bytes.len() {
        Ok(())
    } else {
        Err(io::ErrorKind::WriteZero.into())
    }
}

/// Receives the first message and its descriptor; nothing else comes before an answer to it.
pub(super) fn receive_with<T: DeserializeOwned>(
    from: &UnixStream,
) -> Result<(T, OwnedFd), NoMessage> {
    let mut bytes = [0; LONGEST as usize];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let flags = RecvFlags::CMSG_CLOEXEC;
    let got = rustix::net::recvmsg(from, &mut parts, &mut control, flags);
    let got = got.map_err(|e| NoMessage::Gone(e.into()))?.bytes;
    let fd = control.drain().find_map(|m| match m {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    let message = postcard::from_bytes_cobs(&mut bytes[..got]).map_err(|_| NoMessage::Garbage)?;
    Ok((message, fd.ok_or(NoMessage::Garbage)?))
}

/// Takes one message after the other.
pub(super) struct Messages(BufReader<UnixStream>);

impl Messages {
    pub(super) fn new(from: UnixStream) -> Self {
        Self(BufReader::new(from))
    }
    pub(super) fn next<T: DeserializeOwned>(&mut self) -> Result<T, NoMessage> {
        let mut frame = Vec::new();
        let read = (&mut self.0).take(LONGEST).read_until(0, &mut frame);
        match read.map_err(NoMessage::Gone)? {
            0 => Err(NoMessage::Gone(io::ErrorKind::UnexpectedEof.into())),
            _ if !frame.ends_with(&[0]) => Err(NoMessage::Garbage),
            _ => postcard::from_bytes_cobs(&mut frame).map_err(|_| NoMessage::Garbage),
        }
    }
}
