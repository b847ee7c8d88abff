//! Cutting pages out of an object: truncation, and punching holes.
//!
//! Guarantee: while a [`Cutting`] lives, only its holder brings pages into the cache. So blocks
//! that are released after their pages are not read again in between.
//!
//! Rule: *until the first page is removed, a panic of a driver leaves all as it was; from then on
//! the cut is finished first*, and the panic goes on after that
//! (docs/adr/0024-a-panic-does-or-undoes.md). An object that was cut in part would have lost the
//! bytes of its pages and still show the bytes below.

use super::{PageCache, filling::Filling, io::ByteSpan};
use crate::{
    addr::PAGE_SIZE,
    ctx::{Below, Cx, FolioCx, Sleepable, rank},
    error::ObjectError,
    frame::{FrameFlags, FrameLock},
    rmap::{EvenCows, PageKeeper},
    sync::{Despite, RwLockWriteGuard},
};
use std::{fmt, ops::Range};

/// The state of bytes that were zeroed in the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Zeroed {
    /// They have to be written back.
    Dirty,
    /// The object zeroes its blocks itself.
    Clean,
}

/// The right to cut pages out of a cache. No page comes in meanwhile, by faults, reads or
/// read-ahead (`filemap_invalidate_lock`).
#[must_use]
pub struct Cutting<'c, 't> {
    filling: Filling<'c, 't>,
    cache: &'c PageCache,
    /// The number of pages of the object; `u64::MAX` where it does not matter.
    end: u64,
    _alone: RwLockWriteGuard<'c, ()>,
}

impl PageCache {
    /// Keeps pages from coming in, so that some can be cut off. Waits for pages that are being
    /// read.
    pub fn cutting<'c, 't, R: Below<rank::Cache>>(
        &'c self,
        cx: &'t mut Cx<'_, R, Sleepable>,
    ) -> Cutting<'c, 't> {
        let alone = self.extent.write();
        Cutting {
            filling: Filling::lent(self, cx.descend()),
            cache: self,
            end: u64::MAX,
            _alone: alone,
        }
    }
    /// Removes all mappings of a locked page.
    fn unmap(&self, cx: &mut FolioCx<'_>, locked: &FrameLock<'_>, index: u64) {
        let mem = self.host().mem();
        let pfn = locked.pfn();
        if mem.mapcount(pfn) > 0 {
            self.mapping().unmap_frame(mem, cx, index, pfn);
        }
    }
    /// Takes a locked page that is not mapped out of the cache; its bytes are lost.
    pub(super) fn take_clean(&self, locked: &FrameLock<'_>, index: u64) {
        let pfn = locked.pfn();
        self.host().mem().clear_flags(pfn, FrameFlags::DIRTY);
        self.take(index, pfn);
    }
}

impl<'c, 't> Cutting<'c, 't> {
    /// Returns the right to bring pages in, for the holder of this one.
    pub(super) fn filling(&mut self) -> &mut Filling<'c, 't> {
        &mut self.filling
    }
    /// Returns the token below the lock.
    pub(super) fn cx(&mut self) -> &mut Cx<'t, rank::Cache, Sleepable> {
        self.filling.cx()
    }
    /// Notes how many pages the object has.
    pub(super) fn with_end(mut self, end: u64) -> Self {
        self.end = end;
        self
    }
    /// Returns the number of pages of the object; `u64::MAX` if it was not noted.
    pub(super) fn end(&self) -> u64 {
        self.end
    }
    /// Returns the cache whose pages are cut.
    pub(super) fn cache(&self) -> &'c PageCache {
        self.cache
    }
    /// Reads the pages at both ends of the range back from swap if the range ends inside of them,
    /// so that nothing can fail later.
    ///
    /// # Errors
    ///
    /// No frame is free; nothing was changed.
    pub fn bring_edges(&mut self, bytes: Range<u64>) -> Result<(), ObjectError> {
        for edge in [bytes.start, bytes.end] {
            if !edge.is_multiple_of(PAGE_SIZE) && self.cache.is_swapped(edge / PAGE_SIZE) {
                self.filling.get_swapped(edge / PAGE_SIZE)?;
            }
        }
        Ok(())
    }
    /// Removes pages `[from, to)` from the cache, each under its lock, with the mappings that a
    /// racing fault may have made (`truncate_inode_pages_range`). Dirty pages are lost on purpose.
    ///
    /// # Panics
    ///
    /// If a driver panics, but after all pages were removed.
    pub fn remove(&mut self, from: u64, to: u64) {
        let mut despite = Despite::default();
        self.remove_despite(from, to, &mut despite);
        despite.resume();
    }
    /// Removes pages `[from, to)`; collects the panics of drivers.
    pub(super) fn remove_despite(&mut self, from: u64, to: u64, despite: &mut Despite) {
        let cache = self.cache;
        let mut at = from;
        while let Some((index, frame)) = cache.next(at, to) {
            self.give_up_huge(index);
            let locked = cache.host().mem().lock(self.cx(), frame);
            if cache.holds(&locked, index) {
                let mut cx = self.cx().descend::<rank::Folio, _>();
                despite.call(|| cache.unmap(&mut cx, &locked, index));
                // If a driver kept a window from opening, the page is still mapped and stays.
                if cache.host().mem().mapcount(locked.pfn()) == 0 {
                    cache.take_clean(&locked, index);
                }
            }
            at = index + 1;
        }
        cache.drop_swapped(from, to);
    }
    /// Does all that every object does when it is truncated: both passes over all mappings, the
    /// pages between them, and zeros in the rest of a partial last page that is in memory
    /// (`truncate_pagecache`).
    ///
    /// # Panics
    ///
    /// If a driver panics: before anything is cut, or after all is.
    pub fn truncate(&mut self, size: u64) {
        self.truncate_as(size, Zeroed::Dirty).resume();
    }
    /// Truncates the cache; the caller resumes a driver's panic after it has done the rest.
    pub(super) fn truncate_as(&mut self, size: u64, zeroed: Zeroed) -> Despite {
        let from = size.div_ceil(PAGE_SIZE);
        let mapping = self.cache.mapping();
        mapping.unmap(self.cx(), from, u64::MAX, EvenCows::Yes);
        self.split_edges(size..u64::MAX);
        self.zero_rest(size, zeroed);
        let mut despite = Despite::default();
        self.remove_despite(from, u64::MAX, &mut despite);
        // Private copies that a racing fault made of a page before it was removed.
        despite.call(|| mapping.unmap(self.cx(), from, u64::MAX, EvenCows::Yes));
        despite.call(|| self.cache.host().settle_exports(self.filling.cx()));
        despite
    }
    /// Does all that every object does when a hole is punched (`truncate_pagecache_range`): bytes
    /// `[from, end)` read zero.
    ///
    /// # Panics
    ///
    /// If a driver panics, as in [`truncate`](Self::truncate).
    pub fn punch(&mut self, from: u64, end: u64) {
        self.punch_as(from, end, Zeroed::Dirty).resume();
    }
    /// Punches a hole; the caller resumes a driver's panic after it has done the rest.
    pub(super) fn punch_as(&mut self, from: u64, end: u64, zeroed: Zeroed) -> Despite {
        let (first, last) = (from.div_ceil(PAGE_SIZE), end / PAGE_SIZE);
        // The last byte to be unmapped is `last * PAGE_SIZE - 1`, compared without a sign: for a
        // hole that ends in page 0 it is the highest byte there is, as on Linux.
        let unmapped = if last == 0 { u64::MAX } else { last };
        if first < unmapped {
            let mapping = self.cache.mapping();
            mapping.unmap(self.cx(), first, unmapped, EvenCows::No);
        }
        self.split_edges(from..end);
        self.zero(from..end.min(first.saturating_mul(PAGE_SIZE)), zeroed);
        self.zero(from.max(last * PAGE_SIZE)..end, zeroed);
        let mut despite = Despite::default();
        if first < last {
            self.remove_despite(first, last, &mut despite);
        }
        despite.call(|| self.cache.host().settle_exports(self.filling.cx()));
        despite
    }
    /// Drops the clean pages of a range with their mappings, private copies excepted
    /// (`invalidate_inode_pages2_range`): one pass over all mappings from the first mapped page on,
    /// then page by page. Returns false if a page stays, since it is dirty.
    ///
    /// # Panics
    ///
    /// If a driver panics; pages whose window was kept from opening stay, mapped.
    pub(super) fn invalidate(&mut self, pages: Range<u64>) -> bool {
        let cache = self.cache;
        let mem = cache.host().mem();
        let mut despite = Despite::default();
        let (mut passed, mut all) = (false, true);
        let mut at = pages.start;
        while let Some((index, frame)) = cache.next(at, pages.end) {
            if !passed && mem.mapcount(frame.pfn()) > 0 {
                let mapping = cache.mapping();
                despite.call(|| mapping.unmap(self.cx(), index, pages.end, EvenCows::No));
                passed = true;
            }
            let locked = mem.lock(self.cx(), frame);
            if cache.holds(&locked, index) {
                let mut cx = self.cx().descend::<rank::Folio, _>();
                despite.call(|| cache.unmap(&mut cx, &locked, index));
                let dirty = mem.flags(locked.pfn()).contains(FrameFlags::DIRTY);
                if dirty || mem.mapcount(locked.pfn()) > 0 {
                    all = false;
                } else {
                    cache.take(index, locked.pfn());
                }
            }
            at = index + 1;
        }
        despite.call(|| cache.host().settle_exports(self.filling.cx()));
        despite.resume();
        all
    }
    /// Drops the clean pages of a range that nothing uses, but those that `keep` names
    /// (`mapping_evict_folio`). Returns true if one of the others stays.
    pub(super) fn drop_idle(&mut self, pages: Range<u64>, keep: impl Fn(u64) -> bool) -> bool {
        let cache = self.cache;
        let mut stays = false;
        let mut at = pages.start;
        while let Some((index, frame)) = cache.next(at, pages.end) {
            if !keep(index) {
                let locked = cache.host().mem().try_lock(frame);
                stays |= !locked.is_ok_and(|locked| cache.evict(&locked, index));
            }
            at = index + 1;
        }
        stays
    }
    /// Zeros the page that `end` lies inside of, from `end` on.
    pub(super) fn zero_rest(&mut self, end: u64, zeroed: Zeroed) {
        self.zero(
            end..end.div_ceil(PAGE_SIZE).saturating_mul(PAGE_SIZE),
            zeroed,
        );
    }
    /// Zeros bytes of one page, if it is in memory.
    fn zero(&mut self, bytes: Range<u64>, zeroed: Zeroed) {
        let index = bytes.start / PAGE_SIZE;
        if bytes.is_empty() || self.cache.is_swapped(index) {
            return;
        }
        let Some((found, frame)) = self.cache.next(index, index + 1) else {
            return;
        };
        let mem = self.cache.host().mem();
        let locked = mem.lock(self.cx(), frame);
        if self.cache.holds(&locked, found) {
            ByteSpan::of(bytes).zero(locked.frame());
            if zeroed == Zeroed::Dirty {
                mem.set_flags(locked.pfn(), FrameFlags::DIRTY);
            }
        }
    }
}

impl fmt::Debug for Cutting<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Cutting").field(&self.cache).finish()
    }
}
