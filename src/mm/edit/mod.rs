//! Changes of VMAs under the mmap lock held exclusively: their place, their merging, their splits.
//!
//! The calls use these; nothing here drops pages. A change of a boundary tells the reverse maps in
//! an order that lets no walk miss a page (ADR 0005), and opens a window only to split a huge page
//! that the boundary would cut (ADR 0006).
//!
//! | file | holds |
//! | --- | --- |
//! | `placement` | the place of a mapping without a fixed address |
//! | `agree` | the rule by which two ranges become one VMA |
//! | `merge` | merging of a new or changed range with its neighbours |
//! | `plan` | the number of VMAs that an operation would leave |
//! | `split` | splitting a VMA in two |

pub(in crate::mm) mod agree;
pub(in crate::mm) mod merge;
pub(in crate::mm) mod placement;
pub(in crate::mm) mod plan;
pub(in crate::mm) mod split;
