//! The page cache of an object: its pages in memory, by number (`i_pages`).
//!
//! Guarantee: a frame in the cache has a reference from it and is owned by the object's mapping at
//! its index; a frame that was taken out is mapped nowhere and has no owner. A page that
//! [`get`](PageCache::get) returns is up to date.
//!
//! Pages come in under [`Filling`](super::Filling) and are cut off under
//! [`Cutting`](super::Cutting), which exclude each other. A page that is being read is in the
//! cache, locked and not up to date: a thread that wants it waits for its lock. No lock of the
//! cache itself is held while a page is read
//! (docs/adr/0007-pages-of-objects-are-mapped-under-their-lock.md).

use super::{
    host::Host,
    slots::{PageSlot, PageSlots},
};
use crate::{
    addr::Pfn,
    ctx::{CallCx, FolioCx},
    error::{NoMemory, ObjectError},
    frame::{AllocKind, Frame, FrameFlags, FrameLock},
    rmap::{Folio, Mapping, PageKeeper},
    sync::{Mutex, MutexGuard, OnceLock, RwLock},
};
use std::{
    fmt,
    ops::Range,
    sync::{Arc, Weak},
};

/// The fate of a cache's pages under memory pressure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backing {
    /// Pages are written to swap.
    Swap,
    /// A clean page is dropped, as it can be read again; a dirty page is written back first, if the
    /// object can do it.
    Store,
    /// Pages stay.
    Nothing,
}

/// Writes back dirty pages of a cache for reclaim.
pub(super) trait WriteBack: Send + Sync {
    /// Writes back page `index`, which is locked and not mapped.
    ///
    /// # Errors
    ///
    /// [`ObjectError`]: the page stays dirty.
    fn write_back(
        &self,
        cx: &mut FolioCx<'_>,
        locked: &FrameLock<'_>,
        index: u64,
    ) -> Result<(), ObjectError>;
}

/// The pages of an object in memory, by number, and the mappings of the object.
pub struct PageCache {
    backing: Backing,
    host: Host,
    mapping: Arc<Mapping>,
    pub(super) slots: Mutex<PageSlots>,
    /// Held shared while pages come in, exclusively while pages are cut off (`invalidate_lock`).
    pub(super) extent: RwLock<()>,
    writer: OnceLock<Weak<dyn WriteBack>>,
}

impl PageCache {
    /// Creates an empty cache.
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
    /// Sets the writer of dirty pages; the first one stays.
    pub(super) fn set_writer(&self, writer: Weak<dyn WriteBack>) {
        let _first = self.writer.set(writer);
    }
    /// Returns the part of the machine that the object uses.
    pub fn host(&self) -> &Host {
        &self.host
    }
    /// Returns the reverse map of the object: all VMAs that map it.
    pub fn mapping(&self) -> &Arc<Mapping> {
        &self.mapping
    }
    /// Returns the number of pages in the cache.
    pub fn len(&self) -> u64 {
        self.slots.lock().len()
    }
    /// Returns true if no page is in the cache.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Returns the frame of page `index` if it is in the cache and up to date.
    pub fn get(&self, index: u64) -> Option<Frame<'_>> {
        // Held until the frame has a reference of this call: a thread that takes the page out in
        // between would give up the last one, the cache's.
        let slots = self.slots.lock();
        match slots.get(index)? {
            PageSlot::Frame(pfn) => Some(self.host.mem.get(pfn)),
            PageSlot::Unread(_) | PageSlot::Swap(_) => None,
        }
    }
    /// Returns the first page in `[from, to)` that is in the cache, up to date or not.
    pub fn next(&self, from: u64, to: u64) -> Option<(u64, Frame<'_>)> {
        let slots = self.slots.lock();
        let mut at = from;
        loop {
            match slots.next(at, to)? {
                (index, PageSlot::Frame(pfn) | PageSlot::Unread(pfn)) => {
                    return Some((index, self.host.mem.get(pfn)));
                }
                (index, PageSlot::Swap(_)) => at = index + 1,
            }
        }
    }
    /// Returns true if a page has a reference beside those of the cache and of its mappings
    /// (`memfd_folio_has_extra_refs`).
    pub(super) fn has_held_page(&self) -> bool {
        let mem = &self.host.mem;
        let mut from = 0;
        while let Some((index, frame)) = self.next(from, u64::MAX) {
            // One reference is the cache's, one this call's.
            if mem.refcount(frame.pfn()) > mem.mapcount(frame.pfn()) + 2 {
                return true;
            }
            from = index + 1;
        }
        false
    }
    /// Returns true if page `index` is neither in the cache nor in swap.
    pub(super) fn is_hole(&self, index: u64) -> bool {
        self.slots.lock().get(index).is_none()
    }
    /// Returns true if page `index` is in swap.
    pub(super) fn is_swapped(&self, index: u64) -> bool {
        matches!(self.slots.lock().get(index), Some(PageSlot::Swap(_)))
    }
    /// Returns the pages of `[from, to)` that are in swap.
    pub(super) fn swapped(&self, from: u64, to: u64) -> Vec<u64> {
        let slots = self.slots.lock();
        let mut swapped = Vec::new();
        let mut at = from;
        while let Some((index, slot)) = slots.next(at, to) {
            swapped.extend(matches!(slot, PageSlot::Swap(_)).then_some(index));
            at = index + 1;
        }
        swapped
    }
    /// Returns true if the locked frame is page `index` of this cache; true until it is unlocked.
    pub fn holds(&self, locked: &FrameLock<'_>, index: u64) -> bool {
        self.host.mem.owner(locked.pfn()) == Some(self.mapping.owner(index))
    }
    /// Frees the swap slots of pages in `[from, to)`.
    pub(super) fn drop_swapped(&self, from: u64, to: u64) {
        let mut slots = self.slots.lock();
        let mut at = from;
        while let Some((index, slot)) = slots.next(at, to) {
            if let PageSlot::Swap(slot) = slot {
                slots.remove(index);
                self.host.mem.swap_free(slot);
            }
            at = index + 1;
        }
    }
    /// Takes page `index`, which has this frame, out of the cache.
    pub(super) fn take(&self, index: u64, pfn: Pfn) {
        let mem = &self.host.mem;
        let old = self.slots.lock().remove(index);
        debug_assert!(
            matches!(old, Some(PageSlot::Frame(p) | PageSlot::Unread(p)) if p == pfn),
            "page {index}"
        );
        mem.set_owner(pfn, None);
        drop(mem.adopt(pfn));
    }
    /// Adds a frame as page `index`, under the lock of the slots; `read`: it is up to date.
    pub(super) fn put(
        &self,
        mut slots: MutexGuard<'_, PageSlots>,
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
            true => PageSlot::Frame(pfn),
            false => PageSlot::Unread(pfn),
        };
        slots.insert(index, slot);
        if self.backing != Backing::Nothing {
            self.add_to_list(pfn);
        }
    }
    /// Adds a page to its list of reclaim, or keeps it from reclaim if the object is locked.
    pub(super) fn add_to_list(&self, pfn: Pfn) {
        let mem = &self.host.mem;
        if self.mapping.keeps_pages() {
            mem.set_flags(pfn, FrameFlags::UNEVICTABLE);
        }
        mem.lru_add(pfn);
    }
}

/// The flags of a page that goes to swap: one that has data, or that reclaim has begun to write.
const TO_SWAP: FrameFlags = FrameFlags::DIRTY.union(FrameFlags::RECLAIM);

impl PageCache {
    /// Notes that a page is wanted again that may be on its way to swap (`shmem_swapin_folio`).
    pub(super) fn take_back(&self, pfn: Pfn) {
        let mem = &self.host.mem;
        if self.backing == Backing::Swap && mem.flags(pfn).contains(FrameFlags::RECLAIM) {
            mem.set_flags(pfn, FrameFlags::DIRTY);
            mem.clear_flags(pfn, FrameFlags::RECLAIM);
        }
    }
}

impl PageKeeper for PageCache {
    fn folio(&self, index: u64) -> Option<Folio> {
        let slots = self.slots.lock();
        let pages = slots.folios.around(index);
        if pages.end - pages.start < 2 {
            return None;
        }
        let frame = |index| match slots.get(index) {
            Some(PageSlot::Frame(pfn)) => Some(pfn),
            Some(PageSlot::Unread(_) | PageSlot::Swap(_)) | None => None,
        };
        let frames: Vec<Pfn> = pages.clone().map(frame).collect::<Option<_>>()?;
        let is_huge = self.host.mem.is_large(frames[0]);
        (!is_huge).then_some(Folio {
            first: pages.start,
            frames,
        })
    }
    fn first_page(&self, pages: Range<u64>) -> Option<u64> {
        let (index, _) = self.slots.lock().next(pages.start, pages.end)?;
        Some(index)
    }
    fn forget_folio(&self, index: u64) {
        self.slots.lock().folios.forget(index);
    }
    fn evict(&self, locked: &FrameLock<'_>, index: u64) -> bool {
        let mem = &self.host.mem;
        let pfn = locked.pfn();
        let mut slots = self.slots.lock();
        if !self.holds(locked, index) || !mem.is_only_cached(pfn) {
            return false;
        }
        // A huge page is split first.
        if mem.is_large(pfn) {
            return false;
        }
        match self.backing {
            Backing::Nothing => return false,
            Backing::Store if mem.flags(pfn).contains(FrameFlags::DIRTY) => return false,
            Backing::Store => {
                slots.remove(index);
            }
            // The page was never written, nor allocated by `fallocate`, and reads as zero again
            // after a fault: it needs no swap.
            Backing::Swap if !mem.flags(pfn).intersects(TO_SWAP) && mem.reads_zero(pfn) => {
                slots.remove(index);
            }
            Backing::Swap => match mem.swap_store(pfn) {
                Some(slot) => {
                    slots.insert(index, PageSlot::Swap(slot));
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
    fn replace(&self, locked: &[FrameLock<'_>], first: u64, new: Pfn) -> bool {
        let mem = &self.host.mem;
        let pages = || (first..).zip(locked);
        let mut slots = self.slots.lock();
        let may_go = |(index, old): (u64, &FrameLock<'_>)| {
            let pfn = old.pfn();
            let is_read = slots.get(index) == Some(PageSlot::Frame(pfn));
            is_read && self.holds(old, index) && mem.is_only_cached(pfn)
        };
        if self.backing == Backing::Nothing || !pages().all(may_go) {
            return false;
        }
        for (nth, (index, _)) in (0..).zip(pages()) {
            let frame = mem.get(new.nth(nth));
            mem.set_owner(frame.pfn(), Some(self.mapping.owner(index)));
            slots.insert(index, PageSlot::Frame(frame.into_raw()));
        }
        drop(slots);
        for old in locked {
            mem.set_owner(old.pfn(), None);
            drop(mem.adopt(old.pfn()));
        }
        true
    }
    fn bring_back(&self, cx: &mut CallCx<'_>) -> Result<(), NoMemory> {
        for index in self.swapped(0, u64::MAX) {
            // Another page that cannot be read stays where it is.
            let back = self.filling(cx).get_swapped(index).map(drop);
            if let Err(ObjectError::NoMemory(why)) = back {
                return Err(why);
            }
        }
        Ok(())
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
                PageSlot::Frame(pfn) | PageSlot::Unread(pfn) => {
                    self.host.mem.set_owner(pfn, None);
                    drop(self.host.mem.adopt(pfn));
                }
                PageSlot::Swap(slot) => self.host.mem.swap_free(slot),
            }
        }
    }
}
