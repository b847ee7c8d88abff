//! Reclaim: getting memory back (`mm/vmscan.c`).
//!
//! Guarantee: a page is given up only when no page table and no external MMU has it any more, and
//! its bytes are in swap, in its store, or declared unimportant by the program.
//!
//! Linux decides some of it by statistics of the control group, which it updates every two seconds:
//! whether there are too many active pages, the cost of the lists, whether a page that comes back
//! was missed. A younger group has none, and reclaim takes zeros. emmu has no clock, and always
//! takes zeros (docs/adr/0012-reclaim-goes-by-zeros.md).
//!
//! | file | holds |
//! | --- | --- |
//! | `pressure` | which pages, and how many: the passes over the lists |
//! | `shrink` | giving up the pages of one list |
//! | `huge` | splitting huge pages: those to be given up, and those given back in part |

mod huge;
mod pressure;
mod shrink;

pub use shrink::RmapWindows;
pub(crate) use shrink::{Reclaim, References};
