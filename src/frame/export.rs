//! Exporting frames to drivers that keep frame numbers, and deferring the notices that such a frame
//! is no longer mapped.
//!
//! See `exported` for the guarantee, and docs/adr/0025-exported-frames-wait.md for the reason.

use super::{
    exported::Lost,
    flags::FrameFlags,
    mem::{Frame, PhysMem},
};
use crate::{addr::Pfn, sync::Ordering};

impl PhysMem {
    /// Marks a locked frame as exported.
    pub(super) fn export(&self, pfn: Pfn) {
        let old = self.fetch_set(pfn, FrameFlags::EXPORTED);
        if !old.contains(FrameFlags::EXPORTED) {
            self.exported.flagged.fetch_add(1, Ordering::SeqCst);
        }
    }
    /// Ends the export of a frame.
    pub(crate) fn unexport(&self, pfn: Pfn) {
        let old = self.fetch_clear(pfn, FrameFlags::EXPORTED);
        if old.contains(FrameFlags::EXPORTED) {
            self.exported.flagged.fetch_sub(1, Ordering::SeqCst);
        }
    }
    /// Returns true if any frame is exported: a change of mappings may then owe a driver a notice.
    ///
    /// To be called under the lock of the entries that change. An export takes that lock once more
    /// after it has counted itself here, so of an export and a change one sees the other: hence
    /// SeqCst.
    pub(crate) fn has_exported(&self) -> bool {
        self.exported.flagged.load(Ordering::SeqCst) != 0
    }
    /// Keeps an exported frame that loses a mapping or a right, with a reference, until its driver
    /// has been notified.
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
    /// Records that an entry which maps the frame loses the right to write.
    #[inline]
    pub(crate) fn lose_write(&self, pfn: Pfn) {
        if self.flags(pfn).contains(FrameFlags::EXPORTED) {
            self.defer(pfn, Lost::Write);
        }
    }
    /// Returns true if any notice is deferred.
    #[inline]
    pub(crate) fn has_deferred(&self) -> bool {
        self.exported.waiting.load(Ordering::SeqCst) != 0
    }
    /// Takes the oldest deferred notice, with the reference that kept its frame.
    pub(crate) fn next_deferred(&self) -> Option<(Frame<'_>, Lost)> {
        let mut deferred = self.exported.deferred.lock();
        let (pfn, lost) = deferred.pop_front()?;
        self.exported
            .waiting
            .store(deferred.len(), Ordering::SeqCst);
        Some((self.adopt(pfn), lost))
    }
}
