//! Getting memory back: which pages go, and where to (`mm/vmscan.c`).
//!
//! Guarantee: a page is given up only when no page table and no external MMU has it any more, and its bytes are in
//! swap, in its store, or promised to be unimportant.
//!
//! Linux decides some of it by statistics of the control group (whether active pages are too many, how much the lists
//! cost, whether a page that comes back was missed) that it brings up to date every two seconds: a group that is younger
//! has none, and reclaim goes by zeros. emmu has no clock, and goes by zeros always.

mod pressure;
mod shrink;

pub use shrink::RmapWindows;
pub(crate) use shrink::{Reclaim, References};
