//! RDMA with on-demand paging: memory regions whose pages come when the adapter asks for them.
//!
//! A *region* is a range of the process's addresses under a key. Its pages are in a list, without
//! references, and in the *translation table* of the adapter, which is all that the hardware looks
//! at. Where the table has nothing the adapter raises a page fault, stops the queue pair, and waits
//! for the answer. A region subscribes to its range alone; a window over it takes pages out of the
//! table first, waits for the adapter, and then out of the list. The rules are those of
//! `umem_odp.c`, `mlx5/odp.c` and `rxe_odp.c` (6.18):
//!
//! * the pages of a fault are looked up together (`hmm_range_fault`) and enter the table under the
//!   lock that a window takes, if no window has touched them since;
//! * each page fault is answered once: the queue resumes, or gets an error;
//! * advice prefetches: for reading, for writing, or what is present without a fault;
//! * a region over all of memory (*implicit*) makes a child for each part that is used. A window
//!   that empties a child cannot end it, since a subscription does not end inside of its own
//!   window: a worker does, and first takes the child out of the parent:
//!
//! ```text
//! window               worker                     adapter
//! child: emptied
//!                      parent: child taken out
//!                                                 fault: a new child
//!                      child: subscription ended
//! ```
//!
//! | file | holds |
//! | --- | --- |
//! | `adapter` | the adapter: regions by key, accesses, faults and their answers |
//! | `target` | the region that a key stands for, of either kind |
//! | `region` | a region: its list, its part of the table, the window |
//! | `fill` | faults and prefetches of a region |
//! | `implicit` | regions over all of memory, and their children |
//! | `faults` | page faults of the adapter |
//! | `error` | errors and faults |
//! | `mistake` | mistakes that tests must find |
//!
//! Not modelled: DMA addresses apart from frames, page sizes beside 4 KiB and 2 MiB.

mod adapter;
mod error;
mod faults;
mod fill;
mod implicit;
mod mistake;
mod region;
mod target;

pub use adapter::Adapter;
pub use error::{OdpError, OdpFault};
pub use faults::{FaultStats, Key};
pub use fill::OdpAdvice;
pub use implicit::ImplicitRegion;
pub use mistake::OdpMistake;
pub use region::{OdpConfig, Region};
