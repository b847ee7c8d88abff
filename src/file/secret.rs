//! Secret memory: pages that only the processes reach that map them, and only by their own accesses
//! (`mm/secretmem.c`).

use super::{Backing, Host, MemoryObject, PageCache, PageRequest, object::check_size};
use crate::{
    addr::PAGE_SIZE,
    ctx::{CallCx, FaultCx},
    error::{NoMemory, ObjectError},
    frame::{Frame, FrameFlags},
    rmap::Mapping,
    sync::{AtomicU64, Ordering},
};
use std::{borrow::Cow, fmt, sync::Arc};

/// Memory of `memfd_secret`.
///
/// Guarantee: no driver gets a frame, and no other process and no direct transfer reaches a page; a
/// page stays in its frame until the object is gone. Mappings are shared, locked in memory and
/// count against `RLIMIT_MEMLOCK`. A device that walks the page table of the process
/// ([`SecondaryTlb`](crate::notifier::SecondaryTlb)) reaches what the process reaches, as on Linux.
pub struct SecretMem {
    cache: Arc<PageCache>,
    size: AtomicU64,
}

impl SecretMem {
    /// Creates an object without a size: `memfd_secret`. [`truncate`](MemoryObject::truncate) gives
    /// it one, once.
    ///
    /// # Errors
    ///
    /// [`NoMemory::Object`].
    pub fn new(host: &Host) -> Result<Arc<Self>, NoMemory> {
        Ok(Arc::new(Self {
            cache: PageCache::new(host, Backing::Nothing)?,
            size: AtomicU64::new(0),
        }))
    }
}

impl MemoryObject for SecretMem {
    fn name(&self) -> Cow<'_, str> {
        Cow::Borrowed("/secretmem (deleted)")
    }
    fn mapping(&self) -> &Arc<Mapping> {
        self.cache.mapping()
    }
    fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }
    /// Returns the frame of a page, made at its first use (`secretmem_fault`).
    fn page(
        &self,
        mut cx: FaultCx<'_>,
        index: u64,
        _: &PageRequest,
    ) -> Result<Frame<'_>, ObjectError> {
        if index >= self.pages() {
            return Err(ObjectError::Beyond(index));
        }
        let mem = self.cache.host().mem();
        let keep_out = |frame: &Frame<'_>| {
            mem.set_flags(frame.pfn(), FrameFlags::SECRET);
            Ok(())
        };
        Ok(self.cache.filling(&mut cx).get_or_make(index, keep_out)?.0)
    }
    /// Returns nothing: a fault maps its own page alone.
    fn resident(&self, _: u64) -> Option<Frame<'_>> {
        None
    }
    fn in_core(&self, index: u64) -> bool {
        self.cache.get(index).is_some()
    }
    fn is_secret(&self) -> bool {
        true
    }
    /// Sets the size, which must be none yet (`secretmem_setattr`).
    fn truncate(&self, _: CallCx<'_>, size: u64) -> Result<(), ObjectError> {
        check_size(size)?;
        let none = self
            .size
            .compare_exchange(0, size, Ordering::AcqRel, Ordering::Acquire);
        match none {
            Ok(_) => Ok(()),
            Err(_) => Err(ObjectError::Range { from: 0, len: size }),
        }
    }
    fn sync(&self, _: CallCx<'_>, from: u64, to: u64) -> Result<(), ObjectError> {
        let len = to.saturating_sub(from).saturating_mul(PAGE_SIZE);
        let from = from.saturating_mul(PAGE_SIZE);
        Err(ObjectError::Range { from, len })
    }
}

impl fmt::Debug for SecretMem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretMem")
            .field("size", &self.size())
            .field("resident", &self.cache.len())
            .finish_non_exhaustive()
    }
}
