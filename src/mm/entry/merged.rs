//! How a frame that same-page merging shares is told from any other (`folio_test_ksm`).

use crate::{
    addr::Pfn,
    frame::{FrameFlags, MERGED_INDEX, Owner, PhysMem},
};

/// Returns true if the frame is one that same-page merging shares.
///
/// A merged frame belongs to no one family of mappings: its owner is a reverse map of its own
/// ([`MergedPage`](crate::rmap::MergedPage)).
pub(in crate::mm) fn is_merged(mem: &PhysMem, pfn: Pfn) -> bool {
    let is_merged = |owner: Owner| owner.index == MERGED_INDEX;
    mem.flags(pfn).contains(FrameFlags::ANON) && mem.owner(pfn).is_some_and(is_merged)
}
