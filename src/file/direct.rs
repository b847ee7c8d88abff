//! Bytes of a disk file that bypass its cache: `O_DIRECT` (`iomap_dio_rw`).
//!
//! The store and the cache stay one file: before a read, dirty pages of the range are written back;
//! before a write, they are written back and dropped, with their mappings; after a write, pages that
//! came in meanwhile are dropped again. Private copies stay.

use super::{DiskFile, File, FileMode, MemoryObject, cutting::Cutting, object::check_write, sealed,
    store::BLOCK};
use crate::{
    addr::{PAGE_SIZE, by_page},
    ctx::CallCx,
    error::ObjectError,
    sync::Ordering,
};
use std::{ops::Range, sync::Arc};

/// The bytes of a sector: offsets and lengths of direct transfers are multiples of it.
pub(crate) const SECTOR: u64 = 512;

/// Returns the pages that a range of bytes touches.
fn pages(offset: u64, len: usize) -> Range<u64> {
    offset / PAGE_SIZE..offset.saturating_add(len as u64).div_ceil(PAGE_SIZE)
}

impl File {
    /// Opens an object for transfers that bypass its cache, if it has one (`O_DIRECT`). Objects in
    /// memory have none: their transfers are the usual ones.
    pub fn open_direct(object: Arc<dyn MemoryObject>, mode: FileMode) -> Arc<Self> {
        Self::opened(object, mode, true)
    }
    /// Returns the file to which transfers go directly; `None`: they go through the cache.
    pub(crate) fn direct(&self) -> Option<&DiskFile> {
        match self.is_direct {
            true => self.object().disk(sealed::Ours),
            false => None,
        }
    }
}

impl DiskFile {
    /// Checks that a direct transfer is one of whole sectors.
    pub(crate) fn check_direct(offset: u64, len: usize) -> Result<(), ObjectError> {
        match (offset | len as u64).is_multiple_of(SECTOR) {
            true => Ok(()),
            false => Err(ObjectError::Unaligned { offset, len }),
        }
    }
    /// Prepares a direct read: the store has all bytes of the range afterwards.
    pub(crate) fn begin_direct_read(
        &self,
        cx: &mut CallCx<'_>,
        offset: u64,
        len: usize,
    ) -> Result<(), ObjectError> {
        Self::check_direct(offset, len)?;
        self.write_pages(cx, pages(offset, len))
    }
    /// Reads bytes of the store; behind the last block they are zero. Returns how many of them are
    /// the file's.
    pub(crate) fn read_direct(
        &self,
        offset: u64,
        out: &mut [u8],
    ) -> Result<usize, ObjectError> {
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
    /// Prepares a direct write: no page of the range is in the cache afterwards. Returns false if
    /// one stays, because it was written again: the write must go through the cache.
    pub(crate) fn begin_direct_write(
        &self,
        cx: &mut CallCx<'_>,
        offset: u64,
        len: usize,
    ) -> Result<bool, ObjectError> {
        Self::check_direct(offset, len)?;
        check_write(offset, len)?;
        let changing = self.changing.lock();
        self.write_pages(cx, pages(offset, len))?;
        let gone = self.cache.cutting(cx).invalidate(pages(offset, len));
        drop(changing);
        Ok(gone)
    }
    /// Writes bytes to the store, and drops the pages that came in meanwhile. The file grows to the
    /// end of the bytes; the rest of its old last page reads zero then. If the store fails, the
    /// blocks below the failing one have their bytes, and the size is the old one.
    pub(crate) fn write_direct(
        &self,
        cx: &mut CallCx<'_>,
        offset: u64,
        bytes: &[u8],
    ) -> Result<(), ObjectError> {
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
    /// Zeroes the bytes behind the end of the file, in the cache and in the store.
    fn zero_stored_tail(
        &self,
        cutting: &mut Cutting<'_, '_>,
        size: u64,
    ) -> Result<(), ObjectError> {
        let Ok(within) = usize::try_from(size % PAGE_SIZE) else {
            return Ok(());
        };
        let mut block = [0; BLOCK];
        if within == 0 {
            return Ok(());
        }
        if self.store.read(size / PAGE_SIZE, &mut block)? && block[within..] != [0; BLOCK][within..]
        {
            block[within..].fill(0);
            self.store.write(size / PAGE_SIZE, &block)?;
        }
        cutting.zero_rest(size, super::cutting::Zeroed::Clean);
        Ok(())
    }
    /// Reads bytes directly: `pread` with `O_DIRECT`.
    pub(super) fn pread_direct(
        &self,
        mut cx: CallCx<'_>,
        offset: u64,
        out: &mut [u8],
    ) -> Result<usize, ObjectError> {
        Self::check_direct(offset, out.len())?;
        if offset >= self.size() {
            return Ok(0);
        }
        self.begin_direct_read(&mut cx, offset, out.len())?;
        self.read_direct(offset, out)
    }
    /// Writes bytes directly: `pwrite` with `O_DIRECT`.
    pub(super) fn pwrite_direct(
        &self,
        mut cx: CallCx<'_>,
        offset: u64,
        bytes: &[u8],
    ) -> Result<usize, ObjectError> {
        if bytes.is_empty() {
            return Ok(0);
        }
        match self.begin_direct_write(&mut cx, offset, bytes.len())? {
            true => self.write_direct(&mut cx, offset, bytes).map(|()| bytes.len()),
            false => self.write_through(&mut cx, offset, bytes),
        }
    }
    /// Writes bytes through the cache, and at once to the store: what a direct write does that
    /// could not drop all pages.
    pub(crate) fn write_through(
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
