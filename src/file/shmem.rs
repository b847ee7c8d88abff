//! Shared memory: an object whose pages live in memory alone, named (`memfd`) or not (`MAP_SHARED | MAP_ANONYMOUS`).

use super::{
    Backing, CallCx, FaultCx, Host, MAX_SIZE, MemoryObject, PageCache, Want, resized::Resized,
};
use crate::{
    addr::PAGE_SIZE,
    error::{NoMemory, ObjectError},
    frame::Frame,
    rmap::Mapping,
    sync::{AtomicU64, Mutex, Ordering},
};
use std::{borrow::Cow, fmt, sync::Arc};

/// What `/proc/PID/maps` calls shared anonymous memory.
pub(crate) const ANONYMOUS: &str = "/dev/zero (deleted)";

/// Pages shared by everyone who maps them.
pub struct Shmem {
    name: Box<str>,
    cache: Arc<PageCache>,
    size: AtomicU64,
    /// Excludes changes of the size and holes from each other (`inode_lock`).
    changing: Mutex<()>,
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
            charged,
        }))
    }
    fn frame(&self, index: u64) -> Result<Frame<'_>, ObjectError> {
        if index >= self.pages() {
            return Err(ObjectError::Beyond(index));
        }
        Ok(self.cache.get_or_make(index, |_| Ok(()))?.0)
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
    fn page(&self, _cx: FaultCx<'_>, index: u64, _want: &Want) -> Result<Frame<'_>, ObjectError> {
        self.frame(index)
    }
    fn resident(&self, index: u64) -> Option<Frame<'_>> {
        self.cache.get(index)
    }
    fn is_nameless(&self) -> bool {
        &*self.name == ANONYMOUS
    }
    /// `shmem_setattr`: mappings are visited only if whole pages are cut off.
    fn truncate(&self, mut cx: CallCx<'_>, size: u64) -> Result<(), ObjectError> {
        if size > MAX_SIZE {
            return Err(ObjectError::TooLarge(size));
        }
        let changing = self.changing.lock();
        let resized = Resized::set(&self.size, size);
        let old = resized.old();
        if size < old {
            if old > size.next_multiple_of(PAGE_SIZE) {
                self.cache.truncate(&mut cx, size);
            } else {
                self.cache.punch(&mut cx, size, old);
            }
        }
        resized.done();
        drop(changing);
        Ok(())
    }
    fn punch_hole(&self, mut cx: CallCx<'_>, from: u64, len: u64) -> Result<(), ObjectError> {
        let changing = self.changing.lock();
        self.cache.punch(&mut cx, from, from.saturating_add(len));
        drop(changing);
        Ok(())
    }
    fn read_at(&self, _cx: CallCx<'_>, offset: u64, out: &mut [u8]) -> Result<usize, ObjectError> {
        let size = self.size();
        self.cache
            .read_bytes(size, offset, out, |index| self.cache.get_swapped(index))
    }
    fn write_at(&self, _cx: CallCx<'_>, offset: u64, bytes: &[u8]) -> Result<usize, ObjectError> {
        let end = offset.saturating_add(bytes.len() as u64);
        if end > MAX_SIZE {
            return Err(ObjectError::TooLarge(end));
        }
        let changing = self.changing.lock();
        let n = self.cache.write_bytes(offset, bytes, |index| {
            Ok(self.cache.get_or_make(index, |_| Ok(()))?.0)
        })?;
        self.size.fetch_max(end, Ordering::AcqRel);
        drop(changing);
        Ok(n)
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
