//! The SGI GRU: user-level instructions on memory, translated by TLBs that hold no references and know no page tables.
//!
//! Nothing but the notifier keeps a TLB entry from outliving its page. The rules are those of `drivers/misc/sgi-gru`:
//!
//! * a window first counts itself as active, then purges; its end counts itself out and wakes who waits;
//! * a miss is dropped in by the interrupt path, which walks the page table without locks and never sleeps: if a window is
//!   active or the page is not there, the instruction is left to the user path, which waits and faults;
//! * a purge that comes between the miss and the drop-in cancels the miss, and the hardware ignores the drop-in:
//!
//! ```text
//! window                       interrupt
//!                              miss: armed
//!                              active == 0
//!                              walk -> frame A
//! active = 1
//! purge: miss disarmed
//! entry: A -> B
//! active = 0
//!                              drop-in of A: ignored, not armed
//! ```
//!
//! * a context that is not loaded is not purged: its address space identifier is given up, so that it comes back with a
//!   new one, and finds nothing of what the TLB still has under the old.
//!
//! | file | |
//! | --- | --- |
//! | `asid` | identifiers of address spaces in a TLB, and their generations |
//! | `chip` | one GRU: TLB, loaded contexts, misses |
//! | `space` | an address space on its GRUs |
//! | `tracker` | what it knows of each of them |
//! | `purge` | what a window does |
//! | `tgh` | the handles that purges go through, and waiting for one |
//! | `context` | instructions, and how their misses are served |
//! | `load` | which contexts are on a GRU |

mod asid;
mod chip;
mod context;
mod load;
mod purge;
mod space;
mod tgh;
mod tracker;

pub use chip::{Gru, GruConfig, GruStats};
pub use context::{GruContext, GruFault, NoGru};
pub use space::{GruMistake, GruSpace};
pub use tgh::run_on;
