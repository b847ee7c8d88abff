//! Files on disk: a page cache in front of a [`Store`].
//!
//! A fault that misses reads pages around it. A store through a shared mapping announces itself, so
//! the file knows its dirty pages and writes them back. Reading is in `disk_read`, writeback in
//! `write_back`, changes of blocks in `disk_ranges`, partial blocks in `edges`, short writes in
//! `short_write`, transfers past the cache in `direct`.

use super::{
    Backing, FallocateMode, Host, MemoryObject, PageCache, PageRequest, Store,
    cutting::Zeroed,
    io::{ByteSpan, read_by_page, rest_of_page, write_by_page},
    object::{check_size, check_write},
    sealed,
    size_change::SizeChange,
};
use crate::{
    addr::PAGE_SIZE,
    ctx::{CallCx, FaultCx},
    error::ObjectError,
    frame::{Frame, FrameFlags},
    rmap::Mapping,
    sync::{AtomicU64, Mutex, Ordering},
};
use std::{borrow::Cow, fmt, ops::Range, sync::Arc};

/// The most pages that one advice reads (`io_pages`: 1280 KiB).
const READ_AHEAD: u64 = 320;

/// A regular file on a block device, with blocks of a page each, as on ext4.
///
/// Guarantee: bytes beyond the end read zero when the file grows over them, by any way. An
/// operation that fails has changed neither size nor contents.
pub struct DiskFile {
    name: Box<str>,
    pub(super) cache: Arc<PageCache>,
    pub(super) store: Box<dyn Store>,
    pub(super) size: AtomicU64,
    /// Serializes writes, truncation and hole punching (`inode_lock`).
    pub(super) changing: Mutex<()>,
    /// Pages on their way from the disk, ascending: see `disk_read`.
    pub(super) arriving: Mutex<Vec<u64>>,
}

impl DiskFile {
    /// Creates a file of `size` bytes whose blocks are those of `store`.
    ///
    /// # Errors
    ///
    /// [`ObjectError::TooLarge`], or no memory for the object.
    pub fn new(
        host: &Host,
        name: &str,
        size: u64,
        store: Box<dyn Store>,
    ) -> Result<Arc<Self>, ObjectError> {
        check_size(size)?;
        let file = Arc::new(Self {
            name: name.into(),
            cache: PageCache::new(host, Backing::Store)?,
            store,
            size: AtomicU64::new(size),
            changing: Mutex::default(),
            arriving: Mutex::default(),
        });
        let writer: std::sync::Weak<Self> = Arc::downgrade(&file);
        file.cache.set_writer(writer);
        Ok(file)
    }
    /// Returns the store.
    pub fn store(&self) -> &dyn Store {
        &*self.store
    }
    /// Returns the number of dirty pages in the cache.
    pub fn dirty(&self) -> u64 {
        let mut at = 0;
        let mut dirty = 0;
        while let Some((index, frame)) = self.cache.next(at, u64::MAX) {
            dirty += u64::from(self.is_dirty(&frame));
            at = index + 1;
        }
        dirty
    }
    /// Returns true if the page of this frame is dirty.
    pub(super) fn is_dirty(&self, frame: &Frame<'_>) -> bool {
        let flags = self.cache.host().mem().flags(frame.pfn());
        flags.contains(FrameFlags::DIRTY)
    }
}

impl MemoryObject for DiskFile {
    fn name(&self) -> Cow<'_, str> {
        Cow::Borrowed(&self.name)
    }
    fn mapping(&self) -> &Arc<Mapping> {
        self.cache.mapping()
    }
    fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }
    /// Returns a page of the cache; a miss reads it in and makes the fault start again. A page that
    /// is about to be written becomes dirty, and a page that is mapped is no longer for reclaim.
    fn page(
        &self,
        mut cx: FaultCx<'_>,
        index: u64,
        want: &PageRequest,
    ) -> Result<Frame<'_>, ObjectError> {
        if index >= self.pages() {
            return Err(ObjectError::Beyond(index));
        }
        let Some(frame) = self.cache.get(index) else {
            // The fault releases the mmap lock for the read and starts again, as in
            // `filemap_fault`.
            self.read_around(&mut cx, index, want)?;
            return Err(ObjectError::Again);
        };
        self.arrive();
        self.unmark(&frame);
        Ok(frame)
    }
    fn resident(&self, index: u64) -> Option<Frame<'_>> {
        self.cache.get(index).filter(|_| !self.is_arriving(index))
    }
    fn mapped_around(&self, _: sealed::Ours) {
        self.arrive();
    }
    fn in_core(&self, index: u64) -> bool {
        self.cache.get(index).is_some()
    }
    fn notes_writes(&self) -> bool {
        true
    }
    /// Returns true, as ext4 and xfs do.
    fn huge_aligned(&self) -> bool {
        true
    }
    /// Sets the size, as `ext4_setattr` does: mappings are visited even if the file grows. All that
    /// can fail comes before the first change.
    fn truncate(&self, mut cx: CallCx<'_>, size: u64) -> Result<(), ObjectError> {
        check_size(size)?;
        let changing = self.changing.lock();
        let mut cutting = self.cache.cutting(&mut cx);
        let old = self.size();
        // A shorter file shows no more of its last page; a longer one loses the bytes that were
        // stored beyond the old end.
        let end = size.min(old);
        let edge = self.edge(cutting.filling(), end)?;
        if size > old
            && let Some(edge) = &edge
        {
            self.zero_edge(cutting.filling(), edge, rest_of_page(end));
        }
        let resized = SizeChange::set(&self.size, size);
        let despite = cutting.truncate_as(size, Zeroed::Clean);
        resized.done();
        if size <= old {
            self.store.discard(size.div_ceil(PAGE_SIZE), u64::MAX);
            if let Some(edge) = &edge {
                self.zero_edge(cutting.filling(), edge, rest_of_page(end));
            }
        }
        drop(cutting);
        drop(changing);
        despite.resume();
        Ok(())
    }
    /// Punches a hole, as `ext4_punch_hole` does: nothing beyond the block in which the file ends.
    fn punch_hole(&self, mut cx: CallCx<'_>, from: u64, len: u64) -> Result<(), ObjectError> {
        let changing = self.changing.lock();
        let size = self.size();
        let end = from.saturating_add(len);
        if from >= size || from == end {
            return Ok(());
        }
        let end = if end > size {
            size.next_multiple_of(PAGE_SIZE)
        } else {
            end
        };
        let mut cutting = self.cache.cutting(&mut cx);
        let despite = self.make_holes(&mut cutting, from..end)?;
        drop(cutting);
        drop(changing);
        despite.resume();
        Ok(())
    }
    fn sync(&self, mut cx: CallCx<'_>, from: u64, to: u64) -> Result<(), ObjectError> {
        self.write_pages(&mut cx, from..to)
    }
    fn fallocate(
        &self,
        cx: CallCx<'_>,
        mode: FallocateMode,
        from: u64,
        len: u64,
    ) -> Result<(), ObjectError> {
        self.change_range(cx, mode, from, len)
    }
    fn dont_need(&self, mut cx: CallCx<'_>, bytes: Range<u64>) {
        self.drop_unneeded(&mut cx, bytes);
    }
    fn direct(&self, _: sealed::Ours) -> Option<&dyn sealed::Direct> {
        Some(self)
    }
    /// Returns true, as ext4 does; no file here can keep the promise.
    fn knows_sync(&self) -> bool {
        true
    }
    fn read_at(
        &self,
        mut cx: CallCx<'_>,
        offset: u64,
        out: &mut [u8],
    ) -> Result<usize, ObjectError> {
        let size = self.size();
        read_by_page(size, offset, out, |index| {
            match self.read_in(&mut cx, index, || self.pages()) {
                // The page was cut off meanwhile.
                Err(ObjectError::Beyond(_)) => Ok(None),
                page => page.map(|frame| {
                    self.unmark(&frame);
                    Some(frame)
                }),
            }
        })
    }
    /// Writes bytes. A write beyond the end zeroes the bytes that were stored between the old end
    /// and its first byte (`ext4_da_do_write_end`).
    ///
    /// The size grows with each page, under the lock of the page: a write-back, which zeroes what
    /// lies beyond the end, finds the new bytes inside the file, or not there yet.
    fn write_at(
        &self,
        mut cx: CallCx<'_>,
        offset: u64,
        bytes: &[u8],
    ) -> Result<usize, ObjectError> {
        check_write(offset, bytes.len())?;
        if bytes.is_empty() {
            return Ok(0);
        }
        let changing = self.changing.lock();
        let old = self.size();
        let begin = offset - offset % PAGE_SIZE;
        let mut tail = match begin > old {
            true => self.edge(&mut self.cache.filling(&mut cx), old)?,
            false => None,
        };
        let mem = self.cache.host().mem();
        let written = write_by_page(offset, bytes, |index, within, part| {
            let frame = self.read_in(&mut cx, index, || u64::MAX)?;
            self.unmark(&frame);
            if let Some(tail) = tail.take() {
                let mut filling = self.cache.filling(&mut cx);
                self.zero_edge(&mut filling, &tail, rest_of_page(old));
            }
            // The page stays in the cache: `frame` is a reference, and nothing is cut off now.
            let locked = mem.lock(&mut cx, frame);
            if index == begin / PAGE_SIZE && offset > old {
                ByteSpan::of(begin.max(old)..offset).zero(locked.frame());
            }
            locked.frame().write(within, part);
            mem.set_flags(locked.pfn(), FrameFlags::DIRTY);
            let end = index * PAGE_SIZE + (within + part.len()) as u64;
            self.size.fetch_max(end, Ordering::AcqRel);
            Ok(())
        })?;
        drop(changing);
        Ok(written)
    }
    fn write_begun(
        &self,
        mut cx: CallCx<'_>,
        offset: u64,
        bytes: &[u8],
        len: usize,
    ) -> Result<usize, ObjectError> {
        self.write_short(&mut cx, offset, bytes, len)
    }
    fn read_ahead(&self, mut cx: CallCx<'_>, wanted: Range<u64>, before: u64) {
        self.read_on(&mut cx, wanted, before);
    }
    /// Reads the pages of an advice in: `force_page_cache_ra`.
    fn will_need(&self, mut cx: CallCx<'_>, from: u64, to: u64) {
        self.bring_in(&mut cx, from..to.min(from.saturating_add(READ_AHEAD)));
    }
}

impl fmt::Debug for DiskFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiskFile")
            .field("name", &self.name)
            .field("size", &self.size())
            .field("cached", &self.cache.len())
            .finish_non_exhaustive()
    }
}
