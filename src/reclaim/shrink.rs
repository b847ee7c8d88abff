//! Giving up the pages of a list: `shrink_folio_list`.

use crate::ctx::FolioCx;
use crate::{
    ctx::{Below, Cx, Sleepable, rank},
    file::Host,
    frame::{Frame, FrameFlags, FrameLock, PhysMem, SwapSlot},
    rmap::{
        Blocking, Mapping, OwnerRef, Unmap, UnmapRefused, Usage, referenced, split_huge_of,
        split_object_huge, unmap_frame,
    },
    sync::panicking,
};
use std::{cell::RefCell, sync::Arc};

/// Whether pages in use lately are spared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum References {
    /// Asked for by address: they go.
    Ignore,
    /// Used once since the last look: another round. More: to the active list.
    Check,
}

/// What became of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Its frame is free.
    Freed,
    /// Still needed, or busy.
    Kept,
    /// Nothing maps it any more and it is on its way to swap: free when its turn comes again.
    Written,
    /// An external MMU would have had to sleep: to be tried again when it may.
    Deferred,
    /// Used so much, or so hard to give up, that it goes to the active list.
    Active,
}

/// How reclaim opens its windows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RmapWindows {
    /// External MMUs may sleep, as on today's Linux.
    #[default]
    Sleepable,
    /// First under a spin lock, as at the time of the proposal: an external MMU that would have to sleep refuses, the frame
    /// is put off, and tried again when everybody may sleep.
    AtomicFirst,
}

/// What came of a list of pages. What is kept goes back to the heads of their lists, in the order in which it came
/// (`move_folios_to_lru`).
struct Batch<'r> {
    done: Shrunk,
    kept: OffList<'r>,
    deferred: Vec<Frame<'r>>,
}

/// Pages that are on no list of reclaim, and go back to theirs when this goes: also by a driver's panic.
pub(super) struct OffList<'r> {
    pub(super) mem: &'r PhysMem,
    pub(super) frames: Vec<Frame<'r>>,
}

impl Drop for OffList<'_> {
    fn drop(&mut self) {
        let mem = self.mem;
        self.frames
            .iter()
            .for_each(|frame| mem.lru_add(frame.pfn()));
    }
}

/// One that is being worked on.
struct AtHand<'r> {
    mem: &'r PhysMem,
    locked: FrameLock<'r>,
}

impl Drop for AtHand<'_> {
    fn drop(&mut self) {
        if panicking() {
            self.mem.lru_add(self.locked.pfn());
        }
    }
}

/// What giving up a list of pages came to.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Shrunk {
    /// Frames that are free now.
    pub(crate) freed: u64,
    /// Pages that were sent to swap and are free when their turn comes again.
    pub(crate) written: u64,
}

/// Reclaim on one machine.
pub(crate) struct Reclaim<'r> {
    host: &'r Host,
    windows: RmapWindows,
    /// Pages of files that were found dirty: to be written back before more is given up.
    dirty: RefCell<Vec<Frame<'r>>>,
}

impl<'r> Reclaim<'r> {
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
            kept: OffList {
                mem,
                frames: Vec::new(),
            },
            deferred: Vec::new(),
        };
        self.try_each(cx, list, (references, first), &mut batch);
        // Each has a reference from here, so none is freed while it waits. Its use was asked for already.
        let deferred = std::mem::take(&mut batch.deferred);
        self.try_each(
            cx,
            deferred,
            (References::Ignore, Blocking::May),
            &mut batch,
        );
        // Unused pages of huge ones that were split.
        self.host.settle_exports(cx);
        batch.done
    }
    fn try_each<R: Below<rank::Folio>>(
        &self,
        cx: &mut Cx<'_, R, Sleepable>,
        mut list: Vec<Frame<'r>>,
        how: (References, Blocking),
        batch: &mut Batch<'r>,
    ) {
        let mem = self.mem();
        list.reverse();
        let mut rest = OffList { mem, frames: list };
        while let Some(frame) = rest.frames.pop() {
            let at_hand = match mem.try_lock(frame) {
                Ok(locked) => AtHand { mem, locked },
                Err(frame) => {
                    batch.kept.frames.push(frame);
                    continue;
                }
            };
            let locked = &at_hand.locked;
            let mut cx = cx.descend::<rank::Folio, _>();
            match self.shrink_one(&mut cx, locked, how) {
                Fate::Freed => batch.done.freed += 1,
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
    fn shrink_one(
        &self,
        cx: &mut FolioCx<'_>,
        locked: &FrameLock<'r>,
        (references, blocking): (References, Blocking),
    ) -> Fate {
        let flags = self.mem().flags(locked.pfn());
        if flags.contains(FrameFlags::UNEVICTABLE) {
            return Fate::Kept;
        }
        if references == References::Check
            && let Some(fate) = self.check_references(cx, locked)
        {
            return fate;
        }
        if flags.contains(FrameFlags::LARGE) {
            // Page by page, as where swap has no room for all of it in a row (`split_folio_to_list`).
            if blocking == Blocking::MustNot {
                return Fate::Deferred;
            }
            let (registry, mem) = (&self.host.registry, self.mem());
            if flags.contains(FrameFlags::ANON) {
                split_huge_of(registry, mem, cx, locked);
            } else if !split_object_huge(registry, mem, cx, locked) {
                return Fate::Kept;
            }
        }
        if flags.intersects(FrameFlags::ANON | FrameFlags::SWAP_CACHE) {
            self.shrink_anon(cx, locked, flags, (references, blocking))
        } else {
            self.shrink_object(cx, locked, (references, blocking))
        }
    }
    /// `folio_check_references`: every page starts out used, by the fault that made it; so one use since the last look
    /// earns it another round, and only more, or a use in two rounds, a place among the active.
    fn check_references(&self, cx: &mut FolioCx<'_>, locked: &FrameLock<'r>) -> Option<Fate> {
        let mem = self.mem();
        let pfn = locked.pfn();
        let used = referenced(&self.host.registry, mem, cx, locked);
        let before = mem.flags(pfn).contains(FrameFlags::REFERENCED);
        mem.clear_flags(pfn, FrameFlags::REFERENCED);
        match used {
            Usage::Locked => {
                mem.set_flags(pfn, FrameFlags::UNEVICTABLE);
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
            return Fate::Kept; // Its last mapping went meanwhile, and this list's reference is the last.
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
            // Nothing refers to it but this list: dropping it frees it.
            Unmap::Discard | Unmap::Replace | Unmap::Migration => Fate::Freed,
            Unmap::Swap(_) => {
                let written = mem.flags(pfn).contains(FrameFlags::DIRTY);
                if written {
                    mem.swap_write(pfn);
                }
                // The device is at work on what was written (`pageout`): its turn comes again.
                let later = written && references == References::Check;
                if !later && mem.swap_evict(pfn) {
                    return Fate::Freed;
                }
                // Its last mapping went meanwhile by another way, so nobody will ask for it, nor tell that nobody does.
                if mem.mapcount(pfn) == 0 && mem.swap_cache_drop(locked) {
                    return Fate::Freed;
                }
                if later { Fate::Written } else { Fate::Kept }
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
            let _in_use = self.mem().swap_cache_drop(locked);
        }
    }
    /// Takes all mappings out; what becomes of the page if they do not all go.
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
                self.spare(locked);
                Some(Fate::Active)
            }
        }
    }
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
        let writes = FrameFlags::SWAP_BACKED | FrameFlags::DIRTY;
        if references == References::Check && mem.flags(locked.pfn()).contains(writes) {
            mem.clear_flags(locked.pfn(), FrameFlags::DIRTY);
            return Fate::Written;
        }
        let flags = mem.flags(locked.pfn());
        if flags.contains(FrameFlags::DIRTY) && !flags.contains(FrameFlags::SWAP_BACKED) {
            // Reclaim writes no file itself; it marks the page, and wakes who does.
            mem.set_flags(locked.pfn(), FrameFlags::RECLAIM);
            if references == References::Check && !flags.contains(FrameFlags::RECLAIM) {
                self.dirty.borrow_mut().push(locked.frame().clone());
            }
            return Fate::Active;
        }
        let evicted = self
            .keeper(locked)
            .is_some_and(|(mapping, index)| mapping.evict(locked, index));
        if evicted { Fate::Freed } else { Fate::Active }
    }
    /// The mapping that the page belongs to, and its index there.
    fn keeper(&self, locked: &FrameLock<'_>) -> Option<(Arc<Mapping>, u64)> {
        let owner = locked.owner()?;
        match self.host.registry.find(owner.id)? {
            OwnerRef::Mapping(mapping) => Some((mapping.upgrade()?, owner.index)),
            OwnerRef::Anon(_) => None,
        }
    }
    /// Writes back the pages of files that were found dirty (`wakeup_flusher_threads`); says whether any is clean now.
    /// They go when their turn comes again.
    pub(super) fn flush<R: Below<rank::Folio>>(&self, cx: &mut Cx<'_, R, Sleepable>) -> bool {
        let mem = self.mem();
        let mut any = false;
        for frame in self.dirty.take() {
            let locked = mem.lock(cx, frame);
            let is_dirty = mem.flags(locked.pfn()).contains(FrameFlags::DIRTY);
            let Some((mapping, index)) = self.keeper(&locked).filter(|_| is_dirty) else {
                continue;
            };
            if mapping.write_back(&mut cx.descend(), &locked, index) {
                mem.set_flags(locked.pfn(), FrameFlags::RECLAIM);
                any = true;
            }
        }
        any
    }
}
