//! Advice on the use of a file (`generic_fadvise`), and the writeback of a part of it
//! (`ksys_sync_file_range`).

use super::{DiskFile, File, MemoryObject, io::pages_of};
use crate::{addr::PAGE_SIZE, ctx::CallCx, error::ObjectError};
use bitflags::bitflags;
use std::{collections::BTreeSet, ops::Range};

/// An advice of `posix_fadvise`, with Linux's numbers: those that change what is in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum FileAdvice {
    /// The bytes will be needed: their pages are read in.
    WillNeed = 3,
    /// The bytes are not needed: dirty pages are written back, and clean pages leave memory unless
    /// they are mapped.
    DontNeed = 4,
}

bitflags! {
    /// Flags of `sync_file_range`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct SyncRangeFlags: u32 {
        /// Wait for writeback that has begun before. None is ever under way here.
        const WAIT_BEFORE = 1;
        /// Write the dirty pages.
        const WRITE = 2;
        /// Wait for that.
        const WAIT_AFTER = 4;
    }
}

impl File {
    /// Takes an advice on bytes `[from, from + len)`; without a length, up to the end:
    /// `posix_fadvise`. Objects in memory alone ignore it.
    ///
    /// # Errors
    ///
    /// [`ObjectError::Range`] for a length above `i64::MAX`. Pages that cannot be read or written
    /// stay as they are.
    pub fn advise(
        &self,
        cx: CallCx<'_>,
        from: u64,
        len: u64,
        advice: FileAdvice,
    ) -> Result<(), ObjectError> {
        if i64::try_from(len).is_err() {
            return Err(ObjectError::Range { from, len });
        }
        let end = from.saturating_add(len);
        let end = if len == 0 { 1 << 63 } else { end };
        match advice {
            FileAdvice::WillNeed => {
                let object = self.object();
                if !object.is_memory() {
                    let pages = pages_of(from..end);
                    object.will_need(cx, pages.start, pages.end);
                }
            }
            FileAdvice::DontNeed => self.object().dont_need(cx, from..end),
        }
        Ok(())
    }
    /// Writes back the dirty pages that bytes `[from, from + len)` touch, with `WRITE`; without a
    /// length, up to the end: `sync_file_range`. The size of the file on the store is not written.
    ///
    /// # Errors
    ///
    /// [`ObjectError::Range`] for unknown flags, or a range that ends above `i64::MAX`; those of
    /// [`sync`](Self::sync).
    pub fn sync_range(
        &self,
        cx: CallCx<'_>,
        from: u64,
        len: u64,
        flags: SyncRangeFlags,
    ) -> Result<(), ObjectError> {
        let end = from.checked_add(len).filter(|&end| end <= i64::MAX as u64);
        let Some(end) = end.filter(|_| SyncRangeFlags::all().contains(flags)) else {
            return Err(ObjectError::Range { from, len });
        };
        if !flags.contains(SyncRangeFlags::WRITE) {
            return Ok(());
        }
        let to = if len == 0 {
            u64::MAX
        } else {
            end.div_ceil(PAGE_SIZE)
        };
        self.object().sync(cx, from / PAGE_SIZE, to)
    }
}

/// Returns the pages that lie in the bytes as a whole; the last page of a file of `size` bytes does
/// if its last byte does.
fn whole_pages(bytes: &Range<u64>, size: u64) -> Range<u64> {
    let to = match bytes.end.is_multiple_of(PAGE_SIZE) || bytes.end == size {
        true => bytes.end.div_ceil(PAGE_SIZE),
        false => bytes.end / PAGE_SIZE,
    };
    bytes.start.div_ceil(PAGE_SIZE)..to
}

impl DiskFile {
    /// Writes back the dirty pages that the bytes touch, then drops those pages among them that are
    /// clean and that nothing maps (`mapping_try_invalidate`).
    ///
    /// Linux begins the writeback and tries at once: a page that was written stays. Only where a
    /// clean page stays mapped, it waits for the other processors and tries again, by which time
    /// the writeback is over.
    pub(super) fn drop_unneeded(&self, cx: &mut CallCx<'_>, bytes: Range<u64>) {
        let whole = whole_pages(&bytes, self.size());
        let mut written = BTreeSet::new();
        // A page that cannot be written stays dirty, and in memory.
        self.write_each(cx, pages_of(bytes), |index, _| _ = written.insert(index));
        let mut cutting = self.cache.cutting(cx);
        let is_written = |index| written.contains(&index);
        if cutting.drop_idle(whole.clone(), is_written) {
            cutting.drop_idle(whole, |_| false);
        }
    }
}
