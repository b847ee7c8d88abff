//! Changes of VMAs under the write lock: where they go, how they merge and split.

pub(in crate::mm) mod merge;
pub(in crate::mm) mod placement;
pub(in crate::mm) mod split;
