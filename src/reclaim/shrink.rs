//! Giving up the pages of a list: `shrink_folio_list`.
//!
//! Each page is locked, checked for recent use, unmapped through its reverse map, which opens
//! windows, and then written or dropped. A driver's panic leaves no page off its list
//! (docs/adr/0024-a-panic-does-or-undoes.md).

use crate::{
    ctx::{Below, Cx, FolioCx, Sleepable, rank},
    file::Host,
    frame::{Frame, FrameFlags, FrameLock, PhysMem, SwapSlot},
    rmap::{Blocking, FrameOwner, Unmap, UnmapRefused, Usage, referenced, unmap_frame},
    sync::panicking,
};
use std::{cell::RefCell, sync::Arc};

/// The treatment of pages that were used lately.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum References {
    /// They are given up: the caller chose them by address.
    Ignore,
    /// A page used once since the last look gets another round; a page used more becomes active.
    Check,
}

/// The result of an attempt to give up a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Frames that are free now.
    Freed(u64),
    /// A large page whose first frame is gone: those that are left are next.
    Split,
    /// Still needed, or busy.
    Kept,
    /// No longer mapped, and on the way to swap: its next turn frees it.
    Written,
    /// An external MMU would have to sleep: to be tried again where that is allowed.
    Deferred,
    /// Used so much, or so hard to give up, that it becomes active.
    Active,
}

/// The context in which reclaim opens its windows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum RmapWindows {
    /// External MMUs may sleep, as on today's Linux.
    #[default]
    Sleepable,
    /// First under a spin lock, as at the time of the proposal: if an external MMU would have to
    /// sleep, it refuses, and the frame is tried again later, where all may sleep.
    AtomicFirst,
}

/// The results of a list of pages. Kept pages return to the heads of their lists in the order in
/// which they came (`move_folios_to_lru`).
struct Batch<'r> {
    done: Shrunk,
    kept: Isolated<'r>,
    deferred: Vec<Frame<'r>>,
}

/// Pages that are off the lists of reclaim; dropping this, also by a driver's panic, puts them
/// back.
pub(super) struct Isolated<'r> {
    pub(super) mem: &'r PhysMem,
    pub(super) frames: Vec<Frame<'r>>,
}

impl Drop for Isolated<'_> {
    fn drop(&mut self) {
        let mem = self.mem;
        self.frames
            .iter()
            .for_each(|frame| mem.lru_add(frame.pfn()));
    }
}

/// The page that is being worked on; a panic puts it back to its list.
struct IsolatedLock<'r> {
    mem: &'r PhysMem,
    locked: FrameLock<'r>,
}

impl Drop for IsolatedLock<'_> {
    fn drop(&mut self) {
        if panicking() {
            self.mem.lru_add(self.locked.pfn());
        }
    }
}

/// The outcome of giving up a list of pages.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Shrunk {
    /// Frames that are free now.
    pub(crate) freed: u64,
    /// Pages on the way to swap, which their next turn frees.
    pub(crate) written: u64,
}

/// Reclaim on one machine, for one call.
pub(crate) struct Reclaim<'r> {
    host: &'r Host,
    windows: RmapWindows,
    /// Dirty pages of files, to be written back before more is given up.
    dirty: RefCell<Vec<Frame<'r>>>,
}

impl<'r> Reclaim<'r> {
    /// Begins reclaim on a machine.
    pub(crate) fn new(host: &'r Host, windows: RmapWindows) -> Self {
        Self {
            host,
            windows,
            dirty: RefCell::default(),
        }
    }
    pub(super) fn host(&self) -> &'r Host {
        self.host
    }
    pub(super) fn mem(&self) -> &'r PhysMem {
        &self.host.mem
    }
    /// Tries to give up each page of a list, in its order.
    pub(crate) fn shrink<R: Below<rank::Folio>>(
        &self,
        cx: &mut Cx<'_, R, Sleepable>,
        list: Vec<Frame<'r>>,
        references: References,
    ) -> Shrunk {
        let first = match self.windows {
            RmapWindows::Sleepable => Blocking::May,
            RmapWindows::AtomicFirst => Blocking::MustNot,
        };
        let mem = self.mem();
        let mut batch = Batch {
            done: Shrunk::default(),
            kept: Isolated {
                mem,
                frames: Vec::new(),
            },
            deferred: Vec::new(),
        };
        self.try_each(cx, list, (references, first), &mut batch);
        // Each has a reference here, so none is freed while it waits. Their use has been checked.
        let deferred = std::mem::take(&mut batch.deferred);
        self.try_each(
            cx,
            deferred,
            (References::Ignore, Blocking::May),
            &mut batch,
        );
        // Unused pages of huge pages that were split may have been exported.
        self.host.settle_exports(cx);
        batch.done
    }
    /// Tries each page of a list once.
    fn try_each<R: Below<rank::Folio>>(
        &self,
        cx: &mut Cx<'_, R, Sleepable>,
        mut list: Vec<Frame<'r>>,
        how: (References, Blocking),
        batch: &mut Batch<'r>,
    ) {
        let mem = self.mem();
        list.reverse();
        let mut rest = Isolated { mem, frames: list };
        while let Some(frame) = rest.frames.pop() {
            let isolated = match mem.try_lock(frame) {
                Ok(locked) => IsolatedLock { mem, locked },
                Err(frame) => {
                    batch.kept.frames.push(frame);
                    continue;
                }
            };
            let locked = &isolated.locked;
            let mut cx = cx.descend::<rank::Folio, _>();
            match self.shrink_one(&mut cx, locked, how, &mut rest.frames) {
                Fate::Freed(frames) => batch.done.freed += frames,
                Fate::Split => {}
                Fate::Deferred => batch.deferred.push(locked.frame().clone()),
                Fate::Kept => batch.kept.frames.push(locked.frame().clone()),
                Fate::Written => {
                    batch.done.written += 1;
                    batch.kept.frames.push(locked.frame().clone());
                }
                Fate::Active => {
                    mem.set_flags(locked.pfn(), FrameFlags::ACTIVE);
                    batch.kept.frames.push(locked.frame().clone());
                }
            }
        }
    }
    /// Tries to give up one locked page. Of one that is split, the other frames come `next`.
    fn shrink_one(
        &self,
        cx: &mut FolioCx<'_>,
        locked: &FrameLock<'r>,
        (references, blocking): (References, Blocking),
        next: &mut Vec<Frame<'r>>,
    ) -> Fate {
        let flags = self.mem().flags(locked.pfn());
        if flags.contains(FrameFlags::UNEVICTABLE) || self.keep_unevictable(locked) {
            return Fate::Kept;
        }
        if references == References::Check
            && let Some(fate) = self.check_references(cx, locked)
        {
            return fate;
        }
        if self.mem().is_kept_by_pin(locked.pfn()) {
            return Fate::Kept;
        }
        if self.is_whole(locked, flags)
            && let Some(fate) = self.split_first(cx, locked, (flags, blocking), next)
        {
            return fate;
        }
        if flags.intersects(FrameFlags::ANON | FrameFlags::SWAP_CACHE) {
            self.shrink_anon(cx, locked, flags, (references, blocking))
        } else {
            self.shrink_object(cx, locked, (references, blocking))
        }
    }
    /// Returns the fate of a page that was used lately (`folio_check_references`); `None`: give it
    /// up.
    ///
    /// Every page begins as used, by the fault that made it. So one use since the last look earns
    /// another round, and only more, or uses in two rounds, make it active.
    fn check_references(&self, cx: &mut FolioCx<'_>, locked: &FrameLock<'r>) -> Option<Fate> {
        let mem = self.mem();
        let pfn = locked.pfn();
        let used = referenced(&self.host.registry, mem, cx, locked);
        let before = mem.flags(pfn).contains(FrameFlags::REFERENCED);
        mem.clear_flags(pfn, FrameFlags::REFERENCED);
        match used {
            Usage::Locked => {
                mem.set_flags_of_page(pfn, FrameFlags::UNEVICTABLE);
                Some(Fate::Kept)
            }
            Usage::By(0) => None,
            Usage::By(n) => {
                mem.set_flags(pfn, FrameFlags::REFERENCED);
                Some(if before || n > 1 {
                    Fate::Active
                } else {
                    Fate::Kept
                })
            }
        }
    }
    /// Gives up a page of private memory: unmaps it, and writes it to swap unless it may be
    /// discarded.
    fn shrink_anon(
        &self,
        cx: &mut FolioCx<'_>,
        locked: &FrameLock<'r>,
        flags: FrameFlags,
        (references, blocking): (References, Blocking),
    ) -> Fate {
        let mem = self.mem();
        let pfn = locked.pfn();
        let cached = flags.contains(FrameFlags::SWAP_CACHE);
        if mem.mapcount(pfn) == 0 && !cached {
            // The last mapping was removed meanwhile; the reference of this list is the last.
            return Fate::Kept;
        }
        let mut how = Unmap::Discard;
        if flags.contains(FrameFlags::SWAP_BACKED) {
            let Some(slot) = self.slot(locked) else {
                return Fate::Active; // The device is full, or there is none.
            };
            how = Unmap::Swap(slot);
        }
        if let Some(fate) = self.unmap(cx, locked, how, blocking) {
            return fate;
        }
        match how {
            // Only this list refers to the frame: dropping the reference frees it.
            Unmap::Discard | Unmap::Replace | Unmap::Migration => Fate::Freed(1),
            Unmap::Swap(_) => {
                let written = mem.flags(pfn).contains(FrameFlags::DIRTY);
                if written {
                    mem.swap_write(pfn);
                    mem.lru_note_written(pfn);
                }
                // The device is at work on the written page (`pageout`): its next turn frees it.
                let later = written && references == References::Check;
                if !later && mem.swap_evict(pfn) {
                    return Fate::Freed(1);
                }
                // Its last mapping was removed meanwhile by another way, so no entry will want it,
                // and no later event frees it.
                if mem.mapcount(pfn) == 0 && mem.swap_cache_drop(locked) {
                    return Fate::Freed(1);
                }
                if later { Fate::Written } else { Fate::Kept }
            }
        }
    }
    /// Returns the slot of a page that goes to swap, a new one if necessary (`folio_alloc_swap`).
    fn slot(&self, locked: &FrameLock<'_>) -> Option<SwapSlot> {
        let mem = self.mem();
        mem.swap_slot(locked.pfn()).or_else(|| {
            let slot = mem.swap_cache_add(locked.frame())?;
            // A page with a new slot must be written. Its entries should be dirty, but a program
            // may have made them clean.
            mem.set_flags(locked.pfn(), FrameFlags::DIRTY);
            Some(slot)
        })
    }
    /// Frees the slot of a page that stays, when slots are scarce.
    fn free_scarce_slot(&self, locked: &FrameLock<'_>) {
        if self.mem().swap().is_scarce() {
            let _in_use = self.mem().swap_cache_drop(locked);
        }
    }
    /// Removes all mappings of a page; returns its fate if some stay.
    fn unmap(
        &self,
        cx: &mut FolioCx<'_>,
        locked: &FrameLock<'r>,
        how: Unmap,
        blocking: Blocking,
    ) -> Option<Fate> {
        let mem = self.mem();
        if mem.mapcount(locked.pfn()) == 0 {
            return None;
        }
        match unmap_frame(&self.host.registry, mem, cx, locked, how, blocking) {
            Ok(()) => None,
            Err(UnmapRefused::WouldBlock) => Some(Fate::Deferred),
            Err(UnmapRefused::Needed) => {
                self.free_scarce_slot(locked);
                Some(Fate::Active)
            }
        }
    }
    /// Gives up a page of an object: unmaps it, and has its cache evict it.
    fn shrink_object(
        &self,
        cx: &mut FolioCx<'_>,
        locked: &FrameLock<'r>,
        (references, blocking): (References, Blocking),
    ) -> Fate {
        if let Some(fate) = self.unmap(cx, locked, Unmap::Discard, blocking) {
            return fate;
        }
        let mem = self.mem();
        if mem.is_pinned(locked.pfn()) {
            return Fate::Active; // Its holder may write.
        }
        let writes = FrameFlags::SWAP_BACKED | FrameFlags::DIRTY;
        if references == References::Check && mem.flags(locked.pfn()).contains(writes) {
            mem.set_flags(locked.pfn(), FrameFlags::RECLAIM);
            mem.clear_flags(locked.pfn(), FrameFlags::DIRTY);
            return Fate::Written;
        }
        let flags = mem.flags(locked.pfn());
        if flags.contains(FrameFlags::DIRTY) && !flags.contains(FrameFlags::SWAP_BACKED) {
            // Reclaim itself does not write files; it marks the page for the writer (`flush`).
            mem.set_flags(locked.pfn(), FrameFlags::RECLAIM);
            if references == References::Check && !flags.contains(FrameFlags::RECLAIM) {
                self.dirty.borrow_mut().push(locked.frame().clone());
            }
            return Fate::Active;
        }
        let evicted = self
            .owner_of(locked)
            .is_some_and(|(owner, index)| owner.evict(locked, index));
        if evicted {
            Fate::Freed(1)
        } else {
            Fate::Active
        }
    }
    /// Returns the owner of the page, and the page's index there.
    pub(super) fn owner_of(&self, locked: &FrameLock<'_>) -> Option<(Arc<dyn FrameOwner>, u64)> {
        let owner = locked.owner()?;
        Some((self.host.registry.find(owner.id)?, owner.index))
    }
    /// Writes back the dirty pages of files that were found (`wakeup_flusher_threads`). Returns
    /// true if any is clean now; its next turn frees it.
    pub(super) fn flush<R: Below<rank::Folio>>(&self, cx: &mut Cx<'_, R, Sleepable>) -> bool {
        let mem = self.mem();
        let mut any = false;
        for frame in self.dirty.take() {
            let locked = mem.lock(cx, frame);
            let is_dirty = mem.flags(locked.pfn()).contains(FrameFlags::DIRTY);
            let Some((owner, index)) = self.owner_of(&locked).filter(|_| is_dirty) else {
                continue;
            };
            if owner.write_back(&mut cx.descend(), &locked, index) {
                mem.set_flags(locked.pfn(), FrameFlags::RECLAIM);
                any = true;
            }
        }
        any
    }
}
