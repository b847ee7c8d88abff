//! A file of huge pages from a pool (`fs/hugetlbfs/inode.c`): a `memfd` with `MFD_HUGETLB`, or the
//! nameless file behind a mapping with `MAP_HUGETLB`.
//!
//! Guarantee: a page that is cut off is mapped nowhere. A fault maps a page while it holds the
//! [pages](HugetlbFile::with_page) of the file; a page leaves them under the same lock, if nothing
//! maps it.
//!
//! The pages of a private mapping do not belong to the file, except those that it only reads.

use super::{
    FallocateMode, Host, MAX_SIZE, MemoryObject, PageRequest, io::read_by_page, object::check_size,
    sealed, size_change::SizeChange,
};
use crate::{
    addr::{PAGE_SIZE, Pfn},
    ctx::{CallCx, FaultCx},
    error::{NoMemory, ObjectError},
    frame::{AllocKind, Claim, Frame, FrameFlags, HugeSize, PoolPage, ResvMap},
    rmap::{EvenCows, Mapping},
    sync::{AtomicU64, Despite, Mutex, MutexGuard, Ordering},
};
use std::{
    any::Any,
    borrow::Cow,
    collections::BTreeMap,
    fmt,
    sync::{Arc, Weak},
};

/// The name of a mapping with `MAP_HUGETLB` in `/proc/PID/maps`.
const NAMELESS: &str = "/anon_hugepage (deleted)";

/// A file of huge pages.
pub struct HugetlbFile {
    name: Box<str>,
    pub(super) host: Host,
    pub(super) huge: HugeSize,
    /// The file of a segment, whose pages were promised when it was made.
    is_segment: bool,
    pub(super) mapping: Arc<Mapping>,
    size: AtomicU64,
    /// The first frames of the pages, by index in huge pages.
    pub(super) pages: Mutex<BTreeMap<u64, Pfn>>,
    /// The pages with a reservation, used or not.
    pub(super) reserved: Arc<ResvMap>,
    /// Serializes faults, so that none finds the pool empty because another has taken the same
    /// page (`hugetlb_fault_mutex_table`).
    pub(super) faulting: Mutex<()>,
    /// Serializes changes of the size (`inode_lock`).
    changing: Mutex<()>,
}

impl HugetlbFile {
    /// Creates a file of `size` bytes, all of it a hole: `memfd_create` with `MFD_HUGETLB`, and
    /// `ftruncate`. Reserves nothing.
    ///
    /// # Errors
    ///
    /// [`ObjectError::TooLarge`], [`ObjectError::NotWhole`], or no memory for the object.
    pub fn memfd(
        host: &Host,
        name: &str,
        size: u64,
        huge: HugeSize,
    ) -> Result<Arc<Self>, ObjectError> {
        check_size(size)?;
        let file = Self::new(host, &format!("/memfd:{name} (deleted)"), size, huge)?;
        file.check_whole(size)?;
        Ok(file)
    }
    /// Creates the file of a mapping with `MAP_HUGETLB`.
    ///
    /// # Errors
    ///
    /// [`NoMemory::Object`].
    pub(crate) fn nameless(host: &Host, size: u64, huge: HugeSize) -> Result<Arc<Self>, NoMemory> {
        Self::new(host, NAMELESS, size, huge)
    }
    /// Creates the file of a segment, and promises its pages unless told not to
    /// (`hugetlb_file_setup`). Its mappings promise none.
    ///
    /// # Errors
    ///
    /// [`ObjectError::NoHugePage`], or no memory for the object.
    pub(crate) fn segment(
        host: &Host,
        name: &str,
        (size, huge): (u64, HugeSize),
        reserves: bool,
    ) -> Result<Arc<Self>, ObjectError> {
        let mut made = Self::make_new(host, name, size, huge)?;
        made.is_segment = true;
        if reserves && !made.reserve_shared(0..size / made.bytes()) {
            return Err(ObjectError::NoHugePage);
        }
        Ok(Self::shared(made))
    }
    fn shared(made: Self) -> Arc<Self> {
        let made = Arc::new(made);
        let keeper: Weak<Self> = Arc::downgrade(&made);
        made.mapping.set_keeper(keeper);
        made
    }
    /// Creates a file with a name, of whole pages.
    ///
    /// # Errors
    ///
    /// [`NoMemory::Object`].
    pub(crate) fn new(
        host: &Host,
        name: &str,
        size: u64,
        huge: HugeSize,
    ) -> Result<Arc<Self>, NoMemory> {
        Ok(Self::shared(Self::make_new(host, name, size, huge)?))
    }
    fn make_new(host: &Host, name: &str, size: u64, huge: HugeSize) -> Result<Self, NoMemory> {
        let inject = host.mem.inject();
        inject
            .check(AllocKind::Object)
            .map_err(|_| NoMemory::Object)?;
        Ok(Self {
            name: name.into(),
            host: host.clone(),
            huge,
            is_segment: false,
            mapping: host.mapping(),
            size: AtomicU64::new(size),
            pages: Mutex::default(),
            reserved: Arc::default(),
            faulting: Mutex::default(),
            changing: Mutex::default(),
        })
    }
    /// Returns an object as the file of huge pages that it is.
    pub(crate) fn of(object: &dyn MemoryObject) -> Option<&Self> {
        object.of_a_pool(sealed::Ours)?.downcast_ref()
    }
    /// Returns the size of the pages.
    pub fn huge_size(&self) -> HugeSize {
        self.huge
    }
    /// Returns true for the file of a segment.
    pub(crate) fn is_segment(&self) -> bool {
        self.is_segment
    }
    /// Returns the number of bytes in a page.
    pub(super) fn bytes(&self) -> u64 {
        self.huge.pages() * PAGE_SIZE
    }
    /// Returns the frame of small page `index` in the huge page that begins with `head`.
    pub(super) fn part(&self, head: Pfn, index: u64) -> Pfn {
        let nth = index % self.huge.pages();
        head.nth(u32::try_from(nth).expect("within a huge page"))
    }
    fn check_whole(&self, size: u64) -> Result<(), ObjectError> {
        match size.is_multiple_of(self.bytes()) {
            true => Ok(()),
            false => Err(ObjectError::NotWhole(size)),
        }
    }

    /// Makes the file as long as a writable mapping reaches.
    pub(crate) fn grow_to(&self, size: u64) {
        let _changing = self.changing.lock();
        self.size.fetch_max(size, Ordering::AcqRel);
    }

    /// Keeps other faults out.
    pub(crate) fn serialize(&self) -> MutexGuard<'_, ()> {
        self.faulting.lock()
    }
    /// Runs `f` on the first frame of page `index`, which stays in the file meanwhile.
    pub(crate) fn with_page<T>(&self, index: u64, f: impl FnOnce(Option<Pfn>) -> T) -> T {
        let pages = self.pages.lock();
        f(pages.get(&index).copied())
    }
    /// Makes page `index` if the file has none and does not end before it. The caller keeps other
    /// faults out.
    ///
    /// # Errors
    ///
    /// [`ObjectError::Beyond`], [`ObjectError::NoHugePage`].
    pub(crate) fn make(&self, index: u64) -> Result<(), ObjectError> {
        self.allocate(index, || self.check_inside(index))
    }
    /// Returns true if the file has page `index`.
    pub(crate) fn has(&self, index: u64) -> bool {
        self.with_page(index, |page| page.is_some())
    }
    /// Makes page `index` if the file has none and `check` allows it, before and after a page was
    /// taken: the file may be cut meanwhile. The caller keeps other faults out.
    fn allocate(
        &self,
        index: u64,
        check: impl Fn() -> Result<(), ObjectError>,
    ) -> Result<(), ObjectError> {
        if self.has(index) {
            return Ok(());
        }
        check()?;
        let page = self.take(Claim::File(Arc::clone(&self.reserved), index))?;
        self.insert(index, page, check)
    }
    /// Fills the hole at page `index` with these bytes. Returns false if the file has the page. The
    /// caller keeps other faults out.
    ///
    /// # Errors
    ///
    /// [`ObjectError::NoHugePage`], [`ObjectError::Beyond`]; the file has no page then.
    pub(crate) fn provide(&self, index: u64, bytes: &[u8]) -> Result<bool, ObjectError> {
        if self.has(index) {
            return Ok(false);
        }
        let page = self.take(Claim::File(Arc::clone(&self.reserved), index))?;
        page.write(bytes);
        self.insert(index, page, || self.check_inside(index))?;
        Ok(true)
    }
    fn insert(
        &self,
        index: u64,
        page: PoolPage,
        check: impl Fn() -> Result<(), ObjectError>,
    ) -> Result<(), ObjectError> {
        let first = self.mapping.owner(index * self.huge.pages());
        let mut pages = self.pages.lock();
        check()?;
        page.own(FrameFlags::DIRTY, first);
        pages.insert(index, page.keep());
        Ok(())
    }
    /// Checks that page `index` lies before the end.
    pub(crate) fn check_inside(&self, index: u64) -> Result<(), ObjectError> {
        match index < self.size() / self.bytes() {
            true => Ok(()),
            false => Err(ObjectError::Beyond(index)),
        }
    }
    /// Takes a page out of the pool. The caller keeps other faults out.
    pub(crate) fn take(&self, claim: Claim) -> Result<PoolPage, ObjectError> {
        let page = self.host.mem.take_huge(self.huge, claim);
        page.ok_or(ObjectError::NoHugePage)
    }
}

impl MemoryObject for HugetlbFile {
    fn name(&self) -> Cow<'_, str> {
        Cow::Borrowed(&self.name)
    }
    fn mapping(&self) -> &Arc<Mapping> {
        &self.mapping
    }
    fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }
    /// Never asked: faults on huge pages have a way of their own.
    fn page(&self, _: FaultCx<'_>, index: u64, _: &PageRequest) -> Result<Frame<'_>, ObjectError> {
        Err(ObjectError::NotItsPage(index))
    }
    fn resident(&self, index: u64) -> Option<Frame<'_>> {
        self.with_page(index / self.huge.pages(), |page| {
            page.map(|head| self.host.mem.get(self.part(head, index)))
        })
    }
    fn of_a_pool(&self, _: sealed::Ours) -> Option<&dyn Any> {
        Some(self)
    }
    fn counts_mappings(&self) -> bool {
        self.is_segment
    }
    /// Sets the size (`hugetlb_vmtruncate`). Every mapping is visited from there on, also when the
    /// file grows.
    fn truncate(&self, mut cx: CallCx<'_>, size: u64) -> Result<(), ObjectError> {
        check_size(size)?;
        self.check_whole(size)?;
        let changing = self.changing.lock();
        let resized = SizeChange::set(&self.size, size);
        // A fault that saw the old size has mapped its page now.
        drop(self.pages.lock());
        self.mapping
            .unmap(&mut cx, size / PAGE_SIZE, u64::MAX, EvenCows::Yes);
        resized.done();
        let mut despite = Despite::default();
        let from = size / self.bytes();
        self.remove(&mut cx, from..u64::MAX, &mut despite);
        self.unreserve(from);
        despite.call(|| self.host.settle_exports(&mut cx));
        drop(changing);
        despite.resume();
        Ok(())
    }
    /// Allocates pages, or punches a hole (`hugetlbfs_fallocate`). Pages in the range come from the
    /// pool whole; the size may end inside of a page then. If the pool is empty half-way, the pages
    /// before stay in the file, and the size as it was.
    fn fallocate(
        &self,
        cx: CallCx<'_>,
        mode: FallocateMode,
        from: u64,
        len: u64,
    ) -> Result<(), ObjectError> {
        let kept = mode.contains(FallocateMode::KEEP_SIZE);
        match mode - FallocateMode::KEEP_SIZE {
            FallocateMode::PUNCH_HOLE => return self.punch_hole(cx, from, len),
            mode if !mode.is_empty() => return Err(ObjectError::Unsupported),
            _ => {}
        }
        let end = from.saturating_add(len);
        check_size(end)?;
        let _changing = self.changing.lock();
        for index in from / self.bytes()..end.div_ceil(self.bytes()) {
            let _serial = self.serialize();
            self.allocate(index, || Ok(()))?;
        }
        if !kept {
            self.size.fetch_max(end, Ordering::AcqRel);
        }
        Ok(())
    }
    /// Punches a hole (`hugetlbfs_punch_hole`): whole pages are unmapped and leave the file,
    /// private copies included; of other pages the bytes are zeroed.
    fn punch_hole(&self, mut cx: CallCx<'_>, from: u64, len: u64) -> Result<(), ObjectError> {
        let end = from.saturating_add(len).min(MAX_SIZE);
        if from >= end {
            return Ok(());
        }
        let (first, last) = (from.div_ceil(self.bytes()), end / self.bytes());
        let changing = self.changing.lock();
        let mut despite = Despite::default();
        if from < first * self.bytes() {
            self.zero(from..end.min(first * self.bytes()));
        }
        if first < last {
            let base = |index| index * self.huge.pages();
            self.mapping
                .unmap(&mut cx, base(first), base(last), EvenCows::No);
        }
        if end > last * self.bytes() && end > first * self.bytes() {
            self.zero(last * self.bytes()..end);
        }
        self.remove(&mut cx, first..last.max(first), &mut despite);
        despite.call(|| self.host.settle_exports(&mut cx));
        drop(changing);
        despite.resume();
        Ok(())
    }
    fn read_at(&self, _: CallCx<'_>, offset: u64, out: &mut [u8]) -> Result<usize, ObjectError> {
        read_by_page(self.size(), offset, out, |index| Ok(self.resident(index)))
    }
    fn write_at(&self, _: CallCx<'_>, _: u64, _: &[u8]) -> Result<usize, ObjectError> {
        Err(ObjectError::OnlyMapped)
    }
}

impl fmt::Debug for HugetlbFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HugetlbFile")
            .field("name", &self.name)
            .field("size", &self.size())
            .field("pages", &self.pages.lock().len())
            .finish_non_exhaustive()
    }
}

impl Drop for HugetlbFile {
    fn drop(&mut self) {
        let pages = std::mem::take(self.pages.get_mut());
        let reserved = self.reserved.count(0..u64::MAX);
        let unused = reserved.saturating_sub(pages.len() as u64);
        pages.into_values().for_each(|head| self.give_up(head));
        self.host.mem.unreserve_huge(self.huge, unused);
    }
}
