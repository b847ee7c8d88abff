//! Bytes of a disk file that bypass its cache: `O_DIRECT` (`iomap_dio_rw`).
//!
//! The store and the cache stay one file: before a read, dirty pages of the range are written back;
//! before a write, they are written back and dropped, with their mappings; after a write, pages
//! that came in meanwhile are dropped again. Private copies stay.

use super::{
    DiskFile, MemoryObject,
    cutting::{Cutting, Zeroed},
    io::{inside, pages_of, within_page},
    object::check_write,
    open_direct::SECTOR,
    sealed::Direct,
    store::BLOCK,
};
use crate::{
    addr::{PAGE_SIZE, by_page},
    ctx::CallCx,
    error::ObjectError,
    sync::Ordering,
};
use std::ops::Range;

/// Returns the pages that a transfer touches.
fn pages(offset: u64, len: usize) -> Range<u64> {
    pages_of(offset..offset.saturating_add(len as u64))
}

impl Direct for DiskFile {
    fn begin_read(&self, cx: &mut CallCx<'_>, offset: u64, len: usize) -> Result<(), ObjectError> {
        self.write_pages(cx, pages(offset, len))
    }
    fn whole_sectors(&self, offset: u64, len: usize) -> Result<usize, ObjectError> {
        let end = offset.saturating_add(len as u64);
        let mut block = [0; BLOCK];
        let mut is_stored = |at| self.store.read(at, &mut block);
        let (first, last) = (offset / PAGE_SIZE, end.saturating_sub(1) / PAGE_SIZE);
        if !offset.is_multiple_of(SECTOR) && is_stored(first)? {
            return Ok(0);
        }
        if end.is_multiple_of(SECTOR) || !is_stored(last)? {
            return Ok(len);
        }
        // Blocks in a row are read at once, and none of them if their end is none of a sector.
        let mut from = last;
        while from > first && is_stored(from - 1)? {
            from -= 1;
        }
        let before = (from * PAGE_SIZE).saturating_sub(offset);
        Ok(usize::try_from(before).unwrap_or(len).min(len))
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> Result<usize, ObjectError> {
        let size = self.size();
        let mut block = [0; BLOCK];
        by_page(offset, &mut *out, |at, within, part| {
            block.fill(0);
            self.store.read(at.0, &mut block)?;
            part.copy_from_slice(&block[within..within + part.len()]);
            Ok::<(), ObjectError>(())
        })?;
        Ok(inside(size, offset, out.len()))
    }
    fn begin_write(
        &self,
        cx: &mut CallCx<'_>,
        offset: u64,
        len: usize,
    ) -> Result<bool, ObjectError> {
        check_write(offset, len)?;
        let changing = self.changing.lock();
        self.write_pages(cx, pages(offset, len))?;
        let gone = self.cache.cutting(cx).invalidate(pages(offset, len));
        drop(changing);
        Ok(gone)
    }
    fn write(&self, cx: &mut CallCx<'_>, offset: u64, bytes: &[u8]) -> Result<(), ObjectError> {
        let changing = self.changing.lock();
        // Keeps pages that hold older bytes from coming in meanwhile.
        let cutting = self.cache.cutting(cx);
        let mut block = [0; BLOCK];
        let written = by_page(offset, bytes, |at, within, part| {
            block.fill(0);
            if part.len() < BLOCK {
                self.store.read(at.0, &mut block)?;
            }
            block[within..within + part.len()].copy_from_slice(part);
            self.store.write(at.0, &block)?;
            Ok::<(), ObjectError>(())
        });
        drop(cutting);
        drop(changing);
        written
    }
    fn end_write(
        &self,
        cx: &mut CallCx<'_>,
        range: Range<u64>,
        grows: bool,
    ) -> Result<(), ObjectError> {
        let changing = self.changing.lock();
        let mut cutting = self.cache.cutting(cx);
        let old = self.size();
        let mut grown = Ok(());
        if grows && range.end > old {
            if range.start > old {
                grown = self.zero_stored_tail(&mut cutting, old, range.start);
            }
            if grown.is_ok() {
                self.size.store(range.end, Ordering::Release);
            }
        }
        // Blocks behind the end are none.
        let behind = self.size().div_ceil(PAGE_SIZE)..range.end.div_ceil(PAGE_SIZE);
        if !behind.is_empty() {
            self.store.discard(behind.start, behind.end);
        }
        let _stays = cutting.invalidate(pages_of(range));
        drop(cutting);
        drop(changing);
        grown
    }
    fn write_through(
        &self,
        cx: &mut CallCx<'_>,
        offset: u64,
        bytes: &[u8],
    ) -> Result<usize, ObjectError> {
        let written = self.write_at(cx.reborrow(), offset, bytes)?;
        self.write_pages(cx, pages(offset, written))?;
        Ok(written)
    }
}

impl DiskFile {
    /// Zeroes the rest of the last page of a file of `size` bytes, up to byte `until`, in the cache
    /// and in the store.
    fn zero_stored_tail(
        &self,
        cutting: &mut Cutting<'_, '_>,
        size: u64,
        until: u64,
    ) -> Result<(), ObjectError> {
        let (index, within) = (size / PAGE_SIZE, within_page(size));
        if within == 0 {
            return Ok(());
        }
        let end = match until / PAGE_SIZE == index {
            true => within_page(until),
            false => BLOCK,
        };
        let mut block = [0; BLOCK];
        if self.store.read(index, &mut block)? && block[within..end].iter().any(|&byte| byte != 0) {
            block[within..end].fill(0);
            self.store.write(index, &block)?;
        }
        // A page that was written to the store leaves the cache next.
        cutting.zero_rest(size, Zeroed::Clean);
        Ok(())
    }
}
