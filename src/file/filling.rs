//! Bringing pages into a cache, excluded from cutting pages out of it.
//!
//! A new page is in the cache, locked and not up to date, while it is read. So one thread reads it,
//! the others wait for its lock, and no lock of the cache is held meanwhile.

use super::{PageCache, slots::PageSlot};
use crate::{
    ctx::{Below, Cx, Sleepable, rank},
    error::{NoMemory, ObjectError},
    frame::{Frame, FrameFlags, FrameLock, MAX_INDEX},
    sync::RwLockReadGuard,
};
use std::fmt;

/// The right to bring pages into a cache. No page is cut off meanwhile, so the size of the object
/// that the holder has read stays valid as a bound.
#[must_use]
pub struct Filling<'c, 't> {
    cache: &'c PageCache,
    cx: Cx<'t, rank::Cache, Sleepable>,
    /// `None`: a [`Cutting`](super::Cutting) holds the lock exclusively and lends this.
    _shared: Option<RwLockReadGuard<'c, ()>>,
}

impl<'c, 't> Filling<'c, 't> {
    /// Returns the right for a caller that holds the lock exclusively.
    pub(super) fn lent(cache: &'c PageCache, cx: Cx<'t, rank::Cache, Sleepable>) -> Self {
        Self {
            cache,
            cx,
            _shared: None,
        }
    }
    /// Returns the cache that is filled.
    pub(super) fn cache(&self) -> &'c PageCache {
        self.cache
    }
    /// Returns the token below the lock.
    pub(super) fn cx(&mut self) -> &mut Cx<'t, rank::Cache, Sleepable> {
        &mut self.cx
    }
    /// Returns the frame of page `index`, and true if it is new. A missing page gets a new frame,
    /// which reads zero until `fill` has filled it. `fill` runs with the page locked: threads that
    /// want the page wait, and `fill` must not wait for them.
    ///
    /// # Errors
    ///
    /// [`ObjectError::Beyond`] for a page that no object can have; no frame is free, or the error
    /// of `fill`. A new page is not in the cache then.
    pub fn get_or_make(
        &mut self,
        index: u64,
        fill: impl FnOnce(&Frame<'_>) -> Result<(), ObjectError>,
    ) -> Result<(Frame<'c>, bool), ObjectError> {
        let cache = self.cache;
        loop {
            match self.find_or_add(index)? {
                Found::Ready(frame) => return Ok((frame, false)),
                Found::New(locked) => {
                    let failed = RemoveOnFailure(cache, &locked, index);
                    fill(locked.frame())?;
                    std::mem::forget(failed);
                    cache.mark_up_to_date(&locked, index);
                    return Ok((locked.frame().clone(), true));
                }
                Found::Unread(frame) => {
                    let locked = cache.host().mem().lock(&mut self.cx, frame);
                    if cache.is_unread(&locked, index) {
                        fill(locked.frame())?;
                        cache.mark_up_to_date(&locked, index);
                        return Ok((locked.frame().clone(), false));
                    }
                }
            }
        }
    }
    /// Returns the locked frame of page `index`, a new one if it is missing, and true if it is up
    /// to date.
    pub(super) fn get_or_add(&mut self, index: u64) -> Result<(FrameLock<'c>, bool), ObjectError> {
        let cache = self.cache;
        loop {
            let frame = match self.find_or_add(index)? {
                Found::Ready(frame) | Found::Unread(frame) => frame,
                Found::New(locked) => return Ok((locked, false)),
            };
            let locked = cache.host().mem().lock(&mut self.cx, frame);
            if cache.holds(&locked, index) {
                let read = !cache.is_unread(&locked, index);
                return Ok((locked, read));
            }
        }
    }
    /// Makes sure that page `index` has a frame: a missing page gets one that reads zero, and is
    /// not up to date until its first use. The page is dirty, so that it is not lost before that
    /// (`SGP_FALLOC`).
    ///
    /// # Errors
    ///
    /// No frame is free.
    pub(super) fn reserve(&mut self, index: u64) -> Result<(), ObjectError> {
        let mem = self.cache.host().mem();
        let (locked, _) = self.get_or_add(index)?;
        mem.set_flags(locked.pfn(), FrameFlags::DIRTY);
        Ok(())
    }
    /// Takes pages out of the cache that were reserved and never used since (`shmem_undo_range` of
    /// a failed `fallocate`).
    pub(super) fn unreserve(&mut self, pages: std::ops::Range<u64>) {
        let cache = self.cache;
        let mut at = pages.start;
        while let Some((index, frame)) = cache.next(at, pages.end) {
            let locked = cache.host().mem().lock(&mut self.cx, frame);
            if cache.is_unread(&locked, index) {
                cache.take_clean(&locked, index);
            }
            at = index + 1;
        }
    }
    /// Returns the page in the cache or from swap, or a new one, locked.
    fn find_or_add(&self, index: u64) -> Result<Found<'c>, ObjectError> {
        if index >= MAX_INDEX {
            return Err(ObjectError::Beyond(index));
        }
        let cache = self.cache;
        let mem = cache.host().mem();
        let slots = cache.slots.lock();
        let old = slots.get(index);
        match old {
            Some(PageSlot::Frame(pfn)) => {
                cache.take_back(pfn);
                return Ok(Found::Ready(mem.get(pfn)));
            }
            Some(PageSlot::Unread(pfn)) => return Ok(Found::Unread(mem.get(pfn))),
            Some(PageSlot::Swap(_)) | None => {}
        }
        let frame = mem.alloc().map_err(|_| NoMemory::Frame)?;
        if let Some(PageSlot::Swap(slot)) = old {
            mem.swap_load(slot, &frame);
            mem.set_flags(frame.pfn(), FrameFlags::DIRTY);
            cache.put(slots, index, &frame, true);
            return Ok(Found::Ready(frame));
        }
        let locked = mem.try_lock(frame).expect("nobody else knows the frame");
        cache.put(slots, index, locked.frame(), false);
        Ok(Found::New(locked))
    }
    /// Returns the frame of page `index`, read back from swap if it is there; `None` for a hole.
    ///
    /// # Errors
    ///
    /// No frame is free to read it to.
    pub fn get_swapped(&mut self, index: u64) -> Result<Option<Frame<'c>>, ObjectError> {
        if self.cache.is_hole(index) {
            return Ok(None);
        }
        Ok(Some(self.get_or_make(index, |_| Ok(()))?.0))
    }
}

impl fmt::Debug for Filling<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Filling").field(&self.cache).finish()
    }
}

/// The page that a look-up has found or made.
enum Found<'c> {
    /// In the cache and up to date.
    Ready(Frame<'c>),
    /// In the cache, not up to date.
    Unread(Frame<'c>),
    /// New in the cache, locked, not up to date.
    New(FrameLock<'c>),
}

/// Takes a page out of the cache on drop: its read failed, or panicked.
struct RemoveOnFailure<'a, 'c>(&'c PageCache, &'a FrameLock<'c>, u64);

impl Drop for RemoveOnFailure<'_, '_> {
    fn drop(&mut self) {
        self.0.take(self.2, self.1.pfn());
    }
}

impl PageCache {
    /// Keeps pages from being cut off, so that some can come in. Waits for a cut that is under way.
    pub fn filling<'c, 't, R: Below<rank::Cache>>(
        &'c self,
        cx: &'t mut Cx<'_, R, Sleepable>,
    ) -> Filling<'c, 't> {
        Filling {
            _shared: Some(self.extent.read()),
            cache: self,
            cx: cx.descend(),
        }
    }
    /// Returns true if the locked frame is page `index` and not up to date.
    fn is_unread(&self, locked: &FrameLock<'_>, index: u64) -> bool {
        self.slots.lock().get(index) == Some(PageSlot::Unread(locked.pfn()))
    }
    /// Returns true if page `index` has a frame that is not up to date.
    pub(super) fn is_reserved(&self, index: u64) -> bool {
        matches!(self.slots.lock().get(index), Some(PageSlot::Unread(_)))
    }
    /// Marks the locked page as up to date.
    pub(super) fn mark_up_to_date(&self, locked: &FrameLock<'_>, index: u64) {
        let mut slots = self.slots.lock();
        slots.insert(index, PageSlot::Frame(locked.pfn()));
    }
}
