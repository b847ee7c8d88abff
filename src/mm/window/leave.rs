//! The entry of a page that begins to move: a mark takes the place of the mapping.

use super::PteSlot;
use crate::mm::entry::{flags::VmFlags, release::RemovedPte};
use crate::{
    addr::Pfn,
    frame::{FrameFlags, PhysMem},
    rmap::UnmapRefused,
};

/// The size in which a page was mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::mm) enum AsOne {
    /// By small entries.
    No,
    /// As one huge page.
    Yes,
}

/// Replaces the mapping of a locked frame by a migration mark.
///
/// # Errors
///
/// [`UnmapRefused::Needed`]: the frame is pinned.
pub(in crate::mm) fn leave(
    slot: PteSlot<'_>,
    pfn: Pfn,
    flags: VmFlags,
    size: AsOne,
) -> Result<(), UnmapRefused> {
    let mem = slot.mem();
    let pte = slot.raw();
    if pte.is_dirty() {
        mem.set_flags(pfn, FrameFlags::DIRTY);
    }
    let mark = pte.leaving(no_more_exclusive(mem, pfn)?);
    let mark = match size {
        AsOne::Yes => mark.of_huge(),
        AsOne::No => mark,
    };
    // The accessed state goes to the migration entry, not to the frame.
    RemovedPte::give_up_locked(slot.take(pte.mkold(), mark));
    let unlocks = flags.contains(VmFlags::LOCKED) && !mem.is_merged(pfn);
    if unlocks && mem.flags(pfn).contains(FrameFlags::UNEVICTABLE) {
        // The mappings that come back lock it again, if they are locked then. A part of a large
        // page unlocks all of it.
        mem.clear_flags_of_page(pfn, FrameFlags::UNEVICTABLE);
    }
    Ok(())
}

/// Moves the mark of exclusive use from the frame to the entry that is left: later changes of that
/// entry know nothing of the frame (`folio_try_share_anon_rmap_pte`). Returns true if the page was
/// exclusive. A pinned page stays: its process would get another frame.
pub(in crate::mm) fn no_more_exclusive(mem: &PhysMem, pfn: Pfn) -> Result<bool, UnmapRefused> {
    let exclusive = mem.flags(pfn).contains(FrameFlags::ANON_EXCLUSIVE);
    if exclusive && mem.is_pinned(pfn) {
        return Err(UnmapRefused::Needed);
    }
    mem.clear_flags(pfn, FrameFlags::ANON_EXCLUSIVE);
    Ok(exclusive)
}
