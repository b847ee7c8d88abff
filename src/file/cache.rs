//! The pages of an object that are in memory: `i_pages`.
//!
//! Guarantee: a frame in the cache has a reference from it and is owned by the object's mapping at its index; a frame
//! that was taken out is mapped nowhere and owned by nobody.

use super::{
    host::Host,
    slots::{Slot, Slots},
};
use crate::{
    addr::{PAGE_SIZE, Pfn},
    ctx::{Below, Cx, Sleepable, rank},
    error::{NoMemory, ObjectError},
    frame::{AllocKind, Frame, FrameFlags, FrameLock},
    rmap::{EvenCows, Evict, Mapping},
    sync::Mutex,
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
    /// A clean page can be read again; a dirty one stays until it is written back.
    Store,
    /// They stay.
    Nothing,
}

/// Frames by page number, and who maps them.
pub struct PageCache {
    backing: Backing,
    host: Host,
    mapping: Arc<Mapping>,
    slots: Mutex<Slots>,
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
            }
        }))
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
    /// The frame of page `index` if it is there.
    pub fn get(&self, index: u64) -> Option<Frame<'_>> {
        let slots = self.slots.lock();
        match slots.get(index)? {
            Slot::Frame(pfn) => Some(self.host.mem.get(pfn)),
            Slot::Swap(_) => None,
        }
    }
    /// The frame of page `index`; a new one, which reads zero until `fill` has filled it, if there is none. Says
    /// whether it is new.
    ///
    /// # Errors
    ///
    /// No frame is left, or what `fill` returned; the page is not in the cache then.
    pub fn get_or_make(
        &self,
        index: u64,
        fill: impl FnOnce(&Frame<'_>) -> Result<(), ObjectError>,
    ) -> Result<(Frame<'_>, bool), ObjectError> {
        let mem = &self.host.mem;
        let mut slots = self.slots.lock();
        let old = slots.get(index);
        if let Some(Slot::Frame(pfn)) = old {
            return Ok((mem.get(pfn), false));
        }
        let frame = mem.alloc().map_err(|_| NoMemory::Frame)?;
        match old {
            Some(Slot::Swap(slot)) => {
                mem.swap_load(slot, &frame);
                mem.set_flags(frame.pfn(), FrameFlags::DIRTY);
            }
            _ => fill(&frame)?,
        }
        if self.backing == Backing::Swap {
            mem.set_flags(frame.pfn(), FrameFlags::SWAP_BACKED);
        }
        mem.set_owner(frame.pfn(), Some(self.mapping.owner(index)));
        slots.insert(index, Slot::Frame(frame.clone().into_raw()));
        if self.backing != Backing::Nothing {
            mem.lru_add(frame.pfn());
        }
        Ok((frame, true))
    }
    /// The first page at or above `from`, below `to`, that is in the cache.
    pub fn next(&self, from: u64, to: u64) -> Option<(u64, Frame<'_>)> {
        let slots = self.slots.lock();
        let mut at = from;
        loop {
            match slots.next(at, to)? {
                (index, Slot::Frame(pfn)) => return Some((index, self.host.mem.get(pfn))),
                (index, Slot::Swap(_)) => at = index + 1,
            }
        }
    }
    /// The frame of page `index`, brought back from swap if it is there; `None`: a hole.
    ///
    /// # Errors
    ///
    /// No frame is left to bring it back to.
    pub fn get_swapped(&self, index: u64) -> Result<Option<Frame<'_>>, ObjectError> {
        let slot = self.slots.lock().get(index);
        match slot {
            None => Ok(None),
            Some(_) => Ok(Some(self.get_or_make(index, |_| Ok(()))?.0)),
        }
    }
    /// Whether the locked frame is still page `index`.
    pub fn holds(&self, locked: &FrameLock<'_>, index: u64) -> bool {
        self.host.mem.owner(locked.pfn()) == Some(self.mapping.owner(index))
    }
    /// Takes pages `[from, to)` out, each under its lock; drops the mappings that a racing fault may have made
    /// (`truncate_inode_pages_range`). Dirty ones are lost: that is the point.
    pub fn remove<R: Below<rank::Folio>>(&self, cx: &mut Cx<'_, R, Sleepable>, from: u64, to: u64) {
        let mut at = from;
        while let Some((index, frame)) = self.next(at, to) {
            let locked = self.host.mem.lock(cx, frame);
            if self.holds(&locked, index) {
                let mut cx = cx.descend::<rank::Folio, _>();
                self.forget(&mut cx, &locked, index);
            }
            at = index + 1;
        }
        self.drop_swapped(from, to);
    }
    /// Gives up the pages of `[from, to)` that are in swap.
    fn drop_swapped(&self, from: u64, to: u64) {
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
    /// Takes one locked page out.
    pub(super) fn forget(
        &self,
        cx: &mut Cx<'_, rank::Folio, Sleepable>,
        locked: &FrameLock<'_>,
        index: u64,
    ) {
        let mem = &self.host.mem;
        let pfn = locked.pfn();
        if mem.mapcount(pfn) > 0 {
            self.mapping.unmap_frame(mem, cx, index, pfn);
        }
        mem.clear_flags(pfn, FrameFlags::DIRTY);
        self.take(index, pfn);
    }
    fn take(&self, index: u64, pfn: Pfn) {
        let mem = &self.host.mem;
        let old = self.slots.lock().remove(index);
        debug_assert_eq!(old, Some(Slot::Frame(pfn)), "page {index}");
        mem.set_owner(pfn, None);
        drop(mem.adopt(pfn));
    }
    /// What every object does when its size shrinks: both passes over all mappings, the pages between them, and zeros
    /// in the rest of a partial last page (`truncate_pagecache`).
    pub fn truncate<R: Below<rank::Folio> + Below<rank::Rmap>>(
        &self,
        cx: &mut Cx<'_, R, Sleepable>,
        size: u64,
    ) {
        let from = size.div_ceil(PAGE_SIZE);
        self.mapping.unmap(cx, from, u64::MAX, EvenCows::Yes);
        self.zero(size, from * PAGE_SIZE);
        self.remove(cx, from, u64::MAX);
        // Private copies that a racing fault made of a page that was going.
        self.mapping.unmap(cx, from, u64::MAX, EvenCows::Yes);
        self.host.settle_exports(cx);
    }
    /// What every object does when a hole is punched (`truncate_pagecache_range`).
    pub fn punch<R: Below<rank::Folio> + Below<rank::Rmap>>(
        &self,
        cx: &mut Cx<'_, R, Sleepable>,
        from: u64,
        end: u64,
    ) {
        let (first, last) = (from.div_ceil(PAGE_SIZE), end / PAGE_SIZE);
        if first < last {
            self.mapping.unmap(cx, first, last, EvenCows::No);
        }
        self.zero(from, end.min(first * PAGE_SIZE));
        self.zero(from.max(last * PAGE_SIZE), end);
        if first < last {
            self.remove(cx, first, last);
        }
        self.host.settle_exports(cx);
    }
    /// Zeros bytes `[from, end)` of one page, if it is in the cache.
    fn zero(&self, from: u64, end: u64) {
        if from >= end {
            return;
        }
        // A page that cannot be brought back for want of frames keeps its rest: it is zeroed when it comes.
        if let Ok(Some(frame)) = self.get_swapped(from / PAGE_SIZE) {
            let len = usize::try_from(end - from).expect("within a page");
            let offset = usize::try_from(from % PAGE_SIZE).expect("within a page");
            frame.write(offset, &vec![0; len]);
            self.host.mem.set_flags(frame.pfn(), FrameFlags::DIRTY);
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
                None => return false,
            },
        }
        drop(slots);
        mem.set_owner(pfn, None);
        drop(mem.adopt(pfn));
        true
    }
    fn replace(&self, locked: &FrameLock<'_>, index: u64, new: &Frame<'_>) -> bool {
        let mem = &self.host.mem;
        let pfn = locked.pfn();
        let mut slots = self.slots.lock();
        let idle = mem.refcount(pfn) == 2 && mem.mapcount(pfn) == 0;
        if self.backing == Backing::Nothing || !self.holds(locked, index) || !idle {
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
                Slot::Frame(pfn) => {
                    self.host.mem.set_owner(pfn, None);
                    drop(self.host.mem.adopt(pfn));
                }
                Slot::Swap(slot) => self.host.mem.swap_free(slot),
            }
        }
    }
}
