//! A file with a page cache: read in around faults, dirtied by stores that its mappings must announce, written back.

use super::{
    Backing, CallCx, FaultCx, Host, MAX_SIZE, MemoryObject, PageCache, Pattern, Store, Want,
    resized::Resized, store::BLOCK,
};
use crate::{
    addr::{PAGE_SIZE, Pfn},
    ctx::{Below, Cx, Sleepable, rank},
    error::ObjectError,
    frame::{Frame, FrameFlags, PhysMem},
    notifier::Access,
    rmap::Mapping,
    sync::{AtomicU64, Mutex, Ordering},
};
use std::{borrow::Cow, fmt, sync::Arc};

/// Pages read at once around a fault that finds nothing (`ra_pages`: 128 KiB).
const READ_AROUND: u64 = 32;

/// A regular file on a block device.
pub struct DiskFile {
    name: Box<str>,
    cache: Arc<PageCache>,
    store: Box<dyn Store>,
    size: AtomicU64,
    /// Excludes writes, changes of the size and holes from each other (`inode_lock`).
    changing: Mutex<()>,
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
        Ok(Arc::new(Self {
            name: name.into(),
            cache: PageCache::new(host, Backing::Store)?,
            store,
            size: AtomicU64::new(size),
            changing: Mutex::default(),
        }))
    }
    /// The store.
    pub fn store(&self) -> &dyn Store {
        &*self.store
    }
    /// Dirty pages in the cache.
    pub fn dirty(&self) -> u64 {
        let mem = self.cache.host().mem();
        let mut at = 0;
        let mut dirty = 0;
        while let Some((index, frame)) = self.cache.next(at, u64::MAX) {
            dirty += u64::from(mem.flags(frame.pfn()).contains(FrameFlags::DIRTY));
            at = index + 1;
        }
        dirty
    }
    fn read_in(&self, index: u64) -> Result<(Frame<'_>, bool), ObjectError> {
        self.cache.get_or_make(index, |frame| {
            let mut block = [0; BLOCK];
            if self.store.read(index, &mut block)? {
                frame.write(0, &block);
            }
            Ok(())
        })
    }
    /// `do_sync_mmap_readahead`: a miss reads in what lies around it too, of code what the mapping has after it.
    fn read_around(&self, index: u64, want: &Want) -> Result<(), ObjectError> {
        let (from, to) = match want.pattern {
            Pattern::Normal => {
                let from = index.saturating_sub(READ_AROUND / 2);
                (from, from + READ_AROUND)
            }
            Pattern::Code => (index, want.mapped.end.min(index + READ_AROUND)),
            Pattern::Sequential => (index, index + READ_AROUND),
            Pattern::Random => (index, index + 1),
        };
        let to = to.min(self.pages());
        for other in from..to {
            // Reading ahead is a favour: what fails is not there.
            let _page = self.read_in(other);
        }
        self.read_in(index).map(|_| ())
    }
    /// Writes one page back if it is dirty: the mappings first lose the right to write, so that no store is missed
    /// (`folio_clear_dirty_for_io`).
    fn write_back<R: Below<rank::Folio>>(
        &self,
        cx: &mut Cx<'_, R, Sleepable>,
        index: u64,
        frame: Frame<'_>,
    ) -> Result<(), ObjectError> {
        let mem = self.cache.host().mem();
        let locked = mem.lock(cx, frame);
        let pfn = locked.pfn();
        if !self.cache.holds(&locked, index) || !mem.flags(pfn).contains(FrameFlags::DIRTY) {
            return Ok(());
        }
        if mem.mapcount(pfn) > 0 {
            let mut cx = cx.descend::<rank::Folio, _>();
            self.mapping().write_protect(mem, &mut cx, index, pfn);
        }
        mem.watch_clean(pfn);
        mem.clear_flags(pfn, FrameFlags::DIRTY);
        let mut block = [0; BLOCK];
        mem.read(pfn, 0, &mut block);
        // What lies beyond the end is not the file's: it is written as zeros.
        let valid = self.size().saturating_sub(index * PAGE_SIZE);
        if let Some(tail) = usize::try_from(valid).ok().and_then(|v| block.get_mut(v..)) {
            tail.fill(0);
        }
        let unwritten = Unwritten { mem, pfn };
        self.store.write(index, &block)?;
        unwritten.done();
        Ok(())
    }
}

/// A page is on its way to the store; it is dirty again unless it got there.
struct Unwritten<'m> {
    mem: &'m PhysMem,
    pfn: Pfn,
}

impl Unwritten<'_> {
    fn done(self) {
        std::mem::forget(self);
    }
}

impl Drop for Unwritten<'_> {
    fn drop(&mut self) {
        self.mem.set_flags(self.pfn, FrameFlags::DIRTY);
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
    fn page(&self, _cx: FaultCx<'_>, index: u64, want: &Want) -> Result<Frame<'_>, ObjectError> {
        if index >= self.pages() {
            return Err(ObjectError::Beyond(index));
        }
        let Some(frame) = self.cache.get(index) else {
            // The mmap lock is let go for that, and the fault begins anew, as in `filemap_fault`.
            self.read_around(index, want)?;
            return Err(ObjectError::Again);
        };
        if want.access == Access::Write {
            self.cache
                .host()
                .mem()
                .set_flags(frame.pfn(), FrameFlags::DIRTY);
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
    /// `ext4_setattr`: mappings are visited even if the file grows.
    fn truncate(&self, mut cx: CallCx<'_>, size: u64) -> Result<(), ObjectError> {
        if size > MAX_SIZE {
            return Err(ObjectError::TooLarge(size));
        }
        let changing = self.changing.lock();
        let resized = Resized::set(&self.size, size);
        if !size.is_multiple_of(PAGE_SIZE) {
            // The rest of the last page must read zero when the file grows again, so it has to be in the cache.
            self.read_in(size / PAGE_SIZE)?;
        }
        self.cache.truncate(&mut cx, size);
        self.store.discard(size.div_ceil(PAGE_SIZE), u64::MAX);
        resized.done();
        drop(changing);
        Ok(())
    }
    /// `ext4_punch_hole`: nothing beyond the end.
    fn punch_hole(&self, mut cx: CallCx<'_>, from: u64, len: u64) -> Result<(), ObjectError> {
        let changing = self.changing.lock();
        let size = self.size();
        if from >= size {
            return Ok(());
        }
        let end = from.saturating_add(len);
        let end = if end > size {
            size.next_multiple_of(PAGE_SIZE)
        } else {
            end
        };
        for edge in [from, end] {
            if !edge.is_multiple_of(PAGE_SIZE) {
                self.read_in(edge / PAGE_SIZE)?;
            }
        }
        self.cache.punch(&mut cx, from, end);
        let (first, last) = (from.div_ceil(PAGE_SIZE), end / PAGE_SIZE);
        if first < last {
            self.store.discard(first, last);
        }
        drop(changing);
        Ok(())
    }
    fn sync(&self, mut cx: CallCx<'_>, from: u64, to: u64) -> Result<(), ObjectError> {
        let mut failed = None;
        let mut at = from;
        while let Some((index, frame)) = self.cache.next(at, to) {
            if let Err(e) = self.write_back(&mut cx, index, frame) {
                failed.get_or_insert(e);
            }
            at = index + 1;
        }
        failed.map_or(Ok(()), Err)
    }
    fn read_at(&self, _cx: CallCx<'_>, offset: u64, out: &mut [u8]) -> Result<usize, ObjectError> {
        let size = self.size();
        self.cache
            .read_bytes(size, offset, out, |index| Ok(Some(self.read_in(index)?.0)))
    }
    fn write_at(&self, _cx: CallCx<'_>, offset: u64, bytes: &[u8]) -> Result<usize, ObjectError> {
        let end = offset.saturating_add(bytes.len() as u64);
        if end > MAX_SIZE {
            return Err(ObjectError::TooLarge(end));
        }
        let changing = self.changing.lock();
        let n = self
            .cache
            .write_bytes(offset, bytes, |index| Ok(self.read_in(index)?.0))?;
        self.size.fetch_max(end, Ordering::AcqRel);
        drop(changing);
        Ok(n)
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
