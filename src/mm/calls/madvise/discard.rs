//! Advice that changes pages: dropping, lazy freeing, cooling, guard markers.

use crate::mm::{
    entry::{flags::VmFlags, pte::RawPte},
    fault::entries::with_leaf,
    guard::{AfterYield, MmapWriteGuard},
    large::ownership::{Shared, is_part_of},
    vma::Vma,
    window::{Lease, Marks, PteSlot, Zap},
};
use crate::{
    addr::{Pfn, Vpn, VpnRange},
    ctx::{Sleepable, rank},
    error::{MadviseError, NoMemory},
    frame::FrameFlags,
    notifier::Event,
    sync::Despite,
};
use std::convert::Infallible;

impl Lease<'_, rank::Mmap, Sleepable> {
    /// Drops the pages of `part` (`MADV_DONTNEED`), in one window, also if no page is there. Frees
    /// leaves that a large range emptied.
    pub(in crate::mm) fn discard(&mut self, (flags, marks): (VmFlags, Marks), part: VpnRange) {
        let mut window = self.window(part, Event::Clear);
        if flags.contains(VmFlags::NONLINEAR) {
            window.forget_pages(part, 0, u64::MAX);
        } else {
            window.zap(part, Zap::Pages(marks));
        }
        window.free_empty_leaves(part);
        window.close();
    }
}

impl Lease<'_, rank::Mmap, Sleepable> {
    /// Drops huge pages of a pool, in a window that also covers tables that others may share.
    pub(in crate::mm) fn discard_hugetlb(
        &mut self,
        (part, window): (VpnRange, VpnRange),
        (marks, is_owner): (Marks, bool),
    ) {
        let mut window = self.window(window, Event::Clear);
        window.zap_hugetlb(part, Zap::Pages(marks), is_owner);
        window.close();
    }
}

impl MmapWriteGuard<'_> {
    /// Marks the pages clean and old, so that reclaim may drop them (`MADV_FREE`).
    pub(in crate::mm) fn free_lazily(&mut self, part: VpnRange) {
        self.yield_while(part.pages(), AfterYield::KeepsEditing, &[], |lease| {
            lease.free_lazily(part);
        });
    }
    /// Marks the pages old (`MADV_COLD`). No window is needed, since a younger copy of an entry is
    /// not wrong; only a huge page that must be split takes one.
    pub(in crate::mm) fn cool(&mut self, part: VpnRange) {
        self.yield_while(part.pages(), AfterYield::KeepsEditing, &[], |lease| {
            lease.cool(part)
        });
    }
    /// Removes guard markers (`MADV_GUARD_REMOVE`). No window is needed, since a marker maps
    /// nothing.
    pub(in crate::mm) fn remove_guards(&mut self, part: VpnRange) {
        let mm = self.mm;
        mm.for_each_locked_leaf(&mut self.cx, part, |part, leaf| {
            for at in part.iter().filter(|&at| leaf.get(at).is_guard()) {
                leaf.set(at, RawPte::NONE);
            }
        });
    }
    /// Puts guard markers into `part` (`MADV_GUARD_INSTALL`). At the first page that is mapped it
    /// drops the pages of the whole part in a window, and begins anew.
    pub(in crate::mm) fn install_guards(
        &mut self,
        start: Vpn,
        part: VpnRange,
    ) -> Result<(), MadviseError> {
        let marks = self.vma(start).zap_marks();
        // Fork must copy markers: the flag tells it that there may be some.
        if self.vma(start).is_anonymous() {
            self.layout.prepare_anon(start).map_err(no_memory)?;
        }
        self.layout
            .change(start, |vma| vma.flags |= VmFlags::MAYBE_GUARD);
        self.yield_while(part.pages(), AfterYield::KeepsEditing, &[], |lease| {
            lease.install_guards(part, marks)
        })
    }
}

impl Vma {
    /// Returns the fate of userfaultfd's write protection over pages of this VMA that are dropped.
    pub(in crate::mm) fn zap_marks(&self) -> Marks {
        Marks::of(self.is_anonymous(), self.flags)
    }
}

impl Lease<'_, rank::Mmap, Sleepable> {
    fn install_guards(mut self, part: VpnRange, marks: Marks) -> Result<(), MadviseError> {
        let mut dropped = false;
        // The pages are gone when a driver panics at a window's end: the guards are put in first.
        let mut despite = Despite::default();
        let marked = loop {
            match self.mark_guards(part, dropped) {
                Ok(false) => {}
                marked => break marked.map(|_all| ()),
            }
            let mut window = self.window(part, Event::Clear);
            window.zap(part, Zap::Pages(marks));
            despite.call(|| window.close());
            dropped = true;
        };
        despite.resume();
        marked
    }
    /// Puts markers in page by page; returns false at the first page that is mapped. Once the pages
    /// were `dropped`, guards also take the place of the markers of write protection that they
    /// left: Linux 6.18 does not get past those, and tries for ever.
    fn mark_guards(&mut self, part: VpnRange, dropped: bool) -> Result<bool, MadviseError> {
        for at in part.iter() {
            let free = with_leaf(self.mm, &mut self.cx, at, |leaf| {
                let pte = leaf.get(at);
                let free = pte.is_none() || (dropped && pte.is_wp_marker());
                let present = !free && !pte.is_guard();
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
        self.mm.machine().mem().drain_batches();
        let mm = self.mm;
        let mut window = self.into_window(part, Event::Clear);
        let held = window.mm().split_own_parts(window.cx().walk_inside(), part);
        window
            .leaves_in(part, |txn| {
                let mut whole = mm.passed_by(txn.leaf(), txn.range(), Shared::MayBeFreed);
                whole.extend(&held);
                txn.each_entry(|slot| {
                    let passes = |pfn| is_part_of(slot.mem(), &whole, pfn);
                    if !slot.raw().counted().is_some_and(passes) {
                        free_lazily(slot);
                    }
                });
                Ok::<(), Infallible>(())
            })
            .unwrap_or_else(|e| match e {});
        window.close();
    }
    fn cool(mut self, part: VpnRange) {
        let mm = self.mm;
        mm.machine().mem().drain_batches();
        let held = mm.split_own_parts(self.cx.descend(), part);
        let passed_by = mm.split_object_parts(&mut self.cx, part);
        let mem = mm.machine().mem();
        mm.for_each_locked_leaf(&mut self.cx, part, |part, leaf| {
            let mut whole = mm.passed_by(leaf, part, Shared::PassesBy);
            whole.extend(&held);
            for at in part.iter() {
                let pte = leaf.get(at);
                let passes = |pfn: &Pfn| passed_by.contains(pfn) || is_part_of(mem, &whole, *pfn);
                let own =
                    |pfn: &Pfn| mem.mapcount(*pfn) == 1 && !passes(pfn) && !mem.is_device(*pfn);
                let Some(pfn) = pte.counted().filter(own) else {
                    continue; // Others may use it.
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

/// Frees one page lazily (`madvise_free_pte_range`): drops a page in swap, and poison, at once,
/// marks one in memory. A page that is dirty or in the swap cache is left alone if other processes
/// map it.
fn free_lazily(slot: PteSlot<'_>) {
    let (pte, mem) = (slot.raw(), slot.mem());
    if pte.swap_slot().is_some() || pte.is_poison() {
        drop(slot.clear());
        return;
    }
    let Some(pfn) = pte.counted() else {
        return;
    };
    let flags = mem.flags(pfn);
    if !flags.contains(FrameFlags::ANON) || mem.is_device(pfn) {
        return;
    }
    if flags.intersects(FrameFlags::SWAP_CACHE | FrameFlags::DIRTY) {
        // The holder of the page's lock, above all reclaim, relies on the state that would change
        // here.
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
        if flags.contains(FrameFlags::SWAP_BACKED) {
            mem.collect_lazily(pfn);
        }
        mem.lru_move(pfn, FrameFlags::empty(), lists);
    }
}

fn no_memory(e: NoMemory) -> MadviseError {
    MadviseError::NoMemory(e)
}
