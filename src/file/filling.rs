//! Pages come into a cache, one after the other with what cuts it.

use super::{PageCache, slots::Slot};
use crate::{
    ctx::{Below, Cx, Sleepable, rank},
    error::{NoMemory, ObjectError},
    frame::{Frame, FrameFlags, FrameLock, MAX_INDEX},
    sync::RwLockReadGuard,
};
use std::fmt;

/// Pages may come into a cache: nobody cuts any off meanwhile. So what an object knows of its size holds as well.
#[must_use]
pub struct Filling<'c, 't> {
    cache: &'c PageCache,
    cx: Cx<'t, rank::Cache, Sleepable>,
    /// None: the whole lock is held by who lends this.
    _shared: Option<RwLockReadGuard<'c, ()>>,
}

impl<'c, 't> Filling<'c, 't> {
    /// For who holds the whole lock.
    pub(super) fn lent(cache: &'c PageCache, cx: Cx<'t, rank::Cache, Sleepable>) -> Self {
        Self {
            cache,
            cx,
            _shared: None,
        }
    }
    pub(super) fn cache(&self) -> &'c PageCache {
        self.cache
    }
    /// The token below the lock.
    pub(super) fn cx(&mut self) -> &mut Cx<'t, rank::Cache, Sleepable> {
        &mut self.cx
    }
    /// The frame of page `index`; a new one, which reads zero until `fill` has filled it, if there is none. Says
    /// whether it is new. While `fill` works, the page is locked: who wants it waits, and `fill` must not.
    ///
    /// # Errors
    ///
    /// [`ObjectError::Beyond`] of a page that no object can have; no frame is left, or what `fill` returned. A new page is
    /// not in the cache then.
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
                    let failed = TakeOut(cache, &locked, index);
                    fill(locked.frame())?;
                    std::mem::forget(failed);
                    cache.has_read(&locked, index);
                    return Ok((locked.frame().clone(), true));
                }
                Found::Unread(frame) => {
                    let locked = cache.host().mem().lock(&mut self.cx, frame);
                    if cache.is_unread(&locked, index) {
                        fill(locked.frame())?;
                        cache.has_read(&locked, index);
                        return Ok((locked.frame().clone(), false));
                    }
                }
            }
        }
    }
    /// The locked frame of page `index` as it is, up to date or not; a new one that is not. Says whether it is.
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
    /// The page, or a new one, locked.
    fn find_or_add(&self, index: u64) -> Result<Found<'c>, ObjectError> {
        if index >= MAX_INDEX {
            return Err(ObjectError::Beyond(index));
        }
        let cache = self.cache;
        let mem = cache.host().mem();
        let slots = cache.slots.lock();
        let old = slots.get(index);
        match old {
            Some(Slot::Frame(pfn)) => return Ok(Found::Ready(mem.get(pfn))),
            Some(Slot::Unread(pfn)) => return Ok(Found::Unread(mem.get(pfn))),
            Some(Slot::Swap(_)) | None => {}
        }
        let frame = mem.alloc().map_err(|_| NoMemory::Frame)?;
        if let Some(Slot::Swap(slot)) = old {
            mem.swap_load(slot, &frame);
            mem.set_flags(frame.pfn(), FrameFlags::DIRTY);
            cache.put(slots, index, &frame, true);
            return Ok(Found::Ready(frame));
        }
        let locked = mem.try_lock(frame).expect("nobody else knows the frame");
        cache.put(slots, index, locked.frame(), false);
        Ok(Found::New(locked))
    }
    /// The frame of page `index`, brought back from swap if it is there; `None`: a hole.
    ///
    /// # Errors
    ///
    /// No frame is left to bring it back to.
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

/// What there is of a page that is wanted.
enum Found<'c> {
    Ready(Frame<'c>),
    Unread(Frame<'c>),
    New(FrameLock<'c>),
}

/// A page that could not be read goes again, also when its reader panics.
struct TakeOut<'a, 'c>(&'c PageCache, &'a FrameLock<'c>, u64);

impl Drop for TakeOut<'_, '_> {
    fn drop(&mut self) {
        self.0.take(self.2, self.1.pfn());
    }
}

impl PageCache {
    /// Keeps pages from being cut off, so that some can come in.
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
    /// Whether the locked frame is page `index`, and not up to date.
    fn is_unread(&self, locked: &FrameLock<'_>, index: u64) -> bool {
        self.slots.lock().get(index) == Some(Slot::Unread(locked.pfn()))
    }
    /// The locked page is up to date from now on.
    pub(super) fn has_read(&self, locked: &FrameLock<'_>, index: u64) {
        let mut slots = self.slots.lock();
        slots.insert(index, Slot::Frame(locked.pfn()));
    }
}
