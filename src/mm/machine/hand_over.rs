//! Handing a page over from one frame to another, whatever it moves for.

use super::Machine;
use crate::frame::{FrameFlags, FrameLock};

/// The flags of a frame that belong to its page, and move with it.
pub(in crate::mm) const OF_THE_PAGE: FrameFlags = FrameFlags::ANON
    .union(FrameFlags::SWAP_BACKED)
    .union(FrameFlags::DIRTY)
    .union(FrameFlags::REFERENCED)
    .union(FrameFlags::ACTIVE);

/// Returns the references on an unmapped frame whose page may move: the caller's, and that of an
/// owner that holds one.
pub(in crate::mm) fn references_to_move(flags: FrameFlags) -> u32 {
    let kept = flags.intersection(FrameFlags::ANON | FrameFlags::SWAP_CACHE);
    1 + u32::from(kept != FrameFlags::ANON)
}

impl Machine {
    /// Hands a locked page over from a frame to another, if only its owner and this caller hold the
    /// old one. `copy` copies the bytes, or returns false if it cannot. Returns true if the page
    /// has moved.
    pub(in crate::mm) fn hand_over(
        &self,
        old: &FrameLock<'_>,
        new: &FrameLock<'_>,
        copy: impl FnOnce() -> bool,
    ) -> bool {
        let mem = self.mem();
        let (from, to) = (old.pfn(), new.pfn());
        let Some(owner) = old.owner() else {
            return false;
        };
        let flags = mem.flags(from);
        // The holder of another reference may write until it drops that, so the count is checked
        // before the bytes are copied, and again after.
        if mem.refcount(from) != references_to_move(flags) || !copy() {
            return false;
        }
        let merged = if mem.is_merged(from) {
            FrameFlags::UNEVICTABLE
        } else {
            FrameFlags::empty()
        };
        mem.set_flags(to, flags & (OF_THE_PAGE | merged));
        if flags.contains(FrameFlags::ANON) {
            let alone = match flags.contains(FrameFlags::SWAP_CACHE) {
                true => mem.swap_cache_move(old, new),
                false => mem.refcount(from) == 1,
            };
            if alone {
                mem.set_owner(to, Some(owner));
                self.merged.moved(owner.id, to);
            }
            return alone;
        }
        let found = self.registry().find(owner.id);
        found.is_some_and(|o| o.replace(std::slice::from_ref(old), owner.index, to))
    }
}
