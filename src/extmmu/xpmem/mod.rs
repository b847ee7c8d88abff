//! XPmem: memory of a process that other partitions map, and that they must give back before a page
//! goes.
//!
//! Its callbacks sleep, so it is called for sleepable windows alone and refuses the others. The
//! rules are those of the driver that was posted with the notifiers in 2008:
//!
//! * The owner keeps a table of the frames that it has exported, each with a reference.
//! * A window first waits until no fault is between its look-up and its entry, and keeps new ones
//!   waiting until its end.
//! * Then it recalls the range: every partition that has a page of it is asked to clear its
//!   entries, and must answer. Only then the references are given up.
//! * A fault holds windows off before and after its look-up, not during it: the look-up itself may
//!   copy the page, which opens a window of the owner's own.
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
//! The death of a partition counts as its answer. A partition that hangs has until the deadline;
//! then it is fenced off, which is as good as dead, and [`Owner::failures`] reports it.
//!
//! | file | holds |
//! | --- | --- |
//! | `serial` | serial numbers of owners, segments and attachments |
//! | `pages` | a table by page, 64 pages to a group |
//! | `segment` | segments, and their names |
//! | `segments` | the segments of an owner, which end with those that they were made of |
//! | `partition` | a partition as its owner sees it: entries, owed answers, death |
//! | `local` | partitions that are threads of this process |
//! | `error` | errors of an importer |
//! | `failure` | the record of partitions that were cut off |
//! | `config` | the configuration of an owner, and mistakes made on purpose |
//! | `gatekeeper` | faults hold recalls off, recalls keep faults waiting |
//! | `lent` | the ledger of lent pages (feature `remote`, on Linux) |
//! | `owner` | the driver: segments, the frame table, the callbacks |
//! | `fault` | the fault path of an importer |
//! | `attachment` | attachments, and accesses through them |
//! | `remote` | partitions that are other processes (feature `remote`, on Linux) |
//! | `models` | loom models of the gatekeeper |

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
mod segments;
mod serial;

pub use attachment::Attachment;
pub use config::{OwnerConfig, XpmemMistake};
pub use error::{Limited, XpmemError};
pub use failure::PartitionFailure;
pub use owner::Owner;
pub use partition::{Breach, Manners, Partition, PartitionId};
pub use segment::SegId;
