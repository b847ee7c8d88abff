//! The pages of an object that are in memory: `i_pages`.
//!
//! Guarantee: a frame in the cache has a reference from it and is owned by the object's mapping at its index; a frame
//! that was taken out is mapped nowhere and owned by nobody. What [`get`](PageCache::get) returns is up to date.
//!
//! How: pages come in under [`Filling`](super::Filling), and are cut off under [`Cutting`](super::Cutting), which exclude each other. A
//! page that is being read is in the cache, locked and not up to date: who wants it waits for its lock. No lock of the
//! cache's own is held while a page is read.

use super::{
    host::Host,
    slots::{Slot, Slots},
};
use crate::ctx::FolioCx;

use crate::{
    addr::Pfn,
    error::{NoMemory, ObjectError},
    frame::{AllocKind, Frame, FrameFlags, FrameLock},
    rmap::{Evict, Mapping},
    sync::{Mutex, MutexGuard, OnceLock, RwLock},
};
use std::{
    fmt,
    sync::{Arc, Weak},
};

/// What becomes of pages under memory pressure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backing {
    /// They go to swap.
    Swap,
    /// A clean page can be read again; a dirty one is written back first, where the object says how.
    Store,
    /// They stay.
    Nothing,
}

/// How dirty pages of a cache are written back when memory is looked for.
pub(super) trait WriteBack: Send + Sync {
    /// Writes back page `index`, whose locked frame nothing maps.
    ///
    /// # Errors
    ///
    /// [`ObjectError`]: it stays dirty.
    fn write_back(
        &self,
        cx: &mut FolioCx<'_>,
        locked: &FrameLock<'_>,
        index: u64,
    ) -> Result<(), ObjectError>;
}

/// Frames by page number, and who maps them.
pub struct PageCache {
    backing: Backing,
    host: Host,
    mapping: Arc<Mapping>,
    pub(super) slots: Mutex<Slots>,
    /// Held shared by who brings pages in, alone by who cuts them off (`invalidate_lock`).
    pub(super) extent: RwLock<()>,
    writer: OnceLock<Weak<dyn WriteBack>>,
}

impl PageCache {
    /// An empty cache.
    ///
    /// # Errors
    ///
    /// [`NoMemory::Object`].
    pub fn new(host: &Host, backing: Backing) -> Result<Arc<Self>, NoMemory> {
        host.mem
            .inject()
            .check(AllocKind::Object)
            .map_err(|_| NoMemory::Object)?;
        Ok(Arc::new_cyclic(|me: &Weak<Self>| {
            let mapping = host.mapping();
            mapping.set_keeper(me.clone());
            Self {
                backing,
                mapping,
                host: host.clone(),
                slots: Mutex::default(),
                extent: RwLock::new(()),
                writer: OnceLock::new(),
            }
        }))
    }
    /// Says once how dirty pages are written back.
    pub(super) fn set_writer(&self, writer: Weak<dyn WriteBack>) {
        let _first = self.writer.set(writer);
    }
    /// The machine's side.
    pub fn host(&self) -> &Host {
        &self.host
    }
    /// Who maps the object.
    pub fn mapping(&self) -> &Arc<Mapping> {
        &self.mapping
    }
    /// Pages in the cache.
    pub fn len(&self) -> u64 {
        self.slots.lock().len()
    }
    /// Whether no page is in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// The frame of page `index` if it is there and up to date.
    pub fn get(&self, index: u64) -> Option<Frame<'_>> {
        // Until this has a reference of its own nobody takes the page out, which would give up the cache's.
        let slots = self.slots.lock();
        match slots.get(index)? {
            Slot::Frame(pfn) => Some(self.host.mem.get(pfn)),
            Slot::Unread(_) | Slot::Swap(_) => None,
        }
    }
    /// The first page at or above `from`, below `to`, that is in the cache, up to date or not.
    pub fn next(&self, from: u64, to: u64) -> Option<(u64, Frame<'_>)> {
        let slots = self.slots.lock();
        let mut at = from;
        loop {
            match slots.next(at, to)? {
                (index, Slot::Frame(pfn) | Slot::Unread(pfn)) => {
                    return Some((index, self.host.mem.get(pfn)));
                }
                (index, Slot::Swap(_)) => at = index + 1,
            }
        }
    }
    /// Whether page `index` is nowhere: neither in the cache nor in swap.
    pub(super) fn is_hole(&self, index: u64) -> bool {
        self.slots.lock().get(index).is_none()
    }
    /// Whether page `index` is in swap.
    pub(super) fn is_swapped(&self, index: u64) -> bool {
        matches!(self.slots.lock().get(index), Some(Slot::Swap(_)))
    }
    /// The pages of `[from, to)` that are in swap.
    pub(super) fn swapped(&self, from: u64, to: u64) -> Vec<u64> {
        let slots = self.slots.lock();
        let mut swapped = Vec::new();
        let mut at = from;
        while let Some((index, slot)) = slots.next(at, to) {
            swapped.extend(matches!(slot, Slot::Swap(_)).then_some(index));
            at = index + 1;
        }
        swapped
    }
    /// Whether the locked frame is still page `index`.
    pub fn holds(&self, locked: &FrameLock<'_>, index: u64) -> bool {
        self.host.mem.owner(locked.pfn()) == Some(self.mapping.owner(index))
    }
    /// Gives up the pages of `[from, to)` that are in swap.
    pub(super) fn drop_swapped(&self, from: u64, to: u64) {
        let mut slots = self.slots.lock();
        let mut at = from;
        while let Some((index, slot)) = slots.next(at, to) {
            if let Slot::Swap(slot) = slot {
                slots.remove(index);
                self.host.mem.swap_free(slot);
            }
            at = index + 1;
        }
    }
    /// Takes page `index`, which the frame is, out of the cache.
    pub(super) fn take(&self, index: u64, pfn: Pfn) {
        let mem = &self.host.mem;
        let old = self.slots.lock().remove(index);
        debug_assert!(
            matches!(old, Some(Slot::Frame(p) | Slot::Unread(p)) if p == pfn),
            "page {index}"
        );
        mem.set_owner(pfn, None);
        drop(mem.adopt(pfn));
    }
    /// Puts a frame in as page `index`, under the lock of the slots.
    pub(super) fn put(
        &self,
        mut slots: MutexGuard<'_, Slots>,
        index: u64,
        frame: &Frame<'_>,
        read: bool,
    ) {
        let mem = &self.host.mem;
        let pfn = frame.clone().into_raw();
        if self.backing == Backing::Swap {
            mem.set_flags(pfn, FrameFlags::SWAP_BACKED);
        }
        mem.set_owner(pfn, Some(self.mapping.owner(index)));
        let slot = match read {
            true => Slot::Frame(pfn),
            false => Slot::Unread(pfn),
        };
        slots.insert(index, slot);
        if self.backing != Backing::Nothing {
            mem.lru_add(pfn);
        }
    }
}

impl Evict for PageCache {
    fn evict(&self, locked: &FrameLock<'_>, index: u64) -> bool {
        let mem = &self.host.mem;
        let pfn = locked.pfn();
        let mut slots = self.slots.lock();
        // The cache's reference and the caller's: somebody else is using it otherwise.
        if !self.holds(locked, index) || mem.refcount(pfn) != 2 || mem.mapcount(pfn) != 0 {
            return false;
        }
        // A huge page is split first.
        if mem.flags(pfn).contains(FrameFlags::LARGE) {
            return false;
        }
        match self.backing {
            Backing::Nothing => return false,
            Backing::Store if mem.flags(pfn).contains(FrameFlags::DIRTY) => return false,
            Backing::Store => {
                slots.remove(index);
            }
            Backing::Swap => match mem.swap_store(pfn) {
                Some(slot) => {
                    slots.insert(index, Slot::Swap(slot));
                }
                // Nobody has written to it, and it reads zero again when it is asked for: that takes no swap.
                None if !mem.flags(pfn).contains(FrameFlags::DIRTY) && mem.reads_zero(pfn) => {
                    slots.remove(index);
                }
                None => return false,
            },
        }
        drop(slots);
        mem.set_owner(pfn, None);
        drop(mem.adopt(pfn));
        true
    }
    fn write_back(&self, cx: &mut FolioCx<'_>, locked: &FrameLock<'_>, index: u64) -> bool {
        let writer = self.writer.get().and_then(Weak::upgrade);
        writer.is_some_and(|writer| writer.write_back(cx, locked, index).is_ok())
    }
    fn replace(&self, locked: &FrameLock<'_>, index: u64, new: &Frame<'_>) -> bool {
        let mem = &self.host.mem;
        let pfn = locked.pfn();
        let mut slots = self.slots.lock();
        let idle = mem.refcount(pfn) == 2 && mem.mapcount(pfn) == 0;
        let is_read = slots.get(index) == Some(Slot::Frame(pfn));
        if self.backing == Backing::Nothing || !self.holds(locked, index) || !idle || !is_read {
            return false;
        }
        slots.insert(index, Slot::Frame(new.clone().into_raw()));
        drop(slots);
        mem.set_owner(new.pfn(), Some(self.mapping.owner(index)));
        mem.set_owner(pfn, None);
        drop(mem.adopt(pfn));
        true
    }
}

impl fmt::Debug for PageCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PageCache")
            .field("pages", &self.len())
            .finish_non_exhaustive()
    }
}

impl Drop for PageCache {
    fn drop(&mut self) {
        for slot in self.slots.get_mut().drain() {
            match slot {
                Slot::Frame(pfn) | Slot::Unread(pfn) => {
                    self.host.mem.set_owner(pfn, None);
                    drop(self.host.mem.adopt(pfn));
                }
                Slot::Swap(slot) => self.host.mem.swap_free(slot),
            }
        }
    }
}
