//! The other end of a partition's socket, without the library: whatever bytes it likes. The
//! messages are those of `src/extmmu/xpmem/remote/wire.rs`.
#![allow(unreachable_pub, dead_code)] // Each test uses its part.

use super::exporter::{LONG, World};
use emmu::{
    extmmu::xpmem::{
        PartitionId, SegId, XpmemError,
        remote::{Remote, RemoteConfig},
    },
    notifier::Access,
};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use serde::{Deserialize, Serialize};
use std::{
    io::{IoSliceMut, Write},
    mem::MaybeUninit,
    os::{fd::OwnedFd, unix::net::UnixStream},
};

#[derive(Debug, Serialize, Deserialize)]
pub enum ToRemote {
    Welcome {
        version: u32,
        partition: PartitionId,
        questions: u64,
    },
    Memory {
        id: u64,
        writable: bool,
    },
    Forget {
        id: u64,
    },
    Reply {
        token: u64,
        reply: Result<Reply, XpmemError>,
    },
    Recall {
        serial: u64,
        start: u64,
        end: u64,
    },
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum Reply {
    Attached {
        handle: u64,
        first: u64,
        pages: u64,
        access: Access,
    },
    Segment(SegId),
    Page {
        page: u64,
        memory: u64,
        at: u64,
        writable: bool,
    },
    Done,
}

#[derive(Debug, Serialize, Deserialize)]
pub enum ToOwner {
    Ask { token: u64, request: Request },
    Cleared { serial: u64 },
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum Request {
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

pub struct Raw {
    stream: UnixStream,
    bytes: Vec<u8>,
    /// Descriptors that came.
    pub fds: Vec<OwnedFd>,
}

impl Raw {
    pub fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            bytes: Vec::new(),
            fds: Vec::new(),
        }
    }
    /// `false`: the owner has closed his end.
    pub fn say(&self, what: &ToOwner) -> bool {
        let bytes = postcard::to_stdvec_cobs(what).unwrap();
        (&self.stream).write_all(&bytes).is_ok()
    }
    /// The next message; `None`: there is none any more.
    pub fn hear(&mut self) -> Option<ToRemote> {
        loop {
            if let Some(end) = self.bytes.iter().position(|b| *b == 0) {
                let mut message: Vec<u8> = self.bytes.drain(..=end).collect();
                return Some(postcard::from_bytes_cobs(&mut message).unwrap());
            }
            let mut part = [0; 256];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut parts = [IoSliceMut::new(&mut part)];
            let flags = RecvFlags::CMSG_CLOEXEC;
            let got = rustix::net::recvmsg(&self.stream, &mut parts, &mut control, flags);
            let got = got.map_or(0, |got| got.bytes);
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(fds) = message {
                    self.fds.extend(fds);
                }
            }
            if got == 0 {
                return None;
            }
            self.bytes.extend(&part[..got]);
        }
    }
    /// Bytes that have come and are not read.
    pub fn unread(&self) -> u64 {
        rustix::io::ioctl_fionread(&self.stream).unwrap()
    }
    /// Asks, and waits for the reply; nothing else is in the way but memory.
    pub fn ask(&mut self, request: Request) -> Result<Reply, XpmemError> {
        assert!(self.say(&ToOwner::Ask { token: 7, request }), "closed");
        loop {
            match self.hear().expect("a reply") {
                ToRemote::Reply { token: 7, reply } => return reply,
                ToRemote::Memory { .. } | ToRemote::Forget { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }
    /// Attaches pages of a segment; the handle.
    pub fn attach(&mut self, segment: SegId, pages: u64) -> Result<u64, XpmemError> {
        let first = 0;
        let reply = self.ask(Request::Attach {
            segment,
            first,
            pages,
        });
        reply.map(|reply| match reply {
            Reply::Attached { handle, .. } => handle,
            other => panic!("{other:?}"),
        })
    }
}

impl World {
    /// A partition that is served, and has been welcomed.
    pub fn raw(&self, id: u32, config: RemoteConfig) -> (Raw, Remote) {
        let (mine, theirs) = UnixStream::pair().unwrap();
        let served = self.owner.serve(mine, PartitionId(id), config).unwrap();
        theirs.set_read_timeout(Some(LONG)).unwrap();
        let mut raw = Raw::new(theirs);
        assert!(matches!(raw.hear(), Some(ToRemote::Welcome { .. })));
        (raw, served)
    }
}
