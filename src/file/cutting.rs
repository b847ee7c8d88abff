//! Pages go for good: an object is cut, or a hole is punched in it.
//!
//! Guarantee: while a [`Cutting`] lives no page comes into the cache but by who holds it. So blocks that are given up
//! after the pages are read by nobody in between.
//!
//! Rule: *until the first page goes, a panic of a driver leaves all as it was; from then on the cut is finished first*, and
//! the panic goes on after that. In between, a file would have lost what was in its pages and still show what lies below.

use super::{PageCache, filling::Filling, io::Reach};
use crate::ctx::FolioCx;

use crate::{
    addr::PAGE_SIZE,
    ctx::{Below, Cx, Sleepable, rank},
    error::ObjectError,
    frame::{FrameFlags, FrameLock},
    rmap::EvenCows,
    sync::{Despite, RwLockWriteGuard},
};
use std::{fmt, ops::Range};

/// Whether the bytes of a page that were zeroed in the cache have to be written back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Zeroed {
    /// They have.
    Dirty,
    /// The object sees to its blocks.
    Clean,
}

/// Pages may be cut out of a cache: none comes in meanwhile, by faults, reads or reading ahead
/// (`filemap_invalidate_lock`).
#[must_use]
pub struct Cutting<'c, 't> {
    filling: Filling<'c, 't>,
    cache: &'c PageCache,
    _alone: RwLockWriteGuard<'c, ()>,
}

impl PageCache {
    /// Keeps pages from coming in, so that some can be cut off. Waits for those that are being read.
    pub fn cutting<'c, 't, R: Below<rank::Cache>>(
        &'c self,
        cx: &'t mut Cx<'_, R, Sleepable>,
    ) -> Cutting<'c, 't> {
        let alone = self.extent.write();
        Cutting {
            filling: Filling::lent(self, cx.descend()),
            cache: self,
            _alone: alone,
        }
    }
    /// Drops the mappings of a locked page.
    fn unmap(&self, cx: &mut FolioCx<'_>, locked: &FrameLock<'_>, index: u64) {
        let mem = self.host().mem();
        let pfn = locked.pfn();
        if mem.mapcount(pfn) > 0 {
            self.mapping().unmap_frame(mem, cx, index, pfn);
        }
    }
    /// Takes a locked page out that nothing maps.
    fn take_clean(&self, locked: &FrameLock<'_>, index: u64) {
        let pfn = locked.pfn();
        self.host().mem().clear_flags(pfn, FrameFlags::DIRTY);
        self.take(index, pfn);
    }
}

impl<'c, 't> Cutting<'c, 't> {
    /// Pages may come in as well, by who cuts.
    pub(super) fn filling(&mut self) -> &mut Filling<'c, 't> {
        &mut self.filling
    }
    pub(super) fn cx(&mut self) -> &mut Cx<'t, rank::Cache, Sleepable> {
        self.filling.cx()
    }
    pub(super) fn cache(&self) -> &'c PageCache {
        self.cache
    }
    /// Brings back from swap the pages of which only a part goes, so that nothing can fail later.
    ///
    /// # Errors
    ///
    /// No frame is left; nothing was changed.
    pub fn bring_edges(&mut self, bytes: Range<u64>) -> Result<(), ObjectError> {
        for edge in [bytes.start, bytes.end] {
            if !edge.is_multiple_of(PAGE_SIZE) && self.cache.is_swapped(edge / PAGE_SIZE) {
                self.filling.get_swapped(edge / PAGE_SIZE)?;
            }
        }
        Ok(())
    }
    /// Takes pages `[from, to)` out, each under its lock; drops the mappings that a racing fault may have made
    /// (`truncate_inode_pages_range`). Dirty ones are lost: that is the point.
    ///
    /// # Panics
    ///
    /// When it is done, if a driver did.
    pub fn remove(&mut self, from: u64, to: u64) {
        let mut despite = Despite::default();
        self.remove_despite(from, to, &mut despite);
        despite.resume();
    }
    pub(super) fn remove_despite(&mut self, from: u64, to: u64, despite: &mut Despite) {
        let cache = self.cache;
        let mut at = from;
        while let Some((index, frame)) = cache.next(at, to) {
            self.give_up_huge(index);
            let locked = cache.host().mem().lock(self.cx(), frame);
            if cache.holds(&locked, index) {
                let mut cx = self.cx().descend::<rank::Folio, _>();
                despite.call(|| cache.unmap(&mut cx, &locked, index));
                // Where a driver kept a window from opening the page is mapped still.
                if cache.host().mem().mapcount(locked.pfn()) == 0 {
                    cache.take_clean(&locked, index);
                }
            }
            at = index + 1;
        }
        cache.drop_swapped(from, to);
    }
    /// What every object does when it is cut: both passes over all mappings, the pages between them, and zeros in the
    /// rest of a partial last page that is in memory (`truncate_pagecache`).
    ///
    /// # Panics
    ///
    /// If a driver did: before anything is cut, or when all is.
    pub fn truncate(&mut self, size: u64) {
        self.truncate_as(size, Zeroed::Dirty).resume();
    }
    /// The same; a panic goes on when the caller has done the rest.
    pub(super) fn truncate_as(&mut self, size: u64, zeroed: Zeroed) -> Despite {
        let from = size.div_ceil(PAGE_SIZE);
        let mapping = self.cache.mapping();
        mapping.unmap(self.cx(), from, u64::MAX, EvenCows::Yes);
        self.split_edges(size..u64::MAX);
        self.zero_rest(size, zeroed);
        let mut despite = Despite::default();
        self.remove_despite(from, u64::MAX, &mut despite);
        // Private copies that a racing fault made of a page that was going.
        despite.call(|| mapping.unmap(self.cx(), from, u64::MAX, EvenCows::Yes));
        despite.call(|| self.cache.host().settle_exports(self.filling.cx()));
        despite
    }
    /// The same for what every object does when a hole is punched (`truncate_pagecache_range`).
    ///
    /// # Panics
    ///
    /// As [`truncate`](Self::truncate).
    pub fn punch(&mut self, from: u64, end: u64) {
        self.punch_as(from, end, Zeroed::Dirty).resume();
    }
    /// The same; a panic goes on when the caller has done the rest.
    pub(super) fn punch_as(&mut self, from: u64, end: u64, zeroed: Zeroed) -> Despite {
        let (first, last) = (from.div_ceil(PAGE_SIZE), end / PAGE_SIZE);
        // The last byte to be unmapped is `last * PAGE_SIZE - 1`, compared without a sign: of a hole that ends in page
        // 0 it is the highest there is, as on Linux.
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
    /// Zeros the rest of the page that an end lies inside of.
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
            Reach::of(bytes).zero(locked.frame());
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
