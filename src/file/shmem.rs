//! Shared memory: an object whose pages are in memory and in swap alone, named (`memfd`) or not
//! (`MAP_SHARED | MAP_ANONYMOUS`).

use super::{
    Backing, ByDaemon, FallocateMode, Host, HugePolicy, MAX_SIZE, MemoryObject, PageCache,
    PageRequest,
    cutting::Zeroed,
    huge_policy::PageNeed,
    io::{pages_of, read_by_page, within_page},
    locked::{LockedPages, MemoryLock},
    object::{check_size, check_write},
    sealed,
    seals::SealState,
    size_change::SizeChange,
};
use crate::{
    addr::PAGE_SIZE,
    ctx::{CallCx, FaultCx},
    error::{NoMemory, ObjectError},
    frame::{Frame, FrameLock},
    rmap::Mapping,
    sync::{AtomicU64, Despite, Ordering},
};
use std::{borrow::Cow, fmt, ops::Range, sync::Arc};

/// The name of shared anonymous memory in `/proc/PID/maps`.
pub(crate) const ANONYMOUS: &str = "/dev/zero (deleted)";

/// A piece of shared memory: all mappings share its pages.
pub struct Shmem {
    name: Box<str>,
    cache: Arc<PageCache>,
    size: AtomicU64,
    /// The sizes in which pages come in.
    policy: HugePolicy,
    seals: SealState,
    /// The mappings are attachments of a segment, which counts them.
    is_segment: bool,
    /// Set while the object is locked in memory.
    locked: MemoryLock,
    /// The number of committed pages that the object gives back when it is dropped; 0 if none were
    /// committed for it.
    charged: u64,
}

impl Shmem {
    /// Creates an object of `size` bytes, all of it a hole: `memfd_create` and `ftruncate`.
    ///
    /// # Errors
    ///
    /// [`ObjectError::TooLarge`], or no memory for the object.
    pub fn memfd(host: &Host, name: &str, size: u64) -> Result<Arc<Self>, ObjectError> {
        check_size(size)?;
        Ok(Arc::new(Self::plain(host, &memfd_name(name), size)?))
    }
    /// Creates an object like [`memfd`](Self::memfd) that takes seals
    /// ([`File::add_seals`](super::File::add_seals)): `memfd_create(MFD_ALLOW_SEALING)`.
    ///
    /// # Errors
    ///
    /// Those of [`memfd`](Self::memfd).
    pub fn sealable(host: &Host, name: &str, size: u64) -> Result<Arc<Self>, ObjectError> {
        check_size(size)?;
        let mut made = Self::plain(host, &memfd_name(name), size)?;
        made.seals = SealState::new(&made.cache, true);
        Ok(Arc::new(made))
    }
    /// Creates the memory of a segment, which takes over a commitment of `charged` pages.
    ///
    /// # Errors
    ///
    /// [`NoMemory::Object`]; the caller keeps the commitment then.
    pub(crate) fn segment(
        host: &Host,
        name: &str,
        size: u64,
        charged: u64,
    ) -> Result<Arc<Self>, NoMemory> {
        let mut made = Self::plain(host, name, size)?;
        (made.is_segment, made.charged) = (true, charged);
        Ok(Arc::new(made))
    }
    fn plain(host: &Host, name: &str, size: u64) -> Result<Self, NoMemory> {
        let cache = PageCache::new(host, Backing::Swap)?;
        Ok(Self {
            name: name.into(),
            seals: SealState::new(&cache, false),
            cache,
            size: AtomicU64::new(size),
            policy: HugePolicy::Never,
            is_segment: false,
            locked: MemoryLock::default(),
            charged: 0,
        })
    }
    /// Creates an object of `size` bytes that takes over a commitment of `charged` pages.
    ///
    /// # Errors
    ///
    /// [`NoMemory::Object`]; the caller keeps the commitment then.
    pub(crate) fn new(
        host: &Host,
        name: &str,
        size: u64,
        charged: u64,
    ) -> Result<Arc<Self>, NoMemory> {
        let mut made = Self::plain(host, name, size)?;
        made.charged = charged;
        Ok(Arc::new(made))
    }
    /// Creates a file of `size` bytes, all of it a hole, in a file system in memory (`tmpfs`) that
    /// is mounted with the policy.
    ///
    /// # Errors
    ///
    /// [`ObjectError::TooLarge`], or no memory for the object.
    pub fn tmpfs(
        host: &Host,
        path: &str,
        size: u64,
        policy: HugePolicy,
    ) -> Result<Arc<Self>, ObjectError> {
        check_size(size)?;
        let mut made = Self::plain(host, path, size)?;
        made.policy = policy;
        Ok(Arc::new(made))
    }
    /// Returns the frame of a page, made in a hole.
    fn frame(
        &self,
        mut cx: FaultCx<'_>,
        index: u64,
        want: &PageRequest,
    ) -> Result<Frame<'_>, ObjectError> {
        let ready = self.cache.get(index).filter(|_| index < self.pages());
        if let Some(frame) = ready {
            return Ok(frame);
        }
        let mut filling = self.cache.filling(&mut cx);
        if index >= self.pages() {
            return Err(ObjectError::Beyond(index));
        }
        filling.get_or_make_as(index, (self.policy, self.size()), PageNeed::Fault(want))
    }
    /// Keeps the pages from reclaim: [`MemoryLock::lock`].
    pub(crate) fn lock(&self, all: &Arc<LockedPages>, most: u64) -> bool {
        self.locked.lock(&self.cache, (self.pages(), most), all)
    }
    /// Lets reclaim have them again.
    pub(crate) fn unlock(&self) {
        self.locked.unlock(&self.cache);
    }
    /// Gives a frame to each page that has none. If one cannot be had, those go again that were
    /// not used since.
    fn reserve(&self, cx: &mut CallCx<'_>, pages: Range<u64>, end: u64) -> Result<(), ObjectError> {
        let mut filling = self.cache.filling(cx);
        for index in pages.clone() {
            let how = (self.policy, self.size());
            filling.bring_together(index, how, PageNeed::Write(end));
            if let Err(why) = filling.reserve(index) {
                filling.unreserve(pages.start..index);
                return Err(why);
            }
        }
        Ok(())
    }
}

/// Returns the name of a `memfd` in `/proc/PID/maps`.
fn memfd_name(name: &str) -> String {
    format!("/memfd:{name} (deleted)")
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
    fn page(
        &self,
        cx: FaultCx<'_>,
        index: u64,
        want: &PageRequest,
    ) -> Result<Frame<'_>, ObjectError> {
        self.frame(cx, index, want)
    }
    fn together(&self, index: u64, _: sealed::Ours) -> Range<u64> {
        self.cache.together(index)
    }
    fn resident(&self, index: u64) -> Option<Frame<'_>> {
        self.cache.get(index)
    }
    fn has_page(&self, index: u64, _: sealed::Ours) -> bool {
        !self.cache.is_hole(index)
    }
    fn page_there(
        &self,
        mut cx: FaultCx<'_>,
        index: u64,
        _: sealed::Ours,
    ) -> Result<Option<Frame<'_>>, ObjectError> {
        self.cache.filling(&mut cx).get_swapped(index)
    }
    /// Adds the page that userfaultfd gives (`shmem_mfill_atomic_pte`).
    fn provide(
        &self,
        mut cx: FaultCx<'_>,
        index: u64,
        bytes: &[u8],
        _: sealed::Ours,
    ) -> Result<Option<Frame<'_>>, ObjectError> {
        let mut filling = self.cache.filling(&mut cx);
        if index >= self.pages() {
            return Err(ObjectError::Beyond(index));
        }
        let (frame, is_new) = filling.get_or_make(index, |frame| {
            frame.write(0, bytes);
            Ok(())
        })?;
        Ok(is_new.then_some(frame))
    }
    fn is_memory(&self) -> bool {
        true
    }
    fn counts_mappings(&self) -> bool {
        self.is_segment
    }
    fn seal_state(&self, _: sealed::Ours) -> Option<&SealState> {
        Some(&self.seals)
    }
    fn collapse(
        &self,
        mut cx: CallCx<'_>,
        first: u64,
        by: Option<ByDaemon>,
        _: sealed::Ours,
    ) -> Result<(), ObjectError> {
        (self.cache.cutting(&mut cx)).collapse_as(first, (self.policy, self.size()), by)
    }
    fn huge_page(&self, mut cx: FaultCx<'_>, index: u64, _: sealed::Ours) -> Option<FrameLock<'_>> {
        self.cache.lock_huge(&mut cx, index)
    }
    fn is_nameless(&self) -> bool {
        &*self.name == ANONYMOUS
    }
    /// Sets the size, as `shmem_setattr` does: mappings are visited only if whole pages are cut
    /// off. A cut, even to the present size, zeroes the rest of the last page; growing does not.
    fn truncate(&self, mut cx: CallCx<'_>, size: u64) -> Result<(), ObjectError> {
        check_size(size)?;
        let changing = self.seals.change();
        let mut cutting = self.cache.cutting(&mut cx);
        let old = self.size();
        self.seals.check_size(old, size)?;
        if size <= old {
            cutting.bring_edges(size..size)?;
        }
        let resized = SizeChange::set(&self.size, size);
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
        let changing = self.seals.change();
        self.seals.check_punch()?;
        let mut cutting = self.cache.cutting(&mut cx).with_end(self.pages());
        cutting.bring_edges(from..end)?;
        cutting.punch(from, end);
        drop(cutting);
        drop(changing);
        Ok(())
    }
    /// Allocates, or punches a hole; nothing else can be done to memory (`shmem_fallocate`).
    fn fallocate(
        &self,
        mut cx: CallCx<'_>,
        mode: FallocateMode,
        from: u64,
        len: u64,
    ) -> Result<(), ObjectError> {
        let keep = FallocateMode::KEEP_SIZE;
        if mode == FallocateMode::PUNCH_HOLE | keep {
            return self.punch_hole(cx, from, len);
        }
        if !keep.contains(mode) {
            return Err(ObjectError::Unsupported);
        }
        let end = from.saturating_add(len);
        check_size(end)?;
        let changing = self.seals.change();
        self.seals.check_size(self.size(), end.max(self.size()))?;
        self.reserve(&mut cx, pages_of(from..end), end)?;
        if !mode.contains(keep) {
            self.size.fetch_max(end, Ordering::AcqRel);
        }
        drop(changing);
        Ok(())
    }
    /// A page that was reserved, and never used, is read as a hole.
    fn read_at(
        &self,
        mut cx: CallCx<'_>,
        offset: u64,
        out: &mut [u8],
    ) -> Result<usize, ObjectError> {
        let size = self.size();
        read_by_page(size, offset, out, |index| {
            match self.cache.is_reserved(index) {
                true => Ok(None),
                false => self.cache.filling(&mut cx).get_swapped(index),
            }
        })
    }
    fn write_at(
        &self,
        mut cx: CallCx<'_>,
        offset: u64,
        bytes: &[u8],
    ) -> Result<usize, ObjectError> {
        check_write(offset, bytes.len())?;
        let end = offset + bytes.len() as u64;
        if bytes.is_empty() {
            return Ok(0);
        }
        let changing = self.seals.change();
        let write = |cx: &mut CallCx<'_>, index: u64| {
            let part = (index + 1).saturating_mul(PAGE_SIZE).min(end);
            self.seals.check_write(self.size(), part)?;
            let mut filling = self.cache.filling(cx);
            filling.get_or_make_as(index, (self.policy, self.size()), PageNeed::Write(end))
        };
        let written = self.cache.write_bytes(&mut cx, offset, bytes, write)?;
        self.size
            .fetch_max(offset + written as u64, Ordering::AcqRel);
        drop(changing);
        Ok(written)
    }
    /// Writes the available bytes, as `shmem_write_end` does: the page exists and is dirty, and the
    /// file reaches to the last byte that came, or to `offset` if none did.
    fn write_begun(
        &self,
        mut cx: CallCx<'_>,
        offset: u64,
        bytes: &[u8],
        len: usize,
    ) -> Result<usize, ObjectError> {
        check_write(offset, len)?;
        let end = offset + len as u64;
        let changing = self.seals.change();
        self.seals.check_write(self.size(), end)?;
        let mut filling = self.cache.filling(&mut cx);
        let how = (self.policy, self.size());
        let frame = filling.get_or_make_as(offset / PAGE_SIZE, how, PageNeed::Write(end))?;
        self.cache
            .write_page(filling.cx(), frame, within_page(offset), bytes);
        self.size
            .fetch_max(offset + bytes.len() as u64, Ordering::AcqRel);
        drop(filling);
        drop(changing);
        Ok(bytes.len())
    }
    /// Reads the pages of an advice back from swap: `shmem_swapin_range`.
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
