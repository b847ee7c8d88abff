//! Reading pages of a disk file into its cache: for a fault, a read, or an advice.

use super::{
    DiskFile, MemoryObject, PageRequest, Pattern,
    read_ahead::{STRETCH, Stretch, stretch},
    store::BLOCK,
};
use crate::{
    ctx::{Below, CallCx, Cx, FaultCx, Sleepable, rank},
    error::ObjectError,
    frame::{Frame, FrameFlags},
};
use std::ops::Range;

/// The number of pages that a fault reads around a missing page.
const READ_AROUND: u64 = STRETCH;

impl DiskFile {
    /// Returns the frame of a page, read from the store if it is missing. `ends` returns the number
    /// of pages of the file.
    pub(super) fn read_in<R: Below<rank::Cache>>(
        &self,
        cx: &mut Cx<'_, R, Sleepable>,
        index: u64,
        ends: impl Fn() -> u64,
    ) -> Result<Frame<'_>, ObjectError> {
        Ok(self.read_in_noting(cx, index, ends)?.0)
    }
    /// Reads a page as [`read_in`](Self::read_in) does; returns true with it if its bytes had to
    /// come from a block of the store.
    fn read_in_noting<R: Below<rank::Cache>>(
        &self,
        cx: &mut Cx<'_, R, Sleepable>,
        index: u64,
        ends: impl Fn() -> u64,
    ) -> Result<(Frame<'_>, bool), ObjectError> {
        let mut stored = false;
        let mut filling = self.cache.filling(cx);
        // Asked under the lock of the extent, as no other thread cuts the file now.
        if index >= ends() {
            return Err(ObjectError::Beyond(index));
        }
        let read = |frame: &Frame<'_>| {
            let mut block = [0; BLOCK];
            // A dirty page that is not up to date was read and zeroed in part: it is newer than the
            // block.
            if !self.is_dirty(frame) && self.store.read(index, &mut block)? {
                frame.write(0, &block);
                stored = true;
            }
            Ok(())
        };
        let frame = filling.get_or_make(index, read)?.0;
        Ok((frame, stored))
    }
    /// Reads a missing page and pages around it, as `do_sync_mmap_readahead` does: for code, the
    /// pages of the mapping after it. A page that is there, but not up to date, is read alone.
    ///
    /// A page that is a hole is there at once, and the fault goes on before the blocks of the pages
    /// around it have come from the disk: those are *arriving* until the fault is over.
    pub(super) fn read_around(
        &self,
        cx: &mut FaultCx<'_>,
        index: u64,
        want: &PageRequest,
    ) -> Result<(), ObjectError> {
        let (from, to) = match want.pattern {
            _ if !self.cache.is_hole(index) => (index, index),
            Pattern::Normal => {
                let from = index.saturating_sub(READ_AROUND / 2);
                (from, from + READ_AROUND)
            }
            Pattern::Code => (index, want.mapped.end.min(index + READ_AROUND)),
            Pattern::Sequential => (index, index + READ_AROUND),
            Pattern::Random => (index, index),
        };
        let mark = match want.pattern {
            Pattern::Normal if from < to => from + READ_AROUND * 3 / 4,
            _ => u64::MAX,
        };
        let marked = self.cache.is_hole(mark);
        let (mut arriving, mut waits) = (Vec::new(), false);
        for page in from..to.min(self.pages()) {
            if self.cache.is_hole(page)
                && let Ok((_, true)) = self.read_in_noting(cx, page, || self.pages())
            {
                arriving.push(page);
                waits |= page == index;
            }
        }
        if marked {
            self.mark(mark);
        }
        *self.arriving.lock() = if waits { Vec::new() } else { arriving };
        self.read_in(cx, index, || self.pages()).map(|_| ())
    }
    /// Returns true if the page is on its way from the disk, for a fault that did not wait for it.
    pub(super) fn is_arriving(&self, index: u64) -> bool {
        self.arriving.lock().binary_search(&index).is_ok()
    }
    /// Ends the arrival of pages.
    pub(super) fn arrive(&self) {
        self.arriving.lock().clear();
    }
    /// Marks a page, if it is in memory, as the one where a program that reads on is expected
    /// (`folio_set_readahead`). Linux has one flag for this mark and for that of reclaim.
    fn mark(&self, index: u64) {
        if let Some(frame) = self.cache.get(index) {
            let mem = self.cache.host().mem();
            mem.set_flags(frame.pfn(), FrameFlags::RECLAIM);
        }
    }
    /// Takes the mark off a page that is read or written.
    pub(super) fn unmark(&self, frame: &Frame<'_>) {
        let mem = self.cache.host().mem();
        if mem.flags(frame.pfn()).contains(FrameFlags::RECLAIM) {
            mem.clear_flags(frame.pfn(), FrameFlags::RECLAIM);
        }
    }
    /// Reads those pages that are missing. A page that cannot be read stays missing, without an
    /// error.
    pub(super) fn bring_in<R: Below<rank::Cache>>(
        &self,
        cx: &mut Cx<'_, R, Sleepable>,
        pages: Range<u64>,
    ) {
        for index in pages.start..pages.end.min(self.pages()) {
            if self.cache.is_hole(index) {
                let _page = self.read_in(cx, index, || self.pages());
            }
        }
    }
    /// Reads the pages that a read of pages `wanted` brings in when it finds the first of them
    /// missing; see `read_ahead`.
    pub(super) fn read_on(&self, cx: &mut CallCx<'_>, mut wanted: Range<u64>, before: u64) {
        wanted.end = wanted.end.min(self.pages());
        if wanted.is_empty() || !self.cache.is_hole(wanted.start) {
            return;
        }
        let behind = self.cache.in_a_row_before(wanted.start, STRETCH);
        let Stretch { pages, mark } = stretch(wanted, before, behind);
        let marked = pages.contains(&mark) && self.cache.is_hole(mark);
        self.bring_in(cx, pages);
        if marked {
            self.mark(mark);
        }
    }
}
