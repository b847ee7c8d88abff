//! Shared memory: an object whose pages live in memory alone, named (`memfd`) or not (`MAP_SHARED | MAP_ANONYMOUS`).

use super::{
    Backing, Host, HugePolicy, MAX_SIZE, MemoryObject, PageCache, Want, cutting::Zeroed,
    huge_policy::Asks, io::within_page, resized::Resized, sealed,
};
use crate::ctx::{CallCx, FaultCx};
use crate::{
    addr::PAGE_SIZE,
    error::{NoMemory, ObjectError},
    frame::{Frame, FrameFlags, FrameLock},
    rmap::Mapping,
    sync::{AtomicU64, Despite, Mutex, Ordering},
};
use std::{borrow::Cow, fmt, ops::Range, sync::Arc};

/// What `/proc/PID/maps` calls shared anonymous memory.
pub(crate) const ANONYMOUS: &str = "/dev/zero (deleted)";

/// Pages shared by everyone who maps them.
pub struct Shmem {
    name: Box<str>,
    cache: Arc<PageCache>,
    size: AtomicU64,
    /// Excludes changes of the size and holes from each other (`inode_lock`).
    changing: Mutex<()>,
    /// Whether pages come in alone.
    policy: HugePolicy,
    /// Promised pages, given back when the object goes; 0 where each page is promised as it comes.
    charged: u64,
}

impl Shmem {
    /// An object of `size` bytes, all of it a hole: what `memfd_create` and `ftruncate` make.
    ///
    /// # Errors
    ///
    /// [`ObjectError::TooLarge`], or no memory for it.
    pub fn memfd(host: &Host, name: &str, size: u64) -> Result<Arc<Self>, ObjectError> {
        if size > MAX_SIZE {
            return Err(ObjectError::TooLarge(size));
        }
        Ok(Self::new(
            host,
            &format!("/memfd:{name} (deleted)"),
            size,
            0,
        )?)
    }
    /// An object of `size` bytes that owns a promise of `charged` pages.
    ///
    /// # Errors
    ///
    /// [`NoMemory::Object`]; the promise stays the caller's then.
    pub(crate) fn new(
        host: &Host,
        name: &str,
        size: u64,
        charged: u64,
    ) -> Result<Arc<Self>, NoMemory> {
        Ok(Arc::new(Self {
            name: name.into(),
            cache: PageCache::new(host, Backing::Swap)?,
            size: AtomicU64::new(size),
            changing: Mutex::default(),
            policy: HugePolicy::Never,
            charged,
        }))
    }
    /// A file of `size` bytes of a file system in memory that was mounted so, all of it a hole.
    ///
    /// # Errors
    ///
    /// [`ObjectError::TooLarge`], or no memory for it.
    pub fn tmpfs(
        host: &Host,
        path: &str,
        size: u64,
        policy: HugePolicy,
    ) -> Result<Arc<Self>, ObjectError> {
        if size > MAX_SIZE {
            return Err(ObjectError::TooLarge(size));
        }
        Ok(Arc::new(Self {
            name: path.into(),
            cache: PageCache::new(host, Backing::Swap)?,
            size: AtomicU64::new(size),
            changing: Mutex::default(),
            policy,
            charged: 0,
        }))
    }
    fn frame(
        &self,
        mut cx: FaultCx<'_>,
        index: u64,
        want: &Want,
    ) -> Result<Frame<'_>, ObjectError> {
        let ready = self.cache.get(index).filter(|_| index < self.pages());
        if let Some(frame) = ready {
            return Ok(frame);
        }
        let mut filling = self.cache.filling(&mut cx);
        if index >= self.pages() {
            return Err(ObjectError::Beyond(index));
        }
        filling.get_or_make_as(index, (self.policy, self.size()), Asks::Fault(want))
    }
}

impl MemoryObject for Shmem {
    fn name(&self) -> Cow<'_, str> {
        Cow::Borrowed(&self.name)
    }
    fn mapping(&self) -> &Arc<Mapping> {
        self.cache.mapping()
    }
    fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }
    fn page(&self, cx: FaultCx<'_>, index: u64, want: &Want) -> Result<Frame<'_>, ObjectError> {
        self.frame(cx, index, want)
    }
    fn together(&self, index: u64, _: sealed::Ours) -> Range<u64> {
        self.cache.together(index)
    }
    fn resident(&self, index: u64) -> Option<Frame<'_>> {
        self.cache.get(index)
    }
    fn is_memory(&self) -> bool {
        true
    }
    fn collapse(&self, mut cx: CallCx<'_>, first: u64, _: sealed::Ours) -> Result<(), ObjectError> {
        let mut cutting = self.cache.cutting(&mut cx);
        cutting.gather(first)
    }
    fn huge_page(&self, mut cx: FaultCx<'_>, index: u64, _: sealed::Ours) -> Option<FrameLock<'_>> {
        self.cache.lock_huge(&mut cx, index)
    }
    fn is_nameless(&self) -> bool {
        &*self.name == ANONYMOUS
    }
    /// `shmem_setattr`: mappings are visited only if whole pages are cut off. A cut, also to the size that it has, zeroes
    /// the rest of the last page; growing does not.
    fn truncate(&self, mut cx: CallCx<'_>, size: u64) -> Result<(), ObjectError> {
        if size > MAX_SIZE {
            return Err(ObjectError::TooLarge(size));
        }
        let changing = self.changing.lock();
        let mut cutting = self.cache.cutting(&mut cx);
        let old = self.size();
        if size <= old {
            cutting.bring_edges(size..size)?;
        }
        let resized = Resized::set(&self.size, size);
        let mut despite = Despite::default();
        if old > size.next_multiple_of(PAGE_SIZE) {
            despite = cutting.truncate_as(size, Zeroed::Dirty);
        } else if size <= old {
            despite = cutting.trim(size);
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
        let mut cutting = self.cache.cutting(&mut cx);
        cutting.bring_edges(from..end)?;
        cutting.punch(from, end);
        drop(cutting);
        drop(changing);
        Ok(())
    }
    fn read_at(
        &self,
        mut cx: CallCx<'_>,
        offset: u64,
        out: &mut [u8],
    ) -> Result<usize, ObjectError> {
        let size = self.size();
        self.cache.read_bytes(size, offset, out, |index| {
            self.cache.filling(&mut cx).get_swapped(index)
        })
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
        let written = self.cache.write_bytes(offset, bytes, |index| {
            let mut filling = self.cache.filling(&mut cx);
            filling.get_or_make_as(index, (self.policy, self.size()), Asks::Write(end))
        })?;
        self.size
            .fetch_max(offset + written as u64, Ordering::AcqRel);
        drop(changing);
        Ok(written)
    }
    /// `shmem_write_end`: the page is there and dirty, and the size what it is by the bytes that came, if only none.
    fn write_begun(
        &self,
        mut cx: CallCx<'_>,
        offset: u64,
        bytes: &[u8],
        len: usize,
    ) -> Result<usize, ObjectError> {
        let end = offset.saturating_add(len as u64);
        if end > MAX_SIZE {
            return Err(ObjectError::TooLarge(end));
        }
        let changing = self.changing.lock();
        let mut filling = self.cache.filling(&mut cx);
        let how = (self.policy, self.size());
        let frame = filling.get_or_make_as(offset / PAGE_SIZE, how, Asks::Write(end))?;
        frame.write(within_page(offset), bytes);
        self.cache
            .host()
            .mem()
            .set_flags(frame.pfn(), FrameFlags::DIRTY);
        self.size
            .fetch_max(offset + bytes.len() as u64, Ordering::AcqRel);
        drop(filling);
        drop(changing);
        Ok(bytes.len())
    }
    /// `shmem_swapin_range`.
    fn will_need(&self, mut cx: CallCx<'_>, from: u64, to: u64) {
        for index in self.cache.swapped(from, to) {
            let _page = self.cache.filling(&mut cx).get_swapped(index);
        }
    }
}

impl fmt::Debug for Shmem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shmem")
            .field("name", &self.name)
            .field("size", &self.size())
            .field("resident", &self.cache.len())
            .finish_non_exhaustive()
    }
}

impl Drop for Shmem {
    fn drop(&mut self) {
        self.cache.host().commit.uncharge(self.charged);
    }
}
