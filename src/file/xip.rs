//! A file that is used in place: no page cache, its blocks are the frames that are mapped (`filemap_xip`, DAX).
//!
//! A hole reads as one shared sparse page, mapped read-only. The first write to it gives the page a block, and before
//! the new frame is seen anywhere, the sparse page is unmapped from every mapping of that page, window by window
//! (`__xip_unmap`).

use super::{
    Backing, Host, MAX_SIZE, MemoryObject, PageCache, Want, cutting::Zeroed, resized::Resized,
    sealed,
};
use crate::ctx::{CallCx, FaultCx};
use crate::{
    ctx::{Below, Cx, Sleepable, rank},
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
    /// The blocks: what has a frame is no hole.
    blocks: Arc<PageCache>,
    sparse: crate::addr::Pfn,
    size: AtomicU64,
    changing: Mutex<()>,
}

impl XipFile {
    /// A file of `size` bytes, all of it a hole.
    ///
    /// # Errors
    ///
    /// [`ObjectError::TooLarge`], or no memory for it.
    pub fn new(host: &Host, name: &str, size: u64) -> Result<Arc<Self>, ObjectError> {
        if size > MAX_SIZE {
            return Err(ObjectError::TooLarge(size));
        }
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
    /// Pages that are no holes.
    pub fn blocks(&self) -> u64 {
        self.blocks.len()
    }
    fn sparse(&self) -> Frame<'_> {
        self.blocks.host().mem().get(self.sparse)
    }
    /// Gives page `index` a block. The sparse page goes from everywhere first. `ends`: pages that the file has.
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
        // The lock of the sparse page keeps faults from mapping it again before the block is there.
        let locked = self.blocks.host().mem().lock(filling.cx(), self.sparse());
        if let Some(frame) = self.blocks.get(index) {
            return Ok(frame);
        }
        // Before there is a block, so that the page is one or the other also when a driver panics.
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
    fn page(&self, mut cx: FaultCx<'_>, index: u64, want: &Want) -> Result<Frame<'_>, ObjectError> {
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
            // A block that came meanwhile has driven the sparse page out.
            self.blocks.get(index).is_none() && index < self.pages()
        } else {
            self.blocks.holds(locked, index)
        }
    }
    /// Nothing is mapped around: each page is a fault of its own, as with `filemap_xip`.
    fn resident(&self, _index: u64) -> Option<Frame<'_>> {
        None
    }
    fn notes_writes(&self) -> bool {
        true
    }
    fn truncate(&self, mut cx: CallCx<'_>, size: u64) -> Result<(), ObjectError> {
        if size > MAX_SIZE {
            return Err(ObjectError::TooLarge(size));
        }
        let changing = self.changing.lock();
        let mut cutting = self.blocks.cutting(&mut cx);
        let resized = Resized::set(&self.size, size);
        let old = resized.old();
        let mut despite = Despite::default();
        if size < old {
            // Who has asked for the old size, and maps the sparse page under its lock, is done: he is met below.
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
        self.blocks
            .read_bytes(size, offset, out, |index| Ok(self.blocks.get(index)))
    }
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
        let written =
            self.blocks
                .write_bytes(offset, bytes, |index| match self.blocks.get(index) {
                    Some(frame) => Ok(frame),
                    None => self.fill(&mut cx, index, || u64::MAX),
                })?;
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
