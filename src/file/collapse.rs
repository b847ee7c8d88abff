//! Making a huge page of small pages of an object (`collapse_file`), and splitting it again.
//!
//! Guarantee: while a frame of an object is marked as part of a huge page, that page is whole: its
//! 512 frames are the pages of one aligned block of the cache, in their order. The lock of the
//! first frame guards all of the page: the thread that holds it may make the page, map it as one,
//! split it or give it up.
//!
//! Under [`Cutting`] no page comes in. Each page is locked and taken out of all page tables before
//! any byte is copied. Until the new page is in the cache, a failure loses only mappings, which
//! faults make again.

use super::{ByDaemon, Cutting, HugePolicy, PageCache, cutting::Zeroed, slots::PageSlot};
use crate::{
    addr::{PAGE_SIZE, PMD_PAGES},
    ctx::{Cx, Rank, Sleepable, rank},
    error::{NoMemory, ObjectError},
    frame::{FrameFlags, FrameLock, HUGE, Large, LargeFrame},
    rmap::{Blocking, EvenCows, FrameOwner, Unmap, unmap_frame},
    sync::Despite,
};
use std::ops::Range;

/// Returns the first page of the block that page `index` lies in.
fn block_start(index: u64) -> u64 {
    index - index % PMD_PAGES
}

/// A page that becomes part of a huge page: nothing maps it, and only the cache and its lock refer
/// to it.
struct Taken<'c> {
    index: u64,
    locked: FrameLock<'c>,
}

impl PageCache {
    /// Returns the locked first frame of the huge page that page `index` is part of; `None` if it
    /// is part of none. While the frame is locked, the huge page is whole and in the cache.
    pub(super) fn lock_huge<R: Rank>(
        &self,
        cx: &mut Cx<'_, R, Sleepable>,
        index: u64,
    ) -> Option<FrameLock<'_>> {
        let first = block_start(index);
        let mem = self.host().mem();
        let is_part = |pfn| mem.is_large(pfn);
        let head = self.get(first).filter(|head| is_part(head.pfn()))?;
        let locked = mem.lock(cx, head);
        (self.holds(&locked, first) && is_part(locked.pfn())).then_some(locked)
    }
    /// Returns true if page `index` is part of a huge page.
    fn has_huge(&self, index: u64) -> bool {
        let part = self.get(index);
        part.is_some_and(|part| {
            let flags = self.host().mem().flags(part.pfn());
            flags.contains(FrameFlags::LARGE)
        })
    }
    /// Returns the pages that are in memory as one folio with page `index`.
    pub(super) fn together(&self, index: u64) -> Range<u64> {
        self.slots.lock().folios.around(index)
    }
    fn slot(&self, index: u64) -> Option<PageSlot> {
        self.slots.lock().get(index)
    }
    /// Scans a block without changes, and fails if a page of it has a reference beside its mappings
    /// (`hpage_collapse_scan_file`).
    fn scan(&self, first: u64) -> Result<(), ObjectError> {
        let mem = self.host().mem();
        let slots = self.slots.lock();
        let mut at = first;
        while let Some((index, slot)) = slots.next(at, first + PMD_PAGES) {
            let held = match slot {
                // A page that was reserved, and never used, is a page as any other.
                PageSlot::Frame(pfn) | PageSlot::Unread(pfn) => {
                    mem.refcount(pfn) != 1 + mem.mapcount(pfn)
                }
                PageSlot::Swap(_) => false,
            };
            if held {
                return Err(ObjectError::Again);
            }
            at = index + 1;
        }
        Ok(())
    }
}

impl<'c> Cutting<'c, '_> {
    /// Makes pages `[first, first + 512)` one huge page that nothing maps; holes in it read zero.
    /// Does nothing if they are a huge page already.
    ///
    /// # Errors
    ///
    /// [`ObjectError::Again`] if a page is in use beside its mappings, [`ObjectError::NoMemory`] if
    /// no huge page is free, [`ObjectError::Beyond`] if all pages are holes. No byte is lost then,
    /// but pages may have lost their mappings.
    pub(super) fn collapse(&mut self, first: u64) -> Result<(), ObjectError> {
        debug_assert!(first.is_multiple_of(PMD_PAGES));
        if self.cache().has_huge(first) {
            return Ok(());
        }
        self.cache().scan(first)?;
        let mem = self.cache().host().mem();
        let huge = mem.alloc_huge().map_err(|_| NoMemory::Frame)?;
        let taken = self.take_small(first)?;
        self.put_huge(first, huge, taken);
        Ok(())
    }
    /// Does as [`collapse`](Self::collapse) does, for the daemon only if the pages suit it.
    ///
    /// # Errors
    ///
    /// Those, and [`ObjectError::Unsupported`]: they do not suit it.
    pub(super) fn collapse_as(
        &mut self,
        first: u64,
        how: (HugePolicy, u64),
        by: Option<ByDaemon>,
    ) -> Result<(), ObjectError> {
        match by {
            Some(by) if !self.cache().suits(first, how, &by) => Err(ObjectError::Unsupported),
            _ => self.collapse(first),
        }
    }
    /// Locks the pages of the block that exist, and takes them out of all page tables.
    fn take_small(&mut self, first: u64) -> Result<Vec<Taken<'c>>, ObjectError> {
        let cache = self.cache();
        let end = first + PMD_PAGES;
        if cache.slots.lock().next(first, end).is_none() {
            return Err(ObjectError::Beyond(first));
        }
        let mut taken = Vec::new();
        for index in first..end {
            if cache.slot(index).is_some() {
                let folio = cache.together(index);
                if folio.start == index && folio.end - index > 1 {
                    self.unmap_folio(folio, false);
                }
                let locked = self.take_one(index)?;
                taken.push(Taken { index, locked });
            }
        }
        Ok(taken)
    }
    /// Locks one page and takes it out of all page tables.
    fn take_one(&mut self, index: u64) -> Result<FrameLock<'c>, ObjectError> {
        let cache = self.cache();
        let mem = cache.host().mem();
        // A page that cannot be read back from swap fails the whole block (`SCAN_FAIL`).
        let found = self.filling().get_swapped(index);
        let frame = found.ok().flatten().ok_or(ObjectError::Unsupported)?;
        let locked = mem.try_lock(frame).map_err(|_| ObjectError::Again)?;
        let is_read = cache.slot(index) == Some(PageSlot::Frame(locked.pfn()));
        if !is_read || !cache.holds(&locked, index) {
            return Err(ObjectError::Again);
        }
        if mem.mapcount(locked.pfn()) > 0 {
            let how = (Unmap::Replace, Blocking::May);
            let mut cx = self.cx().descend::<rank::Folio, _>();
            let registry = &cache.host().registry;
            // A mapping that stays is found below by its reference.
            let _stays = unmap_frame(registry, mem, &mut cx, &locked, how.0, how.1);
        }
        // The references are those of the cache and of the lock.
        match mem.refcount(locked.pfn()) {
            2 => Ok(locked),
            _ => Err(ObjectError::Again),
        }
    }
    /// Puts the huge page in the place of the small ones, and drops the tables that mapped these.
    fn put_huge(&mut self, first: u64, huge: LargeFrame<'c>, taken: Vec<Taken<'c>>) {
        let cache = self.cache();
        let mem = cache.host().mem();
        let head = huge.head();
        for page in &taken {
            mem.copy(page.locked.pfn(), head.nth(nth(page.index)));
        }
        for i in 0..HUGE {
            let pfn = head.nth(i);
            mem.set_flags(pfn, FrameFlags::SWAP_BACKED | FrameFlags::DIRTY);
            let owner = cache.mapping().owner(first + u64::from(i));
            mem.set_owner(pfn, Some(owner));
        }
        let whole = mem.try_lock(mem.get(head));
        let whole = whole.expect("no other thread knows the frame");
        let mut slots = cache.slots.lock();
        let head = huge.into_raw();
        for i in 0..HUGE {
            slots.insert(first + u64::from(i), PageSlot::Frame(head.nth(i)));
        }
        slots.folios.join(first, HUGE.trailing_zeros());
        drop(slots);
        (0..HUGE).for_each(|i| mem.lru_add(head.nth(i)));
        // A thread that waits for the lock of one of these finds that it is no page of the object.
        let give_up = |page: Taken<'c>| {
            mem.set_owner(page.locked.pfn(), None);
            (mem.adopt(page.locked.pfn()), page.locked)
        };
        let _gone: Vec<_> = taken.into_iter().map(give_up).collect();
        let mut cx = self.cx().descend::<rank::Folio, _>();
        cache.mapping().retract(&mut cx, first, head);
        drop(whole);
    }
    /// Splits the folios that lie across an end of the bytes (`truncate_inode_partial_folio`).
    ///
    /// # Panics
    ///
    /// If a driver panicked; only mappings were changed then.
    pub(super) fn split_edges(&mut self, bytes: Range<u64>) {
        if bytes.is_empty() {
            return;
        }
        let pages = bytes.start.div_ceil(PAGE_SIZE)..bytes.end / PAGE_SIZE;
        let partly = |folio: &Range<u64>| {
            folio.end - folio.start > 1 && !(pages.start <= folio.start && folio.end <= pages.end)
        };
        let low = self.cache().together(bytes.start / PAGE_SIZE);
        if partly(&low) {
            self.split_around(low.clone(), &bytes);
        }
        let last = (bytes.end - 1) / PAGE_SIZE;
        let high = self.cache().together(last);
        if last >= low.end && partly(&high) {
            self.split_around(high, &bytes);
        }
    }
    /// Splits a folio at the page where the bytes begin in it, and the rest of it at the page where
    /// they end.
    fn split_around(&mut self, folio: Range<u64>, bytes: &Range<u64>) {
        let begin = (bytes.start / PAGE_SIZE).max(folio.start);
        let end = bytes.end / PAGE_SIZE;
        self.split(folio.clone(), begin);
        if end < folio.end {
            let rest = self.cache().together(end);
            if rest.end - rest.start > 1 {
                self.split(rest, end);
            }
        }
    }
    /// Cuts at `size` without a visit of the mappings behind it: zeroes the rest of the last page,
    /// and removes the pages behind it, which came in as parts of a huge page.
    pub(super) fn trim(&mut self, size: u64) -> Despite {
        self.split_edges(size..u64::MAX);
        self.zero_rest(size, Zeroed::Dirty);
        let mut despite = Despite::default();
        self.remove_despite(size.div_ceil(PAGE_SIZE), u64::MAX, &mut despite);
        despite
    }
    /// Drops all mappings of the folio, and splits it so that page `at` is alone.
    fn split(&mut self, folio: Range<u64>, at: u64) {
        let cache = self.cache();
        let mem = cache.host().mem();
        let pages = folio.clone();
        if let Some(locked) = cache.lock_huge(self.cx(), folio.start) {
            let mut cx = self.cx().descend::<rank::Folio, _>();
            let mapping = cache.mapping();
            let whole = (folio.start, folio.start + PMD_PAGES);
            mapping.unmap_huge(mem, cx.descend(), locked.pfn(), whole);
            mem.forget_large(Large::huge(locked.pfn()));
        } else {
            self.unmap_folio(folio, true);
        }
        cache.slots.lock().folios.split_at(at);
        self.drop_behind_end(pages);
    }
    /// Removes the folios among `pages`, which nothing maps, that lie behind the end of the object
    /// (`__folio_split`).
    fn drop_behind_end(&mut self, pages: Range<u64>) {
        let end = self.end();
        if end >= pages.end {
            return;
        }
        let across = self.cache().together(end);
        let from = if across.start < end { across.end } else { end };
        self.remove(from.max(pages.start), pages.end);
    }
    /// Drops all mappings of a folio, VMA by VMA, each in a window over its part, until none stays
    /// (`try_to_unmap`). With `always`, the first VMA gets its window in any case.
    fn unmap_folio(&mut self, folio: Range<u64>, always: bool) {
        let cache = self.cache();
        let mem = cache.host().mem();
        let is_mapped = || {
            let mut pages = folio.clone();
            pages.any(|page| cache.get(page).is_some_and(|f| mem.mapcount(f.pfn()) > 0))
        };
        let mapping = cache.mapping();
        if always || is_mapped() {
            let pages = (folio.start, folio.end);
            mapping.unmap_while(self.cx(), pages, EvenCows::No, is_mapped);
        }
    }
    /// Ends the huge page that page `index` is part of, if it is: all of its pages are about to be
    /// removed, and no fault maps them as one from here on.
    pub(super) fn give_up_huge(&mut self, index: u64) {
        let cache = self.cache();
        if let Some(locked) = cache.lock_huge(self.cx(), index) {
            cache.host().mem().forget_large(Large::huge(locked.pfn()));
            cache.slots.lock().folios.forget(index);
        }
    }
}

/// Returns the place of a page in its block.
fn nth(index: u64) -> u32 {
    u32::try_from(index % PMD_PAGES).expect("less than 512")
}
