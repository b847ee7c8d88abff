//! Getting memory back: which pages go, and where to (`mm/vmscan.c`).
//!
//! Guarantee: a page is given up only when no page table and no external MMU has it any more, and its bytes are in
//! swap, in its store, or promised to be unimportant.

mod pressure;
mod shrink;

pub use shrink::RmapWindows;
pub(crate) use shrink::{Reclaim, References};
