//! How a frame that same-page merging shares is told from any other (`folio_test_ksm`).

use crate::{
    addr::Pfn,
    frame::{FrameFlags, PhysMem},
};

/// Returns true if the frame is one that same-page merging shares.
///
/// A merged frame belongs to no family of mappings: it is the only kind of anonymous frame without
/// an owner.
pub(in crate::mm) fn is_merged(mem: &PhysMem, pfn: Pfn) -> bool {
    mem.flags(pfn).contains(FrameFlags::ANON) && mem.owner(pfn).is_none()
}
