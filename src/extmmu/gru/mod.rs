//! The SGI GRU: user-level instructions on memory, translated by TLBs that hold no references and
//! walk no page tables.
//!
//! Nothing but the notifier keeps a TLB entry from outliving its page. The rules are those of
//! `drivers/misc/sgi-gru`:
//!
//! * a window first counts itself as active, then purges; its end counts itself out and wakes the
//!   waiting threads;
//! * the interrupt path serves a miss with a walk of the page table that takes no locks and never
//!   sleeps. If a window is active or the page is not present, the instruction is left to the user
//!   path, which waits and faults;
//! * a purge that comes between the miss and the drop-in cancels the miss, and the hardware ignores
//!   the drop-in:
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
//! * a context that is not loaded is not purged: its address space gives its identifier up, so that
//!   the context is loaded with a new one, which matches none of the entries under the old one.
//!
//! | file | holds |
//! | --- | --- |
//! | `asid` | identifiers of address spaces in a TLB, and their generations |
//! | `tracker` | the state of an address space on each GRU |
//! | `chip` | one GRU: TLB, loaded contexts, misses |
//! | `space` | an address space on its GRUs: the driver, its active windows |
//! | `purge` | the callbacks: a window purges |
//! | `tgh` | the handles through which purges are issued, and the wait for one |
//! | `context` | instructions, and the two paths that serve their misses |
//! | `load` | loading and unloading of contexts |
//! | `context_models` | loom models of the armed miss |

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
