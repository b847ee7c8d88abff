//! Writes to a disk file whose bytes are not all available: the program's memory must be faulted in
//! first.
//!
//! Linux copies without faults while it holds the page of the file; if nothing could be copied, it
//! releases the page, faults the memory in, and starts again (`generic_perform_write`). The first
//! try leaves behind what ext4's leaves (`ext4_da_do_write_end`, `block_write_end`), where a block
//! is a page:
//!
//! * the file reaches up to the beginning of the write, even if the write fails in the end, and
//!   bytes that were stored between the old end and that place are zeroed;
//! * a hole becomes a dirty page of zeros;
//! * a block that is written in part has been read. It is dirty unless the write begins at its
//!   beginning;
//! * a page that was not up to date takes no bytes of a short copy.

use super::{
    DiskFile, MemoryObject,
    io::{ByteSpan, rest_of_page, within_page},
    object::check_write,
    store::BLOCK,
};
use crate::{
    addr::PAGE_SIZE,
    ctx::CallCx,
    error::ObjectError,
    frame::{FrameFlags, FrameLock},
    sync::Ordering,
};

impl DiskFile {
    /// Does a write of which only `bytes` are available: see [`MemoryObject::write_begun`].
    pub(super) fn write_short(
        &self,
        cx: &mut CallCx<'_>,
        offset: u64,
        bytes: &[u8],
        len: usize,
    ) -> Result<usize, ObjectError> {
        check_write(offset, len)?;
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
        // The lock of the old last page is not taken under that of another page.
        let frame = locked.frame().clone();
        drop(locked);
        if let Some(tail) = tail {
            self.zero_edge(&mut filling, &tail, rest_of_page(old));
        }
        // The size grows under the lock of the page, as in `write_at`.
        let mem = self.cache.host().mem();
        let locked = mem.lock(filling.cx(), frame);
        if offset > old {
            ByteSpan::of(begin.max(old)..offset).zero(locked.frame());
        }
        if !taken.is_empty() {
            locked.frame().write(within_page(offset), taken);
            mem.set_flags(locked.pfn(), FrameFlags::DIRTY);
        }
        self.size
            .fetch_max(offset + taken.len() as u64, Ordering::AcqRel);
        drop(locked);
        drop(filling);
        drop(changing);
        Ok(taken.len())
    }
    /// Prepares the page as `->write_begin` does, and marks it as `->write_end` does for the bytes
    /// taken.
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
            self.cache.mark_up_to_date(locked, index);
        }
        if is_hole || !offset.is_multiple_of(PAGE_SIZE) || !taken.is_empty() {
            mem.set_flags(locked.pfn(), FrameFlags::DIRTY);
        }
        Ok(())
    }
}
