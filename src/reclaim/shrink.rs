//! Giving up the pages of a list: `shrink_folio_list`.

use crate::{
    ctx::{Below, Cx, Sleepable, rank},
    file::Host,
    frame::{Frame, FrameFlags, FrameLock, PhysMem, SwapSlot},
    rmap::{OwnerRef, Unmap, unmap_frame},
};

/// Whether pages in use lately are spared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum References {
    /// Asked for by address: they go.
    Ignore,
}

/// What became of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Its frame is free.
    Freed,
    /// Still needed, or busy.
    Kept,
}

/// Reclaim on one machine.
pub(crate) struct Reclaim<'r> {
    host: &'r Host,
}

impl<'r> Reclaim<'r> {
    pub(crate) fn new(host: &'r Host) -> Self {
        Self { host }
    }
    fn mem(&self) -> &'r PhysMem {
        &self.host.mem
    }
    /// Tries to give up each page of a list, in its order; returns how many frames are free now.
    pub(crate) fn shrink<R: Below<rank::Folio>>(
        &self,
        cx: &mut Cx<'_, R, Sleepable>,
        list: impl IntoIterator<Item = Frame<'r>>,
        references: References,
    ) -> u64 {
        let mut freed = 0;
        for frame in list {
            let Ok(locked) = self.mem().try_lock(frame) else {
                continue;
            };
            let mut cx = cx.descend::<rank::Folio, _>();
            if self.shrink_one(&mut cx, locked, references) == Fate::Freed {
                freed += 1;
            }
        }
        freed
    }
    fn shrink_one(
        &self,
        cx: &mut Cx<'_, rank::Folio, Sleepable>,
        locked: FrameLock<'r>,
        references: References,
    ) -> Fate {
        let References::Ignore = references;
        let pfn = locked.pfn();
        let flags = self.mem().flags(pfn);
        if flags.contains(FrameFlags::UNEVICTABLE) {
            return Fate::Kept;
        }
        if flags.contains(FrameFlags::ANON) {
            self.shrink_anon(cx, &locked, flags)
        } else {
            self.shrink_object(cx, &locked)
        }
    }
    fn shrink_anon(
        &self,
        cx: &mut Cx<'_, rank::Folio, Sleepable>,
        locked: &FrameLock<'r>,
        flags: FrameFlags,
    ) -> Fate {
        let mem = self.mem();
        let pfn = locked.pfn();
        let mut how = Unmap::Discard;
        if flags.contains(FrameFlags::SWAP_BACKED) {
            let Some(slot) = self.slot(locked) else {
                return Fate::Kept; // The device is full, or there is none.
            };
            how = Unmap::Swap(slot);
        }
        if unmap_frame(&self.host.registry, mem, cx, locked, how).is_err() {
            self.spare(locked);
            return Fate::Kept;
        }
        match how {
            // Nothing refers to it but this list: dropping it frees it.
            Unmap::Discard => Fate::Freed,
            Unmap::Swap(_) => {
                if mem.flags(pfn).contains(FrameFlags::DIRTY) {
                    mem.swap_write(pfn);
                }
                if mem.swap_evict(pfn) {
                    Fate::Freed
                } else {
                    Fate::Kept
                }
            }
        }
    }
    /// The slot of a page that is to go to swap, a new one if need be (`folio_alloc_swap`).
    fn slot(&self, locked: &FrameLock<'_>) -> Option<SwapSlot> {
        let mem = self.mem();
        let cached = mem.swap_slot(locked.pfn());
        cached.or_else(|| {
            let slot = mem.swap_cache_add(locked.frame())?;
            // Its entries should be dirty; of one made clean on purpose the bytes count all the same.
            mem.set_flags(locked.pfn(), FrameFlags::DIRTY);
            Some(slot)
        })
    }
    /// A page that stays needs no slot when slots are scarce.
    fn spare(&self, locked: &FrameLock<'_>) {
        if self.mem().swap().is_scarce() {
            let _in_use = self.mem().swap_cache_drop(locked.pfn());
        }
    }
    fn shrink_object(
        &self,
        cx: &mut Cx<'_, rank::Folio, Sleepable>,
        locked: &FrameLock<'r>,
    ) -> Fate {
        let mem = self.mem();
        if mem.mapcount(locked.pfn()) > 0
            && unmap_frame(&self.host.registry, mem, cx, locked, Unmap::Discard).is_err()
        {
            return Fate::Kept;
        }
        let evicted = locked
            .owner()
            .is_some_and(|owner| match self.host.registry.find(owner.id) {
                Some(OwnerRef::Mapping(mapping)) => mapping
                    .upgrade()
                    .is_some_and(|m| m.evict(locked, owner.index)),
                _ => false,
            });
        if evicted { Fate::Freed } else { Fate::Kept }
    }
}
