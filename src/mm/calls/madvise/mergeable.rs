//! Which memory is to be merged, since when, and how it is unmerged (`ksm_madvise`).

use crate::ctx::CallCx;
use crate::mm::{
    entry::{flags::VmFlags, merged::is_merged},
    guard::{FaultScope, MmapWriteGuard},
    space::Mm,
    vma::{Vma, layout::Layout},
};
use crate::{
    addr::{Vpn, VpnRange},
    ctx::{Cx, Rank, Sleepable},
    error::{FaultError, VmaError},
};

/// The flags of memory that is to be merged, if such memory can be (`ksm_compatible`).
pub(in crate::mm) fn with_merging(flags: VmFlags) -> VmFlags {
    let never = VmFlags::SHARED | VmFlags::MAYSHARE | VmFlags::SPECIAL | VmFlags::DROPPABLE;
    if flags.intersects(never) {
        flags
    } else {
        flags | VmFlags::MERGEABLE
    }
}

impl Layout {
    /// The flags of a new mapping (`ksm_vma_flags`).
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
    /// Says whether all memory is to be merged that can be, what is mapped later too, also by forks
    /// (`PR_SET_MEMORY_MERGE`). Where it is not any more, merged pages become the process's own, each in a window. No VMA is
    /// split, and none merges with its neighbour.
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
    /// Whether all memory is to be merged (`PR_GET_MEMORY_MERGE`).
    pub fn merges_all(&self, cx: &mut CallCx<'_>) -> bool {
        self.lock_shared(cx).layout.merge_all
    }
    /// When this address space first had mergeable memory, counted over the machine. One that has none any more is
    /// forgotten, and comes last when it has some again.
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
    /// Where its mergeable memory lies.
    pub(in crate::mm) fn mergeable_ranges(&self, cx: &mut CallCx<'_>) -> Vec<VpnRange> {
        let g = self.lock_shared_over(cx, None);
        let vmas = g.layout.vmas.iter().filter(|vma| is_mergeable(vma));
        vmas.map(Vma::range).collect()
    }
    /// The pages of it that are there.
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
            pages.extend(pte.counted().filter(|&p| is_merged(mem, p)).map(|_| at));
        });
        pages
    }
    /// Merged pages of the range become the process's own, each in a window (`unmerge_ksm_pages`). Where memory runs out they
    /// stay merged.
    pub(in crate::mm) fn unmerge(&self, cx: &mut CallCx<'_>, range: VpnRange) {
        for at in self.merged_in(cx, range) {
            let range = VpnRange::single(at);
            let _stays = self.with_fault_scope(cx, range, |scope| scope.unmerge_page(at));
        }
    }
}

impl MmapWriteGuard<'_> {
    /// The VMA is to be merged from here on: its address space has its turn.
    pub(in crate::mm) fn enter_merging(&mut self) {
        let layout = &mut *self.layout;
        let turns = &layout.machine.merge_turns;
        layout.merge_turn.get_or_insert_with(|| turns.next());
    }
    /// `MADV_UNMERGEABLE`, before the flag goes; and what is about to move (`prep_move_vma`).
    pub(in crate::mm) fn unmerge_part(&mut self, part: VpnRange) -> Result<(), VmaError> {
        let merged = self.mm.merged_in(&mut self.cx, part);
        self.yield_while_faulting(|mut held| {
            merged.into_iter().try_for_each(|at| held.unmerge_page(at))
        })
        .map_err(|e| match e {
            FaultError::NoMemory(why) => VmaError::NoMemory(why),
            e => unreachable!("a page that is there cannot be missed: {e}"),
        })
    }
}

impl FaultScope<'_> {
    /// `break_ksm`: as for somebody else who reads the page, and keeps it.
    fn unmerge_page(&mut self, at: Vpn) -> Result<(), FaultError> {
        let mm = self.lease.mm;
        let Some(vma) = self.layout.vmas.get(at) else {
            return Ok(());
        };
        let pte = mm.with_leaf_of(&mut self.lease.cx, at, |leaf| leaf.get(at));
        let merged = pte.filter(|pte| {
            pte.counted()
                .is_some_and(|pfn| is_merged(mm.machine().mem(), pfn))
        });
        merged.map_or(Ok(()), |pte| self.unshare(vma, at, pte))
    }
}
