//! Bytes of a disk file that bypass its cache: `O_DIRECT` (`iomap_dio_rw`).
//!
//! The store and the cache stay one file: before a read, dirty pages of the range are written back;
//! before a write, they are written back and dropped, with their mappings; after a write, pages
//! that came in meanwhile are dropped again. Private copies stay.

use super::{
    DiskFile, MemoryObject,
    cutting::{Cutting, Zeroed},
    object::check_write,
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

/// Returns the pages that a range of bytes touches.
fn pages(offset: u64, len: usize) -> Range<u64> {
    offset / PAGE_SIZE..offset.saturating_add(len as u64).div_ceil(PAGE_SIZE)
}

impl Direct for DiskFile {
    fn begin_read(&self, cx: &mut CallCx<'_>, offset: u64, len: usize) -> Result<(), ObjectError> {
        self.write_pages(cx, pages(offset, len))
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
        let left = usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX);
        Ok(left.min(out.len()))
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
        let (old, end) = (self.size(), offset + bytes.len() as u64);
        let mut cutting = self.cache.cutting(cx);
        if end > old {
            self.zero_stored_tail(&mut cutting, old)?;
        }
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
        if written.is_ok() {
            self.size.fetch_max(end, Ordering::AcqRel);
        }
        let _stays = cutting.invalidate(pages(offset, bytes.len()));
        drop(cutting);
        drop(changing);
        written
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
    /// Zeroes the bytes behind the end of the file, in the cache and in the store.
    fn zero_stored_tail(
        &self,
        cutting: &mut Cutting<'_, '_>,
        size: u64,
    ) -> Result<(), ObjectError> {
        let within = super::io::within_page(size);
        let mut block = [0; BLOCK];
        if within == 0 {
            return Ok(());
        }
        if self.store.read(size / PAGE_SIZE, &mut block)? && block[within..] != [0; BLOCK][within..]
        {
            block[within..].fill(0);
            self.store.write(size / PAGE_SIZE, &block)?;
        }
        cutting.zero_rest(size, Zeroed::Clean);
        Ok(())
    }
}
