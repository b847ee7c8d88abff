//! Marking frames as exported, and keeping those that lose a mapping until their drivers have been told.

use super::{
    exported::Lost,
    flags::FrameFlags,
    mem::{Frame, PhysMem},
};
use crate::{addr::Pfn, sync::Ordering};

impl PhysMem {
    /// Flags a locked frame.
    pub(super) fn export(&self, pfn: Pfn) {
        let old = self.fetch_set(pfn, FrameFlags::EXPORTED);
        if !old.contains(FrameFlags::EXPORTED) {
            self.exported.flagged.fetch_add(1, Ordering::SeqCst);
        }
    }
    /// The frame is exported no more.
    pub(crate) fn unexport(&self, pfn: Pfn) {
        let old = self.fetch_clear(pfn, FrameFlags::EXPORTED);
        if old.contains(FrameFlags::EXPORTED) {
            self.exported.flagged.fetch_sub(1, Ordering::SeqCst);
        }
    }
    /// Whether there are exported frames: then a change of mappings may have to tell of them. To be asked under the lock of
    /// the entries that change: whoever exports a frame takes it once more after that.
    pub(crate) fn has_exported(&self) -> bool {
        self.exported.flagged.load(Ordering::SeqCst) != 0
    }
    /// Keeps an exported frame that loses something until it was told.
    #[cold]
    #[inline(never)]
    pub(super) fn defer(&self, pfn: Pfn, lost: Lost) {
        let kept = self.get(pfn).into_raw();
        let mut deferred = self.exported.deferred.lock();
        deferred.push_back((kept, lost));
        self.exported
            .waiting
            .store(deferred.len(), Ordering::SeqCst);
    }
    /// An entry loses the right to write to a frame that it maps.
    #[inline]
    pub(crate) fn lose_write(&self, pfn: Pfn) {
        if self.flags(pfn).contains(FrameFlags::EXPORTED) {
            self.defer(pfn, Lost::Write);
        }
    }
    /// Whether any wait to be told of.
    #[inline]
    pub(crate) fn has_deferred(&self) -> bool {
        self.exported.waiting.load(Ordering::SeqCst) != 0
    }
    /// One of them, the first come first.
    pub(crate) fn next_deferred(&self) -> Option<(Frame<'_>, Lost)> {
        let mut deferred = self.exported.deferred.lock();
        let (pfn, lost) = deferred.pop_front()?;
        self.exported
            .waiting
            .store(deferred.len(), Ordering::SeqCst);
        Some((self.adopt(pfn), lost))
    }
}
