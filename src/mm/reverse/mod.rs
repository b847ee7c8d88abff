//! What reverse maps ask of an address space: entries of a frame are found, taken out, moved, merged.

pub(in crate::mm) mod check_rmap;
pub(in crate::mm) mod ksmd;
pub(in crate::mm) mod merge_same_pages;
pub(in crate::mm) mod migrate;
pub(in crate::mm) mod target;
pub(in crate::mm) mod try_to_unmap;
