//! Partitions that are other processes of this host.
//!
//! The frames lie in memory that both have mapped ([`Contents::Shared`](crate::Contents::Shared)); a Unix socket
//! carries questions and answers. The owner's side calls [`Owner::serve`](super::Owner::serve) for each connection; the
//! other process makes a [`RemotePartition`] of its end, which loads and stores through entries of its own and answers
//! recalls on a thread of its own.
//!
//! ```text
//! remote                        owner
//! connect                       serve: here is the memory
//! attach                        its pages are these
//! load, store: page missing     look up, pin: it lies there          (recalls held off until it is sent)
//!                               window: clear these
//! entries cleared, answer       references given up, window goes on
//! ```
//!
//! What comes off the socket is not trusted: whatever is no message, and every answer that is not owed, ends the
//! partition ([`Breach`](super::Breach)). Whether the *memory* is safe from it is a matter of [`Fence`].
//!
//! | file | |
//! | --- | --- |
//! | `wire` | messages, and how they travel |
//! | `serve` | the owner's side |
//! | `partition` | the remote side |

mod partition;
mod serve;
mod wire;

pub use partition::{RemoteAttachment, RemoteError, RemotePartition};
pub use serve::{Fence, Remote, RemoteConfig, ServeError};
