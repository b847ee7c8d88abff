//! XPmem: memory of a process that other partitions map, who have to acknowledge before a page may go.
//!
//! Its callbacks sleep, so it lives on sleepable windows alone and refuses the others. The rules are those of the driver
//! that was posted with the notifiers in 2008:
//!
//! * the owner keeps a table of the frames that it has exported, each with a reference;
//! * a window first waits until no fault is between its look-up and its entry, and keeps new ones waiting until its end;
//! * then it recalls the range: every partition that has a page of it is asked to clear its entries, and must answer; only
//!   then the references are given up;
//! * a fault counts as in the way of windows only before and after it looks the page up: the look-up itself may copy the
//!   page, which opens a window of the owner's own.
//!
//! ```text
//! window                          fault of an importer
//!                                 block recalls; ticket; unblock
//!                                 look up (may sleep, may open windows)
//! begin: recalls in progress
//! recall, wait for answers        wait
//! entry: A -> B
//! end                             block recalls; ticket is stale: again
//! ```
//!
//! A partition that dies has answered. One that hangs has until the deadline; then it is fenced off, which is as good as
//! dead, and [`Owner::failures`] says so.
//!
//! | file | |
//! | --- | --- |
//! | `owner` | segments, the frame table, what a window does |
//! | `config` | how an owner behaves |
//! | `error` | why an importer gets nothing |
//! | `failure` | partitions that had to be cut off |
//! | `fault` | how an importer comes by a page |
//! | `pages` | a table by page |
//! | `gatekeeper` | faults against recalls |
//! | `partition` | what an owner knows of a partition: entries, answers, death |
//! | `lent` | which page lies in which memory (feature `remote`) |
//! | `local` | a partition that is a thread of this process |
//! | `remote` | one that is another process (feature `remote`, on Linux) |
//! | `segment` | what is exported, and its names |
//! | `serial` | numbers |
//! | `attachment` | what an importer holds |

mod attachment;
mod config;
mod error;
mod failure;
mod fault;
mod gatekeeper;
#[cfg(all(feature = "remote", target_os = "linux"))]
mod lent;
mod local;
#[cfg(all(test, loom))]
mod models;
mod owner;
mod pages;
mod partition;
#[cfg(all(feature = "remote", target_os = "linux"))]
pub mod remote;
mod segment;
mod serial;

pub use attachment::Attachment;
pub use config::{OwnerConfig, XpmemMistake};
pub use error::{Limited, XpmemError};
pub use failure::Failure;
pub use owner::Owner;
pub use partition::{Breach, Manners, Partition, PartitionId};
pub use segment::SegId;
