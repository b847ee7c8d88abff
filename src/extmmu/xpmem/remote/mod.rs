//! Partitions that are other processes of this host.
//!
//! A Unix socket carries questions and answers. On the owner's side,
//! [`Owner::serve`](super::Owner::serve) serves each connection. The other process makes a
//! [`RemotePartition`] of its end, which loads and stores through entries of its own and answers
//! recalls on a thread of its own. A page that it faults in is *lent*: its bytes move to memory of
//! the segment, and the partition gets the descriptor of that memory. While the partition has an
//! entry there, loads and stores of both sides meet in that memory. With the entry the bytes go
//! home.
//!
//! ```text
//! remote                        owner
//! connect                       serve: welcome
//! attach                        its pages are these
//! load, store: page missing     look up, pin, lend: here is the memory, the page lies there
//!                                 (recalls are held off until this is sent)
//!                               window: clear these
//! entries cleared, answer       taken home, references given up, window goes on
//! ```
//!
//! The process at the other end of the socket is not trusted, nor any process that it passes the
//! memory on to (docs/adr/0011):
//!
//! * Its memory holds the pages that were exported to it, of segments whose [names](super::SegId)
//!   it knows, and no others. It can write the pages that are lent for writing; memory of pages
//!   that may only be read is sealed against it.
//! * A page that went home is out of reach, even of a partition that answers without clearing, of
//!   one that hangs, and of a child that it left behind. Memory that was sent to a partition is not
//!   used again when the partition goes.
//! * Bytes that are not a message, an answer that is not owed, and a flood of questions end the
//!   connection ([`Breach`](super::Breach)). The resources of a partition are
//!   [limited](PartitionLimits).
//! * No process is killed: the process at the other end has no name that could not have passed to
//!   another by now.
//!
//! | file | holds |
//! | --- | --- |
//! | `wire` | messages, and their way over a socket |
//! | `limits` | limits and configuration of a connection |
//! | `socket` | the owner's end of a socket |
//! | `lending` | recalls by memory, and the end of a partition's memory |
//! | `server` | the thread that works on a partition's questions |
//! | `serve` | the owner's side of a connection: its two threads |
//! | `error` | errors of a remote partition |
//! | `entries` | the remote side: entries, questions, answers to recalls |
//! | `partition` | the remote side: attachments, and accesses through them |

mod entries;
mod error;
mod lending;
mod limits;
mod partition;
mod serve;
mod server;
mod socket;
mod wire;

pub use error::RemoteError;
pub use limits::{PartitionLimits, RemoteConfig};
pub use partition::{RemoteAttachment, RemotePartition};
pub use serve::{Remote, ServeError};
