//! Writes whose bytes are not there: a program writes from memory that must be faulted in first.
//!
//! Linux copies without faults while it holds the page of the file, and where nothing could be copied lets the page go,
//! faults the memory in, and begins anew (`generic_perform_write`). What the first try leaves is ext4's
//! (`ext4_da_do_write_end`, `block_write_end`), where a block is a page:
//!
//! * the file reaches up to where the write begins, also if it fails in the end, and what was stored between the old end and that
//!   place is zeroed;
//! * a hole is one no more: it is a page of zeros, dirty;
//! * a block that must be read since only a part of it is written was read. It is dirty if the write does not begin where it begins;
//! * a page that was not up to date takes no bytes of a short copy.

use super::{
    DiskFile, MAX_SIZE, MemoryObject,
    edges::rest_of_page,
    io::{Reach, within_page},
    store::BLOCK,
};
use crate::ctx::CallCx;
use crate::{
    addr::PAGE_SIZE,
    error::ObjectError,
    frame::{FrameFlags, FrameLock},
    sync::Ordering,
};

impl DiskFile {
    /// See [`MemoryObject::write_begun`].
    pub(super) fn write_short(
        &self,
        cx: &mut CallCx<'_>,
        offset: u64,
        bytes: &[u8],
        len: usize,
    ) -> Result<usize, ObjectError> {
        let end = offset.saturating_add(len as u64);
        if end > MAX_SIZE {
            return Err(ObjectError::TooLarge(end));
        }
        let changing = self.changing.lock();
        let old = self.size();
        let begin = offset - offset % PAGE_SIZE;
        let mut filling = self.cache.filling(cx);
        let tail = match begin > old {
            true => self.edge(&mut filling, old)?,
            false => None,
        };
        let (locked, is_read) = filling.get_or_add(offset / PAGE_SIZE)?;
        let taken = if is_read { bytes } else { &[] };
        self.begin_block(&locked, is_read, (offset, taken), len)?;
        if offset > old {
            Reach::of(begin.max(old)..offset).zero(locked.frame());
        }
        locked.frame().write(within_page(offset), taken);
        drop(locked);
        if let Some(tail) = tail {
            self.zero_edge(&mut filling, &tail, rest_of_page(old));
        }
        self.size
            .fetch_max(offset + taken.len() as u64, Ordering::AcqRel);
        drop(filling);
        drop(changing);
        Ok(taken.len())
    }
    /// The page as `->write_begin` gives it, and marked as `->write_end` marks it when so many bytes were taken.
    fn begin_block(
        &self,
        locked: &FrameLock<'_>,
        is_read: bool,
        (offset, taken): (u64, &[u8]),
        len: usize,
    ) -> Result<(), ObjectError> {
        let mem = self.cache.host().mem();
        let index = offset / PAGE_SIZE;
        let is_dirty = mem.flags(locked.pfn()).contains(FrameFlags::DIRTY);
        let is_hole = !is_dirty && self.store.is_hole(index);
        let all = len == BLOCK;
        if !is_read && !is_hole && !all {
            let mut block = [0; BLOCK];
            if !is_dirty && self.store.read(index, &mut block)? {
                locked.frame().write(0, &block);
            }
        }
        if !is_read && (is_hole || !all) {
            self.cache.has_read(locked, index);
        }
        if is_hole || !offset.is_multiple_of(PAGE_SIZE) || !taken.is_empty() {
            mem.set_flags(locked.pfn(), FrameFlags::DIRTY);
        }
        Ok(())
    }
}
