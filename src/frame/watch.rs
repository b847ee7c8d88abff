//! Where an oracle looks on when frames go.

use super::{arena::PhysMem, flags::FrameFlags};
use crate::addr::Pfn;
use std::sync::Arc;

/// Told of what happens to frames. Called with any locks held: it may take gates, nothing else.
pub(crate) trait FrameWatch: Send + Sync {
    /// The last reference is gone; the frame is about to be given to others.
    fn retiring(&self, pfn: Pfn);
    /// The frame is taken for clean, or goes, but was written through an MMU that never said so.
    fn write_lost(&self, pfn: Pfn);
}

impl PhysMem {
    /// Has `watch` look on from now on; the first one stays.
    pub(crate) fn set_watch(&self, watch: Arc<dyn FrameWatch>) {
        let _first = self.watch.get_or_init(|| watch);
    }
    #[inline]
    pub(super) fn watch_retirement(&self, pfn: Pfn) {
        if let Some(watch) = self.watch.get() {
            self.tell_retirement(&**watch, pfn);
        }
    }
    #[cold]
    #[inline(never)]
    fn tell_retirement(&self, watch: &dyn FrameWatch, pfn: Pfn) {
        watch.retiring(pfn);
        self.watch_clean(pfn);
    }
    /// The frame is clean as far as anybody knows, and no external MMU has it: is that true?
    pub(crate) fn watch_clean(&self, pfn: Pfn) {
        if let Some(watch) = self.watch.get()
            && self.flags(pfn).contains(FrameFlags::DEVICE_DIRTY)
        {
            watch.write_lost(pfn);
            self.clear_flags(pfn, FrameFlags::DEVICE_DIRTY);
        }
    }
}
