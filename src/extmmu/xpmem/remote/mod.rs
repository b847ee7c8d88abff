//! Partitions that are other processes of this host.
//!
//! A Unix socket carries questions and answers. The owner's side calls [`Owner::serve`](super::Owner::serve) for each
//! connection; the other process makes a [`RemotePartition`] of its end, which loads and stores through entries of its own
//! and answers recalls on a thread of its own. A page that it faults in is *lent*: its bytes move to memory of the segment,
//! whose descriptor the partition gets, and while it has an entry there, loads and stores of both sides meet there. With
//! the entry the bytes go home.
//!
//! ```text
//! remote                        owner
//! connect                       serve: welcome
//! attach                        its pages are these
//! load, store: page missing     look up, pin, lend: here is the memory, it lies there  (recalls held off until it is sent)
//!                               window: clear these
//! entries cleared, answer       taken home, references given up, window goes on
//! ```
//!
//! What is at the other end of the socket is not trusted, nor whoever else it passes the memory on to:
//!
//! * It finds in its memory what it was exported, and nothing else: pages of segments whose [names](super::SegId) it knows.
//!   It can write there what is lent for writing; memory of pages that may only be read is sealed against it.
//! * What it does to its memory after a page went home reaches no page: neither one who answers without clearing, nor one who
//!   hangs, nor a child that it left behind. Memory that was sent to a partition is not used again when the partition goes.
//! * Whatever is no message, every answer that is not owed, and a flood of questions end the connection
//!   ([`Breach`](super::Breach)); what it may have is [limited](Limits).
//! * Nobody is killed: what is at the other end has no name that could not be another's by now.
//!
//! | file | |
//! | --- | --- |
//! | `wire` | messages, and how they travel |
//! | `lending` | what comes home, and when |
//! | `socket` | the owner's end of it |
//! | `serve` | the owner's side: a connection |
//! | `server` | what is asked for, and what comes of it |
//! | `limits` | what a partition may have |
//! | `partition` | the remote side: attachments, accesses |
//! | `entries` | … what it has, asks and answers |
//! | `error` | … and why it gets nothing |

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
pub use limits::{Limits, RemoteConfig};
pub use partition::{RemoteAttachment, RemotePartition};
pub use serve::{Remote, ServeError};
