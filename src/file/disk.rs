//! A file with a page cache: read in around faults, dirtied by stores that its mappings must announce, written back.

use super::{
    Backing, Host, MAX_SIZE, MemoryObject, PageCache, Pattern, Store, Want, ahead::STRETCH,
    cache::WriteBack, cutting::Zeroed, edges::rest_of_page, io::Reach, resized::Resized,
    store::BLOCK,
};
use crate::ctx::{CallCx, FaultCx, FolioCx};

use crate::{
    addr::{PAGE_SIZE, Pfn},
    ctx::{Below, Cx, Sleepable, rank},
    error::ObjectError,
    frame::{Frame, FrameFlags, FrameLock, PhysMem},
    notifier::Access,
    rmap::Mapping,
    sync::{AtomicU64, Mutex, Ordering},
};
use std::{borrow::Cow, fmt, ops::Range, sync::Arc};

/// Pages read at once around a fault that finds nothing.
const READ_AROUND: u64 = STRETCH;
/// The most pages that one advice reads (`io_pages`: 1280 KiB).
const READ_AHEAD: u64 = 320;

/// A regular file on a block device, with blocks of a page each, as on ext4.
///
/// Guarantee: bytes beyond the end read zero when the file grows over them, by whatever way; an operation that fails
/// has changed neither size nor contents.
pub struct DiskFile {
    name: Box<str>,
    pub(super) cache: Arc<PageCache>,
    pub(super) store: Box<dyn Store>,
    pub(super) size: AtomicU64,
    /// Excludes writes, changes of the size and holes from each other (`inode_lock`).
    pub(super) changing: Mutex<()>,
}

impl DiskFile {
    /// A file of `size` bytes whose blocks are those of `store`.
    ///
    /// # Errors
    ///
    /// [`ObjectError::TooLarge`], or no memory for it.
    pub fn new(
        host: &Host,
        name: &str,
        size: u64,
        store: Box<dyn Store>,
    ) -> Result<Arc<Self>, ObjectError> {
        if size > MAX_SIZE {
            return Err(ObjectError::TooLarge(size));
        }
        let file = Arc::new(Self {
            name: name.into(),
            cache: PageCache::new(host, Backing::Store)?,
            store,
            size: AtomicU64::new(size),
            changing: Mutex::default(),
        });
        let writer: std::sync::Weak<Self> = Arc::downgrade(&file);
        file.cache.set_writer(writer);
        Ok(file)
    }
    /// The store.
    pub fn store(&self) -> &dyn Store {
        &*self.store
    }
    /// Dirty pages in the cache.
    pub fn dirty(&self) -> u64 {
        let mut at = 0;
        let mut dirty = 0;
        while let Some((index, frame)) = self.cache.next(at, u64::MAX) {
            dirty += u64::from(self.is_dirty(&frame));
            at = index + 1;
        }
        dirty
    }
    fn is_dirty(&self, frame: &Frame<'_>) -> bool {
        let flags = self.cache.host().mem().flags(frame.pfn());
        flags.contains(FrameFlags::DIRTY)
    }
    /// The page, read if it is not there. `ends`: pages that the file has.
    fn read_in<R: Below<rank::Cache>>(
        &self,
        cx: &mut Cx<'_, R, Sleepable>,
        index: u64,
        ends: impl Fn() -> u64,
    ) -> Result<Frame<'_>, ObjectError> {
        let mut filling = self.cache.filling(cx);
        // Asked only now: nobody cuts the file meanwhile.
        if index >= ends() {
            return Err(ObjectError::Beyond(index));
        }
        let read = |frame: &Frame<'_>| {
            let mut block = [0; BLOCK];
            // What was read and zeroed in part is newer than the block.
            if !self.is_dirty(frame) && self.store.read(index, &mut block)? {
                frame.write(0, &block);
            }
            Ok(())
        };
        Ok(filling.get_or_make(index, read)?.0)
    }
    /// `do_sync_mmap_readahead`: a miss reads in what lies around it too, of code what the mapping has after it. A page
    /// that is there, but not up to date, is read alone.
    fn read_around(
        &self,
        cx: &mut FaultCx<'_>,
        index: u64,
        want: &Want,
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
        self.bring_in(cx, from..to);
        self.read_in(cx, index, || self.pages()).map(|_| ())
    }
    /// Reads pages that are not there. It is a favour: what fails is not there, and what is there is left as it is.
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
    /// Writes one page back if it is dirty.
    fn write_page<R: Below<rank::Folio>>(
        &self,
        cx: &mut Cx<'_, R, Sleepable>,
        index: u64,
        frame: Frame<'_>,
    ) -> Result<(), ObjectError> {
        let locked = self.cache.host().mem().lock(cx, frame);
        if !self.cache.holds(&locked, index) || !self.is_dirty(locked.frame()) {
            return Ok(());
        }
        self.write_back(&mut cx.descend(), &locked, index)
    }
}

/// Dirty again, unless it was written.
struct Redirty<'m>(&'m PhysMem, Pfn);

impl Drop for Redirty<'_> {
    fn drop(&mut self) {
        self.0.set_flags(self.1, FrameFlags::DIRTY);
    }
}

impl WriteBack for DiskFile {
    /// The mappings first lose the right to write, so that no store is missed (`folio_clear_dirty_for_io`). What lies
    /// beyond the end is not the file's: it is zeroed, in the page itself, so that every mapping shows it at once
    /// (`ext4_bio_write_folio`).
    fn write_back(
        &self,
        cx: &mut FolioCx<'_>,
        locked: &FrameLock<'_>,
        index: u64,
    ) -> Result<(), ObjectError> {
        let mem = self.cache.host().mem();
        let pfn = locked.pfn();
        if mem.mapcount(pfn) > 0 {
            self.mapping().write_protect(mem, cx, index, pfn);
        }
        mem.watch_clean(pfn);
        mem.clear_flags(pfn, FrameFlags::DIRTY | FrameFlags::RECLAIM);
        let failed = Redirty(mem, pfn);
        let begin = index * PAGE_SIZE;
        let end = self.size().max(begin);
        if end < begin + PAGE_SIZE {
            Reach::of(end..begin + PAGE_SIZE).zero(locked.frame());
        }
        let mut block = [0; BLOCK];
        mem.read(pfn, 0, &mut block);
        self.store.write(index, &block)?;
        std::mem::forget(failed);
        Ok(())
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
    fn page(&self, mut cx: FaultCx<'_>, index: u64, want: &Want) -> Result<Frame<'_>, ObjectError> {
        if index >= self.pages() {
            return Err(ObjectError::Beyond(index));
        }
        let Some(frame) = self.cache.get(index) else {
            // The mmap lock is let go for that, and the fault begins anew, as in `filemap_fault`.
            self.read_around(&mut cx, index, want)?;
            return Err(ObjectError::Again);
        };
        let mem = self.cache.host().mem();
        if mem.flags(frame.pfn()).contains(FrameFlags::RECLAIM) {
            mem.clear_flags(frame.pfn(), FrameFlags::RECLAIM);
        }
        if want.access == Access::Write {
            mem.set_flags(frame.pfn(), FrameFlags::DIRTY);
        }
        Ok(frame)
    }
    fn resident(&self, index: u64) -> Option<Frame<'_>> {
        self.cache.get(index)
    }
    fn notes_writes(&self) -> bool {
        true
    }
    /// As ext4 and xfs have it.
    fn huge_aligned(&self) -> bool {
        true
    }
    /// `ext4_setattr`: mappings are visited even if the file grows. What can fail comes first.
    fn truncate(&self, mut cx: CallCx<'_>, size: u64) -> Result<(), ObjectError> {
        if size > MAX_SIZE {
            return Err(ObjectError::TooLarge(size));
        }
        let changing = self.changing.lock();
        let mut cutting = self.cache.cutting(&mut cx);
        let old = self.size();
        // What is cut shows no more of its last page; what grows loses what was stored beyond the old end.
        let end = size.min(old);
        let edge = self.edge(cutting.filling(), end)?;
        if size > old
            && let Some(edge) = &edge
        {
            self.zero_edge(cutting.filling(), edge, rest_of_page(end));
        }
        let resized = Resized::set(&self.size, size);
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
    /// `ext4_punch_hole`: nothing beyond the block in which the file ends.
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
        let (first, last) = (from.div_ceil(PAGE_SIZE), end / PAGE_SIZE);
        let low = self.edge(cutting.filling(), from)?;
        let high = match last < first {
            true => None, // The hole lies inside of one block.
            false => self.edge(cutting.filling(), end)?,
        };
        let despite = cutting.punch_as(from, end, Zeroed::Clean);
        if let Some(edge) = low {
            self.zero_edge(cutting.filling(), &edge, from..end.min(first * PAGE_SIZE));
        }
        if let Some(edge) = high {
            self.zero_edge(cutting.filling(), &edge, last * PAGE_SIZE..end);
        }
        if first < last {
            self.store.discard(first, last);
        }
        drop(cutting);
        drop(changing);
        despite.resume();
        Ok(())
    }
    fn sync(&self, mut cx: CallCx<'_>, from: u64, to: u64) -> Result<(), ObjectError> {
        let mut failed = None;
        let mut at = from;
        while let Some((index, frame)) = self.cache.next(at, to) {
            // A page that is being read is locked, and not dirty: it is not waited for.
            if self.is_dirty(&frame)
                && let Err(e) = self.write_page(&mut cx, index, frame)
            {
                failed.get_or_insert(e);
            }
            at = index + 1;
        }
        failed.map_or(Ok(()), Err)
    }
    fn read_at(
        &self,
        mut cx: CallCx<'_>,
        offset: u64,
        out: &mut [u8],
    ) -> Result<usize, ObjectError> {
        let size = self.size();
        self.cache.read_bytes(size, offset, out, |index| {
            match self.read_in(&mut cx, index, || self.pages()) {
                // Cut off meanwhile.
                Err(ObjectError::Beyond(_)) => Ok(None),
                page => page.map(Some),
            }
        })
    }
    /// Beyond the end: what was stored between the old end and the first byte goes (`ext4_da_do_write_end`).
    fn write_at(
        &self,
        mut cx: CallCx<'_>,
        offset: u64,
        bytes: &[u8],
    ) -> Result<usize, ObjectError> {
        let end = offset.saturating_add(bytes.len() as u64);
        if end > MAX_SIZE {
            return Err(ObjectError::TooLarge(end));
        }
        if bytes.is_empty() {
            return Ok(0);
        }
        let changing = self.changing.lock();
        let old = self.size();
        let begin = offset - offset % PAGE_SIZE;
        let tail = match begin > old {
            true => self.edge(&mut self.cache.filling(&mut cx), old)?,
            false => None,
        };
        let written = self.cache.write_bytes(offset, bytes, |index| {
            let frame = self.read_in(&mut cx, index, || u64::MAX)?;
            if index == begin / PAGE_SIZE && offset > old {
                Reach::of(begin.max(old)..offset).zero(&frame);
            }
            Ok(frame)
        })?;
        if let Some(tail) = tail {
            let mut filling = self.cache.filling(&mut cx);
            self.zero_edge(&mut filling, &tail, rest_of_page(old));
        }
        self.size
            .fetch_max(offset + written as u64, Ordering::AcqRel);
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
    /// `force_page_cache_ra`.
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
