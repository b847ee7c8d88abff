//! Frames that a driver has by number: flagged, and kept until it was told that their mappings are gone.
//!
//! Where a mapping goes, no frame can be locked, and nobody who sleeps be told. So a frame that is exported gets a reference
//! there, and is put off until somebody who holds no lock below that of a frame tells of it: it is never freed before.

use super::{arena::PhysMem, flags::FrameFlags, handle::Frame};
use crate::{
    addr::Pfn,
    sync::{AtomicUsize, Mutex, Ordering},
};
use std::collections::VecDeque;

/// What happened to a frame that is exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lost {
    /// A mapping, perhaps the last.
    Mapping,
    /// The right to write.
    Write,
}

/// Exported frames of a machine.
#[derive(Debug, Default)]
pub(super) struct Exported {
    /// How many are flagged.
    flagged: AtomicUsize,
    /// How many are in `put_off`.
    waiting: AtomicUsize,
    /// Those to be told of, each with a reference.
    put_off: Mutex<VecDeque<(Pfn, Lost)>>,
}

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
    pub(super) fn put_off(&self, pfn: Pfn, lost: Lost) {
        let kept = self.get(pfn).into_raw();
        let mut put_off = self.exported.put_off.lock();
        put_off.push_back((kept, lost));
        self.exported.waiting.store(put_off.len(), Ordering::SeqCst);
    }
    /// An entry loses the right to write to a frame that it maps.
    #[inline]
    pub(crate) fn lose_write(&self, pfn: Pfn) {
        if self.flags(pfn).contains(FrameFlags::EXPORTED) {
            self.put_off(pfn, Lost::Write);
        }
    }
    /// Whether any wait to be told of.
    #[inline]
    pub(crate) fn has_put_off(&self) -> bool {
        self.exported.waiting.load(Ordering::SeqCst) != 0
    }
    /// One of them, the first come first.
    pub(crate) fn next_put_off(&self) -> Option<(Frame<'_>, Lost)> {
        let mut put_off = self.exported.put_off.lock();
        let (pfn, lost) = put_off.pop_front()?;
        self.exported.waiting.store(put_off.len(), Ordering::SeqCst);
        Some((self.adopt(pfn), lost))
    }
}
