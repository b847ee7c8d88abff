//! Frames that are held for slices that nothing else may follow any more.

use crate::{
    addr::Pfn,
    frame::{FrameFlags, PhysMem},
};
use std::sync::Arc;

/// A frame that slices lead to after its window: no other owner has it before this is dropped.
pub(super) struct Kept {
    mem: Arc<PhysMem>,
    pfn: Pfn,
    pinned: bool,
}

impl Kept {
    /// Holds a frame that the process still maps: its window is not open yet. The zero page needs
    /// no hold.
    pub(super) fn hold(mem: &Arc<PhysMem>, pfn: Pfn) -> Option<Self> {
        if pfn.is_zero() {
            return None;
        }
        let own = FrameFlags::ANON | FrameFlags::ANON_EXCLUSIVE;
        // A pin keeps a private page of one process that of one process, in a fork as well.
        let pinned = mem.flags(pfn).contains(own);
        let pfn = mem.hold(pfn, pinned).into_raw();
        let mem = Arc::clone(mem);
        Some(Self { mem, pfn, pinned })
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        drop(self.mem.adopt_held(self.pfn, self.pinned));
    }
}
