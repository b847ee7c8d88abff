//! The trait of memory objects, and the requests of an address space to them.

use super::{by_daemon::ByDaemon, mode::FallocateMode, seals::SealState};
use crate::{
    addr::PAGE_SIZE,
    ctx::{CallCx, FaultCx},
    error::{MmapError, ObjectError},
    frame::{Frame, FrameLock, MAX_INDEX},
    notifier::Access,
    rmap::Mapping,
};
use std::{any::Any, borrow::Cow, fmt, ops::Range, sync::Arc};

/// The largest size of an object in bytes: just below 256 TiB.
pub const MAX_SIZE: u64 = MAX_INDEX * PAGE_SIZE - PAGE_SIZE;

/// Checks a size that an object is to have.
pub(super) fn check_size(size: u64) -> Result<(), ObjectError> {
    match size > MAX_SIZE {
        true => Err(ObjectError::TooLarge(size)),
        false => Ok(()),
    }
}

/// Checks the size that an object is to have after a write of `len` bytes from `offset` on.
pub(super) fn check_write(offset: u64, len: usize) -> Result<(), ObjectError> {
    check_size(offset.saturating_add(len as u64))
}

/// The request of a fault for a page of an object, with the way the mapping is used.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PageRequest {
    /// `Write`: a shared mapping is about to write to the page.
    pub access: Access,
    /// The pages of the object that the mapping covers.
    pub mapped: Range<u64>,
    /// The pattern of use, for read-ahead.
    pub pattern: Pattern,
    /// Page number of an address less its page offset, the same in all of the mapping: it tells how
    /// addresses and page offsets are aligned to each other.
    pub skew: u64,
    /// Set if huge pages were advised for the mapping.
    pub advised: bool,
    /// Set if the process and its advice allow huge pages for the mapping.
    pub huge: bool,
}

/// The way a mapping is used, for read-ahead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pattern {
    /// Unknown.
    #[default]
    Normal,
    /// An executable mapping: code is read forwards.
    Code,
    /// Sequential: `MADV_SEQUENTIAL`.
    Sequential,
    /// Random: `MADV_RANDOM`.
    Random,
}

/// The memory that a mapping of a file shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mappable {
    /// The pages of the object.
    Pages,
    /// New memory that reads zero: shared memory of its own for a shared mapping, anonymous memory
    /// that keeps the name for a private one.
    Zeros,
    /// Nothing: the file cannot be mapped.
    No,
}

/// A type that only this crate can name: methods that take it are for the objects of this crate to
/// override.
pub(crate) mod sealed {
    use crate::{ctx::CallCx, error::ObjectError};
    use std::ops::Range;

    /// The argument of such a method.
    #[derive(Debug)]
    pub struct Ours;

    /// Bytes between the store of an object and memory, past the cache.
    pub trait Direct {
        /// Prepares a read: the store has all bytes of the range afterwards.
        fn begin_read(
            &self,
            cx: &mut CallCx<'_>,
            offset: u64,
            len: usize,
        ) -> Result<(), ObjectError>;
        /// Returns how many bytes of a read move before a block that is not read by whole sectors.
        fn whole_sectors(&self, offset: u64, len: usize) -> Result<usize, ObjectError>;
        /// Reads bytes of the store; behind the last block they are zero. Returns how many of them
        /// are the object's.
        fn read(&self, offset: u64, out: &mut [u8]) -> Result<usize, ObjectError>;
        /// Prepares a write: no page of the range is in the cache afterwards. Returns false if one
        /// stays, because it was written again: the write must go through the cache.
        fn begin_write(
            &self,
            cx: &mut CallCx<'_>,
            offset: u64,
            len: usize,
        ) -> Result<bool, ObjectError>;
        /// Writes bytes to the store. If it fails, the blocks below the failing one have their
        /// bytes.
        fn write(&self, cx: &mut CallCx<'_>, offset: u64, bytes: &[u8]) -> Result<(), ObjectError>;
        /// Ends a write of which the store has the bytes of the range: drops the pages that came in
        /// meanwhile. If the object `grows`, it reaches to the end of the range, and the rest of
        /// its old last page reads zero; otherwise its size stays.
        fn end_write(
            &self,
            cx: &mut CallCx<'_>,
            range: Range<u64>,
            grows: bool,
        ) -> Result<(), ObjectError>;
        /// Writes bytes through the cache, and at once to the store.
        fn write_through(
            &self,
            cx: &mut CallCx<'_>,
            offset: u64,
            bytes: &[u8],
        ) -> Result<usize, ObjectError>;
    }
}

/// An object whose pages can be mapped.
///
/// The frames that it returns must belong to its machine and be owned by its mapping at their index
/// ([`PageCache`](super::PageCache) sees to that): a fault that comes too late finds by the owner
/// that a page has been cut off. A fault that gets another frame maps nothing and ends with
/// [`ObjectError::NotItsPage`]. An object that says it read or wrote more bytes than it was given
/// has read or written all of them.
pub trait MemoryObject: Send + Sync + fmt::Debug {
    /// Returns the name that `/proc/PID/maps` shows.
    fn name(&self) -> Cow<'_, str>;
    /// Returns the reverse map of the object: all VMAs that map it.
    fn mapping(&self) -> &Arc<Mapping>;
    /// Returns the size in bytes. An access beyond the last page is SIGBUS.
    fn size(&self) -> u64;
    /// Returns the size in pages, a partial last page included.
    fn pages(&self) -> u64 {
        self.size().div_ceil(PAGE_SIZE)
    }
    /// Returns the frame of page `index`, made if the object has a hole there (`->fault`,
    /// `->page_mkwrite`).
    ///
    /// # Errors
    ///
    /// [`ObjectError`]. [`ObjectError::Again`] makes the access fault again; after a few thousand
    /// in a row the access fails.
    fn page(
        &self,
        cx: FaultCx<'_>,
        index: u64,
        want: &PageRequest,
    ) -> Result<Frame<'_>, ObjectError>;
    /// Returns the frame of page `index` if it can be mapped at once, without reading or waiting:
    /// for fault-around.
    fn resident(&self, index: u64) -> Option<Frame<'_>>;
    /// Tells the object that a fault has mapped what is [`resident`](Self::resident) around a page.
    #[doc(hidden)]
    fn mapped_around(&self, _: sealed::Ours) {}
    /// Returns true if the locked frame is page `index` of this object, and stays so while locked.
    /// A part of a huge page of a pool is the page of no object: it is mapped with the others.
    /// Only objects of this crate override it.
    #[doc(hidden)]
    fn is_page(&self, locked: &FrameLock<'_>, index: u64, _: sealed::Ours) -> bool {
        locked.owner() == Some(self.mapping().owner(index)) && !locked.is_of_pool()
    }
    /// Returns true if the object must know of the first write to a clean page: shared mappings
    /// then map it read-only (`vma_wants_writenotify`).
    fn notes_writes(&self) -> bool {
        false
    }
    /// Returns true for shared anonymous memory, which a program may name (`vma_is_anon_shmem`).
    fn is_nameless(&self) -> bool {
        false
    }
    /// Returns true if the pages are in memory alone (`shmem_mapping`).
    fn is_memory(&self) -> bool {
        false
    }
    /// Returns true if mappings are placed so that huge pages of the object would fit
    /// (`->get_unmapped_area`).
    fn huge_aligned(&self) -> bool {
        false
    }
    /// Returns true if page `index` is in memory (`mincore`).
    fn in_core(&self, index: u64) -> bool {
        self.resident(index).is_some()
    }
    /// Returns true if only accesses of the processes that map the object reach its pages
    /// (`secretmem_mapping`). Its mappings are shared, and locked in memory.
    fn is_secret(&self) -> bool {
        false
    }
    /// Checks a new mapping, when those at its place are gone already (`->mmap`). `shared`: stores
    /// to it may reach the object, and the file was opened for writing.
    ///
    /// # Errors
    ///
    /// [`MmapError`]: the object is not mapped so.
    fn check_mapping(&self, shared: bool) -> Result<(), MmapError> {
        let _unused = shared;
        Ok(())
    }
    /// Returns true if nothing of the object may be executed (`path_noexec`).
    fn is_no_exec(&self) -> bool {
        self.is_secret()
    }
    /// Returns true if the object knows `MAP_SYNC`, which it may refuse (`FOP_MMAP_SYNC`).
    fn knows_sync(&self) -> bool {
        false
    }
    /// Returns true if the number of the object's mappings has a meaning for it: a merge of VMAs
    /// must remove none (`vm_operations_struct.close`).
    fn counts_mappings(&self) -> bool {
        false
    }
    /// Returns what a mapping shows.
    fn mappable(&self) -> Mappable {
        Mappable::Pages
    }
    /// Returns the way past the cache of the object, if it has one.
    #[doc(hidden)]
    fn direct(&self, _: sealed::Ours) -> Option<&dyn sealed::Direct> {
        None
    }
    /// Returns the seals, of an object that has some (`memfd_file_seals_ptr`).
    #[doc(hidden)]
    fn seal_state(&self, _: sealed::Ours) -> Option<&SealState> {
        None
    }
    /// Makes pages `[first, first + 512)` one huge page, in memory and not mapped
    /// (`collapse_file`); for the daemon only if they suit it. Only objects of this crate override
    /// it.
    #[doc(hidden)]
    fn collapse(
        &self,
        cx: CallCx<'_>,
        first: u64,
        by: Option<ByDaemon>,
        _: sealed::Ours,
    ) -> Result<(), ObjectError> {
        let _unused = (cx, first, by);
        Err(ObjectError::Unsupported)
    }
    /// Returns the locked first frame of the huge page that page `index` is part of; `None` if it
    /// is part of none. The huge page is whole while that frame is locked.
    #[doc(hidden)]
    fn huge_page(&self, cx: FaultCx<'_>, index: u64, _: sealed::Ours) -> Option<FrameLock<'_>> {
        let _unused = (cx, index);
        None
    }
    /// Returns the pages that are in memory as one folio with page `index`: a hint.
    #[doc(hidden)]
    fn together(&self, index: u64, _: sealed::Ours) -> Range<u64> {
        index..index + 1
    }
    /// Returns true if the object has page `index`, in memory or in swap: it is no hole.
    #[doc(hidden)]
    fn has_page(&self, index: u64, _: sealed::Ours) -> bool {
        self.resident(index).is_some()
    }
    /// Returns the frame of page `index`, read back from swap if it is there; `None` for a hole.
    #[doc(hidden)]
    fn page_there(
        &self,
        cx: FaultCx<'_>,
        index: u64,
        _: sealed::Ours,
    ) -> Result<Option<Frame<'_>>, ObjectError> {
        let _unused = cx;
        Ok(self.resident(index))
    }
    /// Fills the hole at page `index` with a page that begins with `bytes`, and returns its frame;
    /// `None` if no hole is there.
    #[doc(hidden)]
    fn provide(
        &self,
        cx: FaultCx<'_>,
        index: u64,
        bytes: &[u8],
        _: sealed::Ours,
    ) -> Result<Option<Frame<'_>>, ObjectError> {
        let _unused = (cx, index, bytes);
        Err(ObjectError::Unsupported)
    }
    /// Returns the object itself, if its pages are huge pages of a pool.
    #[doc(hidden)]
    fn of_a_pool(&self, _: sealed::Ours) -> Option<&dyn Any> {
        None
    }
    /// Sets the size. Mappings of pages that are cut off are removed, private copies included.
    ///
    /// # Errors
    ///
    /// [`ObjectError`]; [`ObjectError::Unsupported`] unless the object can do it. Nothing was
    /// changed then. The size is the old one also if a driver panics on the way.
    fn truncate(&self, cx: CallCx<'_>, size: u64) -> Result<(), ObjectError> {
        let _unused = (cx, size);
        Err(ObjectError::Unsupported)
    }
    /// Makes bytes `[from, from + len)` read zero; whole pages become holes. Private copies stay.
    ///
    /// # Errors
    ///
    /// Those of [`truncate`](Self::truncate).
    fn punch_hole(&self, cx: CallCx<'_>, from: u64, len: u64) -> Result<(), ObjectError> {
        let _unused = (cx, from, len);
        Err(ObjectError::Unsupported)
    }
    /// Changes the blocks of bytes `[from, from + len)`, as the mode says (`->fallocate`). From a
    /// file, the mode is one that Linux knows, and the bytes are some and end below `i64::MAX`.
    ///
    /// # Errors
    ///
    /// Those of [`truncate`](Self::truncate).
    fn fallocate(
        &self,
        cx: CallCx<'_>,
        mode: FallocateMode,
        from: u64,
        len: u64,
    ) -> Result<(), ObjectError> {
        match mode == FallocateMode::PUNCH_HOLE | FallocateMode::KEEP_SIZE {
            true => self.punch_hole(cx, from, len),
            false => Err(ObjectError::Unsupported),
        }
    }
    /// Gives up the pages of these bytes that are in memory and elsewhere too, and that nothing
    /// maps (`POSIX_FADV_DONTNEED`). Pages that lie in the bytes only in part stay.
    fn dont_need(&self, cx: CallCx<'_>, bytes: Range<u64>) {
        let _unused = (cx, bytes);
    }
    /// Writes the dirty pages of `[from, to)` to the store (`vfs_fsync_range`).
    ///
    /// # Errors
    ///
    /// [`ObjectError`]: pages that could not be written stay dirty.
    fn sync(&self, cx: CallCx<'_>, from: u64, to: u64) -> Result<(), ObjectError> {
        let _unused = (cx, from, to);
        Ok(())
    }
    /// Reads bytes from `offset` on, up to the end of the object or to a page that cannot be had,
    /// and returns their number.
    ///
    /// # Errors
    ///
    /// Those of [`truncate`](Self::truncate), if no byte could be read.
    fn read_at(&self, cx: CallCx<'_>, offset: u64, out: &mut [u8]) -> Result<usize, ObjectError> {
        let _unused = (cx, offset, out);
        Err(ObjectError::Unsupported)
    }
    /// Announces a read of the first of pages `wanted`, with the others to follow, so that the
    /// object can bring in more at once (`page_cache_sync_ra`). The last read through the open file
    /// ended at byte `before`; `u64::MAX`: there was none. A page that cannot be read stays
    /// missing.
    fn read_ahead(&self, cx: CallCx<'_>, wanted: Range<u64>, before: u64) {
        let _unused = (cx, wanted, before);
    }
    /// Writes bytes from `offset` on, up to a page that cannot be had, extends the object if
    /// necessary, and returns their number.
    ///
    /// # Errors
    ///
    /// Those of [`truncate`](Self::truncate), if no byte was written.
    fn write_at(&self, cx: CallCx<'_>, offset: u64, bytes: &[u8]) -> Result<usize, ObjectError> {
        let _unused = (cx, offset, bytes);
        Err(ObjectError::Unsupported)
    }
    /// Writes within one page a range of `len` bytes from `offset` on, of which only the first,
    /// `bytes`, are available now: the rest lies in memory that must be faulted in
    /// (`->write_begin`, and `->write_end` with the bytes that were copied).
    ///
    /// Returns how many of `bytes` the object has taken, which may be none. Effects of a write that
    /// precede its first byte take place nevertheless.
    ///
    /// # Errors
    ///
    /// Those of [`truncate`](Self::truncate).
    fn write_begun(
        &self,
        cx: CallCx<'_>,
        offset: u64,
        bytes: &[u8],
        len: usize,
    ) -> Result<usize, ObjectError> {
        let _unused = len;
        self.write_at(cx, offset, bytes)
    }
    /// Brings pages `[from, to)` into memory, as far as the object has them elsewhere and supports
    /// it (`MADV_WILLNEED`). A page that cannot be read stays missing.
    fn will_need(&self, cx: CallCx<'_>, from: u64, to: u64) {
        let _unused = (cx, from, to);
    }
}
