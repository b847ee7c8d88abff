//! Files that are used in place: without a page cache, mappings show the blocks themselves
//! (`filemap_xip`, DAX).
//!
//! A hole reads as one shared sparse page, mapped read-only. The first write to a page gives it a
//! block; before the new frame can be seen, the sparse page is unmapped from every mapping of that
//! page, window by window (`__xip_unmap`). The lock of the sparse page serializes that with faults.

use super::{
    Backing, Host, MAX_SIZE, MemoryObject, PageCache, PageRequest,
    cutting::Zeroed,
    io::read_by_page,
    object::{check_size, check_write},
    sealed,
    size_change::SizeChange,
};
use crate::{
    ctx::{Below, CallCx, Cx, FaultCx, Sleepable, rank},
    error::{NoMemory, ObjectError},
    frame::{Frame, FrameFlags, FrameLock, Owner, SPARSE_INDEX},
    notifier::Access,
    rmap::Mapping,
    sync::{AtomicU64, Despite, Mutex, Ordering},
};
use std::{borrow::Cow, fmt, sync::Arc};

/// A file on memory that the processor addresses.
pub struct XipFile {
    name: Box<str>,
    /// The blocks: a page with a frame is no hole.
    blocks: Arc<PageCache>,
    /// The page that every hole shows.
    sparse: crate::addr::Pfn,
    size: AtomicU64,
    changing: Mutex<()>,
}

impl XipFile {
    /// Creates a file of `size` bytes, all of it a hole.
    ///
    /// # Errors
    ///
    /// [`ObjectError::TooLarge`], or no memory for the object.
    pub fn new(host: &Host, name: &str, size: u64) -> Result<Arc<Self>, ObjectError> {
        check_size(size)?;
        let blocks = PageCache::new(host, Backing::Nothing)?;
        let sparse = host.mem().alloc().map_err(|_| NoMemory::Frame)?;
        let owner = Owner {
            index: SPARSE_INDEX,
            ..blocks.mapping().owner(0)
        };
        host.mem().set_owner(sparse.pfn(), Some(owner));
        let sparse = sparse.into_raw();
        Ok(Arc::new(Self {
            name: name.into(),
            blocks,
            sparse,
            size: AtomicU64::new(size),
            changing: Mutex::default(),
        }))
    }
    /// Returns the number of pages that are not holes.
    pub fn blocks(&self) -> u64 {
        self.blocks.len()
    }
    /// Returns a reference on the sparse page.
    fn sparse(&self) -> Frame<'_> {
        self.blocks.host().mem().get(self.sparse)
    }
    /// Gives page `index` a block, after the sparse page was unmapped there. `ends` returns the
    /// number of pages of the file.
    fn fill<R: Below<rank::Cache>>(
        &self,
        cx: &mut Cx<'_, R, Sleepable>,
        index: u64,
        ends: impl Fn() -> u64,
    ) -> Result<Frame<'_>, ObjectError> {
        let mut filling = self.blocks.filling(cx);
        if index >= ends() {
            return Err(ObjectError::Beyond(index));
        }
        // Locked until the block exists: a fault cannot map the sparse page there again before.
        let locked = self.blocks.host().mem().lock(filling.cx(), self.sparse());
        if let Some(frame) = self.blocks.get(index) {
            return Ok(frame);
        }
        // Before the block exists, so that the page is a hole or a block even if a driver panics.
        let mem = self.blocks.host().mem();
        let mut cx = filling.cx().descend::<rank::Folio, _>();
        self.mapping().unmap_frame(mem, &mut cx, index, self.sparse);
        let (frame, _new) = filling.get_or_make(index, |_| Ok(()))?;
        drop(locked);
        Ok(frame)
    }
}

impl MemoryObject for XipFile {
    fn name(&self) -> Cow<'_, str> {
        Cow::Borrowed(&self.name)
    }
    fn mapping(&self) -> &Arc<Mapping> {
        self.blocks.mapping()
    }
    fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }
    fn page(
        &self,
        mut cx: FaultCx<'_>,
        index: u64,
        want: &PageRequest,
    ) -> Result<Frame<'_>, ObjectError> {
        if index >= self.pages() {
            return Err(ObjectError::Beyond(index));
        }
        match (self.blocks.get(index), want.access) {
            (Some(frame), _) => Ok(frame),
            (None, Access::Read) => Ok(self.sparse()),
            (None, Access::Write) => self.fill(&mut cx, index, || self.pages()),
        }
    }
    fn is_page(&self, locked: &FrameLock<'_>, index: u64, _: sealed::Ours) -> bool {
        if locked.pfn() == self.sparse {
            // A block that came meanwhile has replaced the sparse page.
            self.blocks.get(index).is_none() && index < self.pages()
        } else {
            self.blocks.holds(locked, index)
        }
    }
    /// Returns no page: each is a fault of its own, as with `filemap_xip`.
    fn resident(&self, _index: u64) -> Option<Frame<'_>> {
        None
    }
    fn notes_writes(&self) -> bool {
        true
    }
    fn truncate(&self, mut cx: CallCx<'_>, size: u64) -> Result<(), ObjectError> {
        check_size(size)?;
        let changing = self.changing.lock();
        let mut cutting = self.blocks.cutting(&mut cx);
        let resized = SizeChange::set(&self.size, size);
        let old = resized.old();
        let mut despite = Despite::default();
        if size < old {
            // A fault that has read the old size maps the sparse page under this lock: it is
            // finished now, and the cut below finds its entry.
            let mem = self.blocks.host().mem();
            drop(mem.lock(cutting.filling().cx(), self.sparse()));
            despite = cutting.truncate_as(size, Zeroed::Dirty);
        }
        resized.done();
        drop(cutting);
        drop(changing);
        despite.resume();
        Ok(())
    }
    fn punch_hole(&self, mut cx: CallCx<'_>, from: u64, len: u64) -> Result<(), ObjectError> {
        let end = from.saturating_add(len).min(MAX_SIZE);
        if from >= end {
            return Ok(());
        }
        let changing = self.changing.lock();
        self.blocks.cutting(&mut cx).punch(from, end);
        drop(changing);
        Ok(())
    }
    fn read_at(&self, _cx: CallCx<'_>, offset: u64, out: &mut [u8]) -> Result<usize, ObjectError> {
        let size = self.size();
        read_by_page(size, offset, out, |index| Ok(self.blocks.get(index)))
    }
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
        let block = |cx: &mut CallCx<'_>, index: u64| match self.blocks.get(index) {
            Some(frame) => Ok(frame),
            None => self.fill(cx, index, || u64::MAX),
        };
        let written = self.blocks.write_bytes(&mut cx, offset, bytes, block)?;
        self.size
            .fetch_max(offset + written as u64, Ordering::AcqRel);
        drop(changing);
        Ok(written)
    }
}

impl fmt::Debug for XipFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("XipFile")
            .field("name", &self.name)
            .field("size", &self.size())
            .field("blocks", &self.blocks.len())
            .finish_non_exhaustive()
    }
}

impl Drop for XipFile {
    fn drop(&mut self) {
        let mem = self.blocks.host().mem();
        mem.clear_flags(self.sparse, FrameFlags::DIRTY);
        mem.set_owner(self.sparse, None);
        drop(mem.adopt(self.sparse));
    }
}
