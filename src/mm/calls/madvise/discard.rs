//! The advices that work on pages: dropping, lazy freeing, cooling, guard markers.

use crate::mm::{
    entry::{flags::VmFlags, pte::RawPte},
    fault::entries::with_leaf,
    guard::{AfterYield, Lease, MmapWriteGuard},
    page_table::shared_huge,
    window::{InvalidationWindow, PteSlot, Zap},
};
use crate::{
    addr::{Vpn, VpnRange},
    ctx::{Sleepable, rank},
    error::{MadviseError, NoMemory},
    frame::FrameFlags,
    notifier::Event,
};
use std::convert::Infallible;

impl Lease<'_, rank::Mmap, Sleepable> {
    /// `MADV_DONTNEED`: one window, also when nothing is there. Leaves that a large range emptied are freed.
    pub(in crate::mm) fn discard(&mut self, flags: VmFlags, part: VpnRange) {
        let mut window = self.window(part, Event::Clear);
        if flags.contains(VmFlags::NONLINEAR) {
            window.forget_pages(part, 0, u64::MAX);
        } else {
            window.zap(part, Zap::Pages);
        }
        window.free_empty_leaves(part);
        window.close();
    }
}

impl MmapWriteGuard<'_> {
    /// `MADV_FREE`: the pages are clean and old from here on, so that reclaim may drop them.
    pub(in crate::mm) fn free_lazily(&mut self, part: VpnRange) {
        self.yield_while(part.pages(), AfterYield::KeepsEditing, &[], |lease| {
            lease.free_lazily(part);
        });
    }
    /// `MADV_COLD`: no window, since an entry that looks older is as good as before; but for a huge page that is split.
    pub(in crate::mm) fn cool(&mut self, part: VpnRange) {
        self.yield_while(part.pages(), AfterYield::KeepsEditing, &[], |lease| {
            lease.cool(part)
        });
    }
    /// `MADV_GUARD_REMOVE`: no window, since a marker maps nothing.
    pub(in crate::mm) fn remove_guards(&mut self, part: VpnRange) {
        let mm = self.mm;
        mm.for_each_locked_leaf(&mut self.cx, part, |part, leaf| {
            for at in part.iter().filter(|&at| leaf.get(at).is_guard()) {
                leaf.set(at, RawPte::NONE);
            }
        });
    }
    /// `MADV_GUARD_INSTALL`: markers up to the first present page; that takes a window over the whole part.
    pub(in crate::mm) fn install_guards(
        &mut self,
        start: Vpn,
        part: VpnRange,
    ) -> Result<(), MadviseError> {
        // Markers are something that fork must copy: what tells it is the flag.
        if self.vma(start).is_anonymous() {
            self.layout.prepare_anon(start).map_err(no_memory)?;
        }
        self.layout
            .change(start, |vma| vma.flags |= VmFlags::MAYBE_GUARD);
        self.yield_while(part.pages(), AfterYield::KeepsEditing, &[], |lease| {
            lease.install_guards(part)
        })
    }
}

impl Lease<'_, rank::Mmap, Sleepable> {
    fn install_guards(mut self, part: VpnRange) -> Result<(), MadviseError> {
        while !self.mark_guards(part)? {
            let mut window = self.window(part, Event::Clear);
            window.zap(part, Zap::Pages);
            window.close();
        }
        Ok(())
    }
    /// Marks page by page; `false` at the first one that is present.
    fn mark_guards(&mut self, part: VpnRange) -> Result<bool, MadviseError> {
        for at in part.iter() {
            let free = with_leaf(self.mm, &mut self.cx, at, |leaf| {
                let pte = leaf.get(at);
                let present = !pte.is_none() && !pte.is_guard();
                if !present {
                    leaf.set(at, RawPte::GUARD);
                }
                !present
            });
            if !free.map_err(no_memory)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
    fn free_lazily(self, part: VpnRange) {
        let mut window = self.into_window(part, Event::Clear);
        split_own_parts(&mut window, part);
        window
            .leaves_in(part, |txn| {
                if !shared_huge(txn.mem(), txn.leaf()) {
                    txn.for_each(free_lazily);
                }
                Ok::<(), Infallible>(())
            })
            .unwrap_or_else(|e| match e {});
        window.close();
    }
    fn cool(mut self, part: VpnRange) {
        let mm = self.mm;
        for at in mm.large_in(&mut self.cx, part) {
            if let Some(head) = mm.own_part(&mut self.cx, part, at) {
                let mut cx = self.cx.descend();
                if mm.has_alone(&mut cx, head) {
                    mm.split_own(cx, head);
                }
            }
        }
        let mem = mm.machine().mem();
        mm.for_each_locked_leaf(&mut self.cx, part, |part, leaf| {
            if shared_huge(mem, leaf) {
                return;
            }
            for at in part.iter() {
                let pte = leaf.get(at);
                let Some(pfn) = pte.counted().filter(|&pfn| mem.mapcount(pfn) == 1) else {
                    continue; // Other processes may use it.
                };
                leaf.set(at, pte.mkold());
                mem.clear_flags(pfn, FrameFlags::REFERENCED);
                if mem.flags(pfn).contains(FrameFlags::ACTIVE) {
                    mem.lru_move(pfn, FrameFlags::empty(), FrameFlags::ACTIVE);
                }
            }
        });
    }
}

/// `madvise_free_pte_range`: a page in swap is dropped at once; one in memory is marked, unless others have it too and
/// it has been written since it was clean.
fn free_lazily(slot: PteSlot<'_>) {
    let (pte, mem) = (slot.raw(), slot.mem());
    if pte.swap_slot().is_some() {
        drop(slot.clear());
        return;
    }
    let Some(pfn) = pte.counted() else {
        return;
    };
    let flags = mem.flags(pfn);
    if !flags.contains(FrameFlags::ANON) {
        return;
    }
    if flags.intersects(FrameFlags::SWAP_CACHE | FrameFlags::DIRTY) {
        // Whoever has it locked, reclaim above all, has seen what is about to change.
        let Ok(locked) = mem.try_lock(mem.get(pfn)) else {
            return;
        };
        let cached = mem.flags(pfn).contains(FrameFlags::SWAP_CACHE);
        if mem.mapcount(pfn) != 1 || (cached && !mem.swap_cache_drop(&locked)) {
            return;
        }
        mem.clear_flags(pfn, FrameFlags::DIRTY);
    }
    slot.set(pte.mkold().mkclean());
    if !flags.contains(FrameFlags::UNEVICTABLE) {
        let lists = FrameFlags::SWAP_BACKED | FrameFlags::ACTIVE | FrameFlags::REFERENCED;
        mem.lru_move(pfn, FrameFlags::empty(), lists);
    }
}

fn no_memory(e: NoMemory) -> MadviseError {
    MadviseError::NoMemory(e)
}

/// Splits the huge pages of this process alone that lie only partly in `range`.
fn split_own_parts(window: &mut InvalidationWindow<'_, Sleepable>, range: VpnRange) {
    let mm = window.mm();
    let mut cx = window.cx();
    for at in mm.large_in(&mut cx, range) {
        if let Some(head) = mm.own_part(&mut cx, range, at) {
            let mut inside = cx.walk_inside();
            if mm.has_alone(&mut inside, head) {
                mm.split_own(inside, head);
            }
        }
    }
}
