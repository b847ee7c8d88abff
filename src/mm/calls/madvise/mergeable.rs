//! Mergeable memory: which memory is to be merged, and how it is unmerged (`ksm_madvise`).

use crate::mm::{
    entry::flags::VmFlags,
    fault::scope::FaultScope,
    guard::MmapWriteGuard,
    space::Mm,
    vma::{Vma, layout::Layout},
};
use crate::{
    addr::{Vpn, VpnRange},
    ctx::{CallCx, Cx, Rank, Sleepable},
    error::{FaultError, VmaError},
};

/// Returns the flags of mergeable memory; unchanged for memory that cannot be merged
/// (`ksm_compatible`).
pub(in crate::mm) fn with_merging(flags: VmFlags) -> VmFlags {
    let never = VmFlags::SHARED | VmFlags::MAYSHARE | VmFlags::SPECIAL | VmFlags::DROPPABLE;
    if flags.intersects(never) {
        flags
    } else {
        flags | VmFlags::MERGEABLE
    }
}

impl Layout {
    /// Returns the flags of a new mapping: mergeable, if all memory is to be merged
    /// (`ksm_vma_flags`).
    pub(in crate::mm) fn with_merge_all(&self, flags: VmFlags) -> VmFlags {
        if self.merge_all {
            with_merging(flags)
        } else {
            flags
        }
    }
}

fn is_mergeable(vma: &Vma) -> bool {
    vma.flags.contains(VmFlags::MERGEABLE) && vma.anon.get().is_some()
}

impl Mm {
    /// Sets whether all memory that can be merged is to be merged: also memory mapped later, and
    /// that of forks (`PR_SET_MEMORY_MERGE`). When that ends, merged pages become the process's
    /// own, each in a window. No VMA is split or merged with its neighbour.
    ///
    /// # Errors
    ///
    /// [`VmaError::NoMemory`]: some memory stays merged, and mergeable.
    pub fn set_merge_all(&self, cx: &mut CallCx<'_>, all: bool) -> Result<(), VmaError> {
        let mut g = self.lock_exclusive(cx);
        if g.layout.merge_all == all {
            return Ok(());
        }
        if all {
            g.enter_merging();
        }
        let vmas: Vec<VpnRange> = g.layout.vmas.iter().map(Vma::range).collect();
        for range in vmas {
            let flags = g.vma(range.start()).flags;
            let new = if all {
                with_merging(flags)
            } else {
                flags - VmFlags::MERGEABLE
            };
            if new == flags {
                continue;
            }
            if !all {
                g.unmerge_part(range)?;
            }
            g.layout.change(range.start(), |vma| vma.flags = new);
        }
        g.layout.merge_all = all;
        Ok(())
    }
    /// Returns true if all memory is to be merged (`PR_GET_MEMORY_MERGE`).
    pub fn merges_all(&self, cx: &mut CallCx<'_>) -> bool {
        self.lock_shared(cx).layout.merge_all
    }
    /// Returns the rank of this address space by the time when it first had mergeable memory,
    /// counted over the machine. An address space without any loses its rank, and comes last when
    /// it has some again.
    pub(in crate::mm) fn merge_turn(&self, cx: &mut CallCx<'_>) -> Option<u64> {
        let mut g = self.lock_exclusive(cx);
        let some = g
            .layout
            .vmas
            .iter()
            .any(|v| v.flags.contains(VmFlags::MERGEABLE));
        if !some {
            g.layout.merge_turn = None;
        }
        g.layout.merge_turn
    }
    pub(in crate::mm) fn leave_merging(&self, cx: &mut CallCx<'_>) {
        self.lock_exclusive(cx).layout.merge_turn = None;
    }
    /// Returns the ranges of the mergeable memory.
    pub(in crate::mm) fn mergeable_ranges(&self, cx: &mut CallCx<'_>) -> Vec<VpnRange> {
        let g = self.lock_shared_over(cx, None);
        let vmas = g.layout.vmas.iter().filter(|vma| is_mergeable(vma));
        vmas.map(Vma::range).collect()
    }
    /// Returns the pages of the mergeable memory that are mapped.
    pub(in crate::mm) fn mergeable_pages(&self, cx: &mut CallCx<'_>) -> Vec<Vpn> {
        let mut pages = Vec::new();
        for range in self.mergeable_ranges(cx) {
            self.for_each_entry(cx, range, |at, pte| pages.extend(pte.counted().map(|_| at)));
        }
        pages
    }
    fn merged_in<R: Rank>(&self, cx: &mut Cx<'_, R, Sleepable>, range: VpnRange) -> Vec<Vpn> {
        let mem = self.machine().mem();
        let mut pages = Vec::new();
        self.for_each_entry(cx, range, |at, pte| {
            // A page that moves stays merged.
            let pfn = pte.counted_or_migrating();
            pages.extend(pfn.filter(|&p| mem.is_merged(p)).map(|_| at));
        });
        pages
    }
    /// Gives the process pages of its own for the merged pages of the range, each in a window
    /// (`unmerge_ksm_pages`). Where memory runs out they stay merged.
    pub(in crate::mm) fn unmerge(&self, cx: &mut CallCx<'_>, range: VpnRange) {
        for at in self.merged_in(cx, range) {
            let range = VpnRange::single(at);
            while let (Ok(true), _) =
                self.with_fault_scope(cx, range, |scope| scope.unmerge_page(at))
            {}
        }
    }
}

impl MmapWriteGuard<'_> {
    /// Gives the address space its rank, when a VMA becomes mergeable.
    pub(in crate::mm) fn enter_merging(&mut self) {
        let layout = &mut *self.layout;
        let turns = &layout.machine.merge_turns;
        layout.merge_turn.get_or_insert_with(|| turns.next());
    }
    /// Unmerges the pages of `part`, before it loses the flag (`MADV_UNMERGEABLE`) or is moved
    /// (`prep_move_vma`).
    pub(in crate::mm) fn unmerge_part(&mut self, part: VpnRange) -> Result<(), VmaError> {
        let merged = self.mm.merged_in(&mut self.cx, part);
        self.yield_while_reading(|layout, lease| {
            let mut held = FaultScope::new(layout, lease);
            for at in merged {
                while held.unmerge_page(at)? {}
            }
            Ok(())
        })
        .map_err(|e| match e {
            FaultError::NoMemory(why) => VmaError::NoMemory(why),
            e => unreachable!("a page that is there cannot be missed: {e}"),
        })
    }
}

impl FaultScope<'_> {
    /// Gives the process a page of its own at `at` if the page there is merged (`break_ksm`):
    /// unshares it, as for a reader that keeps the page. Returns false if it is not merged.
    ///
    /// The page stays merged if its entry changes before it is replaced, as by an access that marks
    /// it, or if it has to be waited for since it moves. So the caller repeats the call until it
    /// returns false.
    fn unmerge_page(&mut self, at: Vpn) -> Result<bool, FaultError> {
        let mm = self.lease.mm;
        let Some(vma) = self.layout.vmas.get(at) else {
            return Ok(false);
        };
        let pte = mm.with_leaf_of(&mut self.lease.cx, at, |leaf| leaf.get(at));
        let merged = pte.filter(|pte| {
            pte.counted_or_migrating()
                .is_some_and(|pfn| mm.machine().mem().is_merged(pfn))
        });
        let Some(pte) = merged else {
            return Ok(false);
        };
        match pte.migrating() {
            Some(_) => self.wait_for_migration(pte),
            None => self.unshare(vma, at, pte)?,
        }
        Ok(true)
    }
}
