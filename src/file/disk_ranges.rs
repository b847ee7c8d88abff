//! Changes of a disk file's blocks besides punching holes: allocating, zeroing, taking out and
//! putting in (`ext4_fallocate`).
//!
//! A block that is allocated but was never written reads zero and behaves as a hole does in all
//! that an address space can see (`ext4_get_block`), so it is one here.

use super::{
    DiskFile, FallocateMode, MemoryObject, StoreError,
    cutting::{Cutting, Zeroed},
    io::{pages_of, rest_of_page},
    object::check_size,
};
use crate::{
    addr::PAGE_SIZE,
    ctx::{Below, CallCx, Cx, Sleepable, rank},
    error::ObjectError,
    sync::{Despite, Ordering},
};
use std::ops::Range;

impl DiskFile {
    /// Does to bytes `[from, from + len)` as the mode says.
    pub(super) fn change_range(
        &self,
        cx: CallCx<'_>,
        mode: FallocateMode,
        from: u64,
        len: u64,
    ) -> Result<(), ObjectError> {
        check_size(from.saturating_add(len))?;
        let keep = mode.contains(FallocateMode::KEEP_SIZE);
        match mode - FallocateMode::KEEP_SIZE {
            FallocateMode::PUNCH_HOLE => self.punch_hole(cx, from, len),
            FallocateMode::ZERO_RANGE => self.zero_range(cx, from..from + len, keep),
            FallocateMode::COLLAPSE_RANGE => self.take_out(cx, from, len),
            FallocateMode::INSERT_RANGE => self.put_in(cx, from, len),
            mode if mode.is_empty() => self.allocate(cx, from + len, keep),
            _ => Err(ObjectError::Unsupported),
        }
    }
    /// Allocates blocks up to `end`: the file reaches there, unless it keeps its size
    /// (`ext4_do_fallocate`).
    fn allocate(&self, mut cx: CallCx<'_>, end: u64, keep: bool) -> Result<(), ObjectError> {
        let changing = self.changing.lock();
        let old = self.size();
        if !keep && end > old {
            let mut filling = self.cache.filling(&mut cx);
            let edges = self.edges(&mut filling, old..end)?;
            self.zero_edges(&mut filling, &edges);
            self.size.store(end, Ordering::Release);
        }
        drop(changing);
        Ok(())
    }
    /// Makes bytes read zero; the file reaches up to them, unless it keeps its size
    /// (`ext4_zero_range`).
    fn zero_range(
        &self,
        mut cx: CallCx<'_>,
        bytes: Range<u64>,
        keep: bool,
    ) -> Result<(), ObjectError> {
        let changing = self.changing.lock();
        let old = self.size();
        let grows = !keep && bytes.end > old;
        let whole_blocks = (bytes.start | bytes.end).is_multiple_of(PAGE_SIZE);
        let mut cutting = self.cache.cutting(&mut cx);
        let tail = match grows && bytes.start > old {
            true => self.edge(cutting.filling(), old)?,
            false => None,
        };
        let despite = self.make_holes(&mut cutting, bytes.clone())?;
        if grows {
            match &tail {
                Some(tail) => self.zero_edge(cutting.filling(), tail, rest_of_page(old)),
                // The old end is in a hole now. Its page comes back, but is not read
                // (`ext4_block_zero_page_range`): whole blocks are allocated behind the cut, others
                // before it. Without memory for the page, its first fault reads more.
                None if whole_blocks => drop(self.edge(cutting.filling(), old)),
                None => {}
            }
            self.size.store(bytes.end, Ordering::Release);
        }
        drop(cutting);
        drop(changing);
        despite.resume();
        Ok(())
    }
    /// Makes bytes read zero: whole blocks become holes. The caller resumes a driver's panic after
    /// it has done the rest.
    ///
    /// # Errors
    ///
    /// Those of [`edges`](Self::edges); nothing was changed.
    pub(super) fn make_holes<'c>(
        &'c self,
        cutting: &mut Cutting<'c, '_>,
        bytes: Range<u64>,
    ) -> Result<Despite, ObjectError> {
        let edges = self.edges(cutting.filling(), bytes.clone())?;
        let despite = cutting.punch_as(bytes.start, bytes.end, Zeroed::Clean);
        self.zero_edges(cutting.filling(), &edges);
        let (first, last) = (bytes.start.div_ceil(PAGE_SIZE), bytes.end / PAGE_SIZE);
        if first < last {
            self.store.discard(first, last);
        }
        Ok(despite)
    }
    /// Takes blocks out (`ext4_collapse_range`). Pages that move are written back first, and leave
    /// the cache.
    fn take_out(&self, mut cx: CallCx<'_>, from: u64, len: u64) -> Result<(), ObjectError> {
        let changing = self.changing.lock();
        let size = self.size();
        if !(from | len).is_multiple_of(PAGE_SIZE) || from + len >= size {
            return Err(ObjectError::Range { from, len });
        }
        let gone = pages_of(from..from + len);
        let mut cutting = self.cache.cutting(&mut cx);
        // The first range is empty, but Linux names its last byte: the first page is written too.
        self.write_pages(cutting.cx(), gone.start..gone.start + 1)?;
        self.write_pages(cutting.cx(), gone.end..u64::MAX)?;
        let despite = cutting.truncate_as(from, Zeroed::Clean);
        let end = size.div_ceil(PAGE_SIZE);
        let moved = self.store.collapse(gone.start, gone.end, end);
        self.finish_move(cutting, despite, moved.map(|()| size - len), size)?;
        drop(changing);
        Ok(())
    }
    /// Puts a hole in (`ext4_insert_range`). Pages that move are written back first, and leave the
    /// cache.
    fn put_in(&self, mut cx: CallCx<'_>, from: u64, len: u64) -> Result<(), ObjectError> {
        let changing = self.changing.lock();
        let size = self.size();
        if !(from | len).is_multiple_of(PAGE_SIZE) || from >= size {
            return Err(ObjectError::Range { from, len });
        }
        check_size(size + len)?;
        let new = pages_of(from..from + len);
        let mut cutting = self.cache.cutting(&mut cx);
        self.write_pages(cutting.cx(), new.start..u64::MAX)?;
        let despite = cutting.truncate_as(from, Zeroed::Clean);
        let end = size.div_ceil(PAGE_SIZE);
        let moved = self.store.insert(new.start, new.end - new.start, end);
        self.finish_move(cutting, despite, moved.map(|()| size + len), size + len)?;
        drop(changing);
        Ok(())
    }
    /// Sets the size after blocks moved, or `on_failure` if the store failed on the way.
    fn finish_move(
        &self,
        cutting: Cutting<'_, '_>,
        despite: Despite,
        moved: Result<u64, StoreError>,
        on_failure: u64,
    ) -> Result<(), ObjectError> {
        let size = moved.unwrap_or(on_failure);
        self.size.store(size, Ordering::Release);
        drop(cutting);
        despite.resume();
        Ok(moved.map(|_| ())?)
    }
    /// Writes back the dirty pages of a range (`filemap_write_and_wait_range`). Returns the first
    /// error, after it tried all of them.
    pub(super) fn write_pages<R: Below<rank::Folio>>(
        &self,
        cx: &mut Cx<'_, R, Sleepable>,
        pages: Range<u64>,
    ) -> Result<(), ObjectError> {
        let mut written = Ok(());
        self.write_each(cx, pages, |_, page| written = written.and(page));
        written
    }
    /// Writes back the dirty pages of a range; `done` gets the number and the result of each.
    pub(super) fn write_each<R: Below<rank::Folio>>(
        &self,
        cx: &mut Cx<'_, R, Sleepable>,
        pages: Range<u64>,
        mut done: impl FnMut(u64, Result<(), ObjectError>),
    ) {
        let mut at = pages.start;
        while let Some((index, frame)) = self.cache.next(at, pages.end) {
            // A page that is being read is locked and not dirty: this does not wait for it.
            if self.is_dirty(&frame) {
                done(index, self.write_page(cx, index, frame));
            }
            at = index + 1;
        }
    }
}
