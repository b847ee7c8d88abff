//! Memory objects: what stands behind a mapping that is not private anonymous memory.
//!
//! An address space sees an object only through [`MemoryObject`]; an object knows no address space, only its
//! [`Mapping`], through which it takes its pages out of all of them.
//!
//! | object | its pages |
//! | --- | --- |
//! | [`Shmem`] | in memory alone, and in swap (`memfd`, shared anonymous memory) |
//! | [`DiskFile`] | a page cache in front of a [`Store`], dirty pages, writeback |
//! | [`XipFile`] | in place: no cache, holes show one shared page |
//! | yours | as you like: [`PageCache`] does the keeping |

mod ahead;
mod cache;
mod cutting;
mod disk;
mod edges;
mod filling;
mod folios;
mod gather;
mod host;
mod huge_policy;
mod io;
mod open;
mod resized;
mod shmem;
mod short;
mod slots;
mod store;
mod xip;

pub use cache::{Backing, PageCache};
pub use cutting::Cutting;
pub use disk::DiskFile;
pub use filling::Filling;
pub use host::Host;
pub use huge_policy::HugePolicy;
pub(crate) use open::same_file;
pub use open::{File, FileMode};
pub(crate) use shmem::ANONYMOUS;
pub use shmem::Shmem;
pub use store::{BLOCK, MemStore, Store, StoreError};
pub use xip::XipFile;

use crate::ctx::{CallCx, FaultCx};
use crate::{
    addr::PAGE_SIZE,
    error::ObjectError,
    frame::{Frame, FrameLock, MAX_INDEX},
    notifier::Access,
    rmap::Mapping,
};
use std::{borrow::Cow, fmt, ops::Range, sync::Arc};

/// The most bytes an object can have: 256 TiB.
pub const MAX_SIZE: u64 = MAX_INDEX * PAGE_SIZE - PAGE_SIZE;

/// What a fault wants of an object, and what it knows of the pages around.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Want {
    /// `Write`: a shared mapping is about to write to the page.
    pub access: Access,
    /// The pages of the object that the mapping covers.
    pub mapped: Range<u64>,
    /// How the mapping is used.
    pub pattern: Pattern,
    /// Page number of an address less page offset, which is the same for all of the mapping: how both are aligned to each
    /// other.
    pub skew: u64,
    /// Huge pages were advised for the mapping.
    pub advised: bool,
}

/// How a mapping is used, for reading ahead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pattern {
    /// Nothing is known.
    #[default]
    Normal,
    /// It is executable: code is read forwards.
    Code,
    /// `MADV_SEQUENTIAL`.
    Sequential,
    /// `MADV_RANDOM`.
    Random,
}

/// What only this library can name, so that only its own objects decide what it goes with.
pub(crate) mod sealed {
    /// See there.
    #[derive(Debug)]
    pub struct Ours;
}

/// Something whose pages can be mapped.
///
/// The frames that it gives out must be its machine's, and owned by its mapping at their index ([`PageCache`] sees to
/// that), which is how a fault that comes too late notices that a page has been cut off. A fault that is given others
/// maps nothing, and ends with [`ObjectError::NotItsPage`].
pub trait MemoryObject: Send + Sync + fmt::Debug {
    /// The name that `/proc/PID/maps` shows.
    fn name(&self) -> Cow<'_, str>;
    /// Who maps it.
    fn mapping(&self) -> &Arc<Mapping>;
    /// Size in bytes. Access at or beyond the end of the last page is SIGBUS.
    fn size(&self) -> u64;
    /// Size in pages, a partial last page included.
    fn pages(&self) -> u64 {
        self.size().div_ceil(PAGE_SIZE)
    }
    /// The frame of page `index`, made if the object has a hole there (`->fault`, `->page_mkwrite`).
    ///
    /// # Errors
    ///
    /// [`ObjectError`]. [`ObjectError::Again`] has the access fault again; who says so a few thousand times in a row
    /// fails it.
    fn page(&self, cx: FaultCx<'_>, index: u64, want: &Want) -> Result<Frame<'_>, ObjectError>;
    /// The frame of page `index` if it can be mapped without ado: what fault-around takes along.
    fn resident(&self, index: u64) -> Option<Frame<'_>>;
    /// Whether the locked frame is, and will be while locked, page `index` of this object. Not for others to decide.
    #[doc(hidden)]
    fn is_page(&self, locked: &FrameLock<'_>, index: u64, _: sealed::Ours) -> bool {
        locked.owner() == Some(self.mapping().owner(index))
    }
    /// Whether the object must know of the first write to a clean page: shared mappings then map it read-only
    /// (`vma_wants_writenotify`).
    fn notes_writes(&self) -> bool {
        false
    }
    /// Whether it is shared anonymous memory, which a program may name (`vma_is_anon_shmem`).
    fn is_nameless(&self) -> bool {
        false
    }
    /// Whether its pages are in memory alone (`shmem_mapping`).
    fn is_memory(&self) -> bool {
        false
    }
    /// Whether mappings are placed so that huge pages of the object would fit (`->get_unmapped_area`).
    fn huge_aligned(&self) -> bool {
        false
    }
    /// Makes pages `[first, first + 512)` one huge page, in memory and not mapped (`collapse_file`). What an object can have
    /// instead of small pages is not for others to decide.
    #[doc(hidden)]
    fn collapse(&self, cx: CallCx<'_>, first: u64, _: sealed::Ours) -> Result<(), ObjectError> {
        let _unused = (cx, first);
        Err(ObjectError::Unsupported)
    }
    /// The locked first frame of the huge page that page `index` is part of, if it is part of one: a whole one while that is
    /// locked.
    #[doc(hidden)]
    fn huge_page(&self, cx: FaultCx<'_>, index: u64, _: sealed::Ours) -> Option<FrameLock<'_>> {
        let _unused = (cx, index);
        None
    }
    /// The pages that are in memory with page `index`, if that is, as one folio. A hint.
    #[doc(hidden)]
    fn together(&self, index: u64, _: sealed::Ours) -> Range<u64> {
        index..index + 1
    }
    /// Sets the size. Mappings of what is cut off are dropped, private copies included.
    ///
    /// # Errors
    ///
    /// [`ObjectError`]; [`ObjectError::Unsupported`] unless the object can do it. Nothing was changed then. The size is as
    /// it was also when a driver panics on the way.
    fn truncate(&self, cx: CallCx<'_>, size: u64) -> Result<(), ObjectError> {
        let _unused = (cx, size);
        Err(ObjectError::Unsupported)
    }
    /// Makes bytes `[from, from + len)` read zero; whole pages become holes. Private copies stay.
    ///
    /// # Errors
    ///
    /// As [`truncate`](Self::truncate).
    fn punch_hole(&self, cx: CallCx<'_>, from: u64, len: u64) -> Result<(), ObjectError> {
        let _unused = (cx, from, len);
        Err(ObjectError::Unsupported)
    }
    /// Writes what is dirty in pages `[from, to)` to the store (`vfs_fsync_range`).
    ///
    /// # Errors
    ///
    /// [`ObjectError`]: what could not be written stays dirty.
    fn sync(&self, cx: CallCx<'_>, from: u64, to: u64) -> Result<(), ObjectError> {
        let _unused = (cx, from, to);
        Ok(())
    }
    /// Reads bytes from `offset` on, up to the end of the object or to a page that cannot be had; returns how many.
    ///
    /// # Errors
    ///
    /// As [`truncate`](Self::truncate): none could be read.
    fn read_at(&self, cx: CallCx<'_>, offset: u64, out: &mut [u8]) -> Result<usize, ObjectError> {
        let _unused = (cx, offset, out);
        Err(ObjectError::Unsupported)
    }
    /// A read of pages `wanted` is about to come; the last one through the same open file ended at byte `before`, none yet:
    /// `u64::MAX`. What else shall come in with it, comes in now (`page_cache_sync_ra`). What fails is not there
    /// afterwards.
    fn read_ahead(&self, cx: CallCx<'_>, wanted: Range<u64>, before: u64) {
        let _unused = (cx, wanted, before);
    }
    /// Writes bytes from `offset` on, up to a page that cannot be had; extends the object if need be. Returns how many.
    ///
    /// # Errors
    ///
    /// As [`truncate`](Self::truncate): none was written.
    fn write_at(&self, cx: CallCx<'_>, offset: u64, bytes: &[u8]) -> Result<usize, ObjectError> {
        let _unused = (cx, offset, bytes);
        Err(ObjectError::Unsupported)
    }
    /// A write of `len` bytes from `offset` on, none of them beyond the page, which begins with `bytes`; the rest cannot be
    /// had now, since it lies in memory that is not there (`->write_begin`, and `->write_end` with what was copied). The
    /// object may take fewer than it is given, and none; returns how many it took. What a write does to the
    /// object before its first byte is done all the same.
    ///
    /// # Errors
    ///
    /// As [`truncate`](Self::truncate).
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
    /// Brings pages `[from, to)` into memory as far as it has them elsewhere, and wants to (`MADV_WILLNEED`). What fails is
    /// not there afterwards.
    fn will_need(&self, cx: CallCx<'_>, from: u64, to: u64) {
        let _unused = (cx, from, to);
    }
}
