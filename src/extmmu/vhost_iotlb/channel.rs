//! A stream of messages about an IOTLB, framed as vhost-user frames them (`struct
//! vhost_user_header`), their answers, and batches.

use super::message::{BadMessage, IotlbMessage, MessageKind};
use crate::error::Errno;
use std::io::{self, Read, Write};

/// The side that sends the messages of a stream; its number is the request of their headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Sender {
    /// `VHOST_USER_BACKEND_IOTLB_MSG`.
    BackEnd = 1,
    /// `VHOST_USER_IOTLB_MSG`.
    FrontEnd = 22,
}

/// The version of the protocol, in the lowest two bits of the flags.
const VERSION: u32 = 1;
/// The message is an answer.
const REPLY: u32 = 1 << 2;
/// The message wants an answer (`VHOST_USER_PROTOCOL_F_REPLY_ACK`).
const NEED_REPLY: u32 = 1 << 3;

/// The most messages of a batch.
pub(super) const MOST_OF_A_BATCH: usize = 1024;

/// The header of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Header {
    request: u32,
    flags: u32,
    size: u32,
}

impl Header {
    const BYTES: usize = 12;
    const OF_MESSAGE: u32 = IotlbMessage::BYTES as u32;
    const OF_ANSWER: u32 = size_of::<u64>() as u32;

    fn put(self, to: &mut Vec<u8>) {
        for word in [self.request, self.flags, self.size] {
            to.extend(word.to_ne_bytes());
        }
    }
    fn read(mut from: impl Read) -> io::Result<Self> {
        let mut words = [0; Self::BYTES];
        from.read_exact(&mut words)?;
        let word = |nth: usize| {
            let word = words[4 * nth..4 * nth + 4].try_into().expect("four bytes");
            u32::from_ne_bytes(word)
        };
        Ok(Self {
            request: word(0),
            flags: word(1),
            size: word(2),
        })
    }
    /// Fails if it is no header of this kind: it is then unknown where the next message begins.
    fn check(self, sender: Sender, is_reply: bool) -> io::Result<()> {
        let (flags, size) = match is_reply {
            true => (VERSION | REPLY, Self::OF_ANSWER),
            false => (VERSION, Self::OF_MESSAGE),
        };
        let flags = self.flags & !NEED_REPLY == flags;
        let fits = flags && self.request == sender as u32 && self.size == size;
        fits.then_some(()).ok_or(io::ErrorKind::InvalidData.into())
    }
}

/// Sends messages, as one batch if there are several, and waits for the answer: an errno, or 0.
pub(super) fn ask(
    mut stream: impl Read + Write,
    sender: Sender,
    messages: &[IotlbMessage],
) -> io::Result<u64> {
    let mut all = messages.to_vec();
    if messages.len() > 1 {
        all.insert(0, IotlbMessage::mark(MessageKind::BatchBegin));
        all.push(IotlbMessage::mark(MessageKind::BatchEnd));
    }
    let mut bytes = Vec::new();
    for (nth, message) in all.iter().enumerate() {
        let is_last = nth + 1 == all.len();
        let header = Header {
            request: sender as u32,
            flags: VERSION | if is_last { NEED_REPLY } else { 0 },
            size: Header::OF_MESSAGE,
        };
        header.put(&mut bytes);
        bytes.extend(message.to_bytes());
    }
    stream.write_all(&bytes)?;
    Header::read(&mut stream)?.check(sender, true)?;
    let mut answer = [0; 8];
    stream.read_exact(&mut answer)?;
    Ok(u64::from_ne_bytes(answer))
}

/// Has `apply` apply the messages of `sender` until the other end is closed: those of a batch
/// together, when it ends. Messages that want an answer get one.
///
/// # Errors
///
/// Those of the socket; `InvalidData`: something else than messages about an IOTLB came.
pub(super) fn serve(
    mut stream: impl Read + Write,
    sender: Sender,
    mut apply: impl FnMut(&[IotlbMessage]) -> Result<(), Errno>,
) -> io::Result<()> {
    let mut batch = None;
    loop {
        let header = match Header::read(&mut stream) {
            Err(end) if end.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            read => read?,
        };
        header.check(sender, false)?;
        let mut bytes = [0; IotlbMessage::BYTES];
        stream.read_exact(&mut bytes)?;
        let message = IotlbMessage::from_bytes(&bytes).map_err(BadMessage::errno);
        let due = collect(&mut batch, message);
        let applied = due.and_then(|due| if due.is_empty() { Ok(()) } else { apply(&due) });
        if header.flags & NEED_REPLY == 0 {
            continue;
        }
        let errno = applied.map_or_else(|why| u64::from(why.raw().unsigned_abs()), |()| 0);
        let answer = Header {
            request: header.request,
            flags: VERSION | REPLY,
            size: Header::OF_ANSWER,
        };
        let mut bytes = Vec::new();
        answer.put(&mut bytes);
        bytes.extend(errno.to_ne_bytes());
        stream.write_all(&bytes)?;
    }
}

/// The messages of a batch that has begun, or its first error.
type Batch = Result<Vec<IotlbMessage>, Errno>;

/// Returns the messages that are due with this one.
fn collect(batch: &mut Option<Batch>, message: Result<IotlbMessage, Errno>) -> Batch {
    let kind = message.map(|message| message.kind);
    match (&mut *batch, kind) {
        (None, Ok(MessageKind::BatchBegin)) => {
            *batch = Some(Ok(Vec::new()));
            Ok(Vec::new())
        }
        (None, Ok(MessageKind::BatchEnd)) => Err(Errno::EINVAL),
        (None, _) => Ok(vec![message?]),
        (Some(_), Ok(MessageKind::BatchEnd)) => batch.take().expect("it has begun"),
        (Some(all), _) => {
            let added = match (&mut *all, message) {
                (Err(first), _) => Err(*first),
                (Ok(_), Err(why)) => Err(why),
                (Ok(_), Ok(begin)) if begin.is_mark() => Err(Errno::EINVAL),
                (Ok(all), Ok(_)) if all.len() == MOST_OF_A_BATCH => Err(Errno::ENOSPC),
                (Ok(all), Ok(message)) => {
                    all.push(message);
                    Ok(())
                }
            };
            if let Err(why) = added {
                *all = Err(why);
            }
            added.map(|()| Vec::new())
        }
    }
}
