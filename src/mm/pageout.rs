//! `MADV_PAGEOUT`: pages of a range are reclaimed at once, used lately or not.

use super::{Mm, flags::VmFlags, guard::Lease};
use crate::{
    addr::{PMD_PAGES, VpnRange},
    ctx::{Cx, Sleepable, rank},
    error::MadviseError,
    frame::{Frame, FrameFlags},
    reclaim::References,
};
use std::convert::Infallible;

impl Mm {
    /// VMA by VMA (`madvise_pageout`).
    pub(super) fn advise_pageout(
        &self,
        cx: &mut Cx<'_, rank::Idle, Sleepable>,
        range: VpnRange,
    ) -> Result<(), MadviseError> {
        self.each_pinned(cx, range, |vma, part| {
            if vma.flags.contains(VmFlags::LOCKED) {
                return Err(MadviseError::Unsuitable(vma.start().addr()));
            }
            Ok(move |lease: Lease<'_, rank::Mmap, Sleepable>| lease.page_out(part))
        })
    }
}

impl Lease<'_, rank::Mmap, Sleepable> {
    /// What each leaf maps is gathered under its lock and reclaimed after it: lowest address first.
    fn page_out(mut self, part: VpnRange) {
        let mm = self.mm;
        let mut at = part.start();
        while at < part.end() {
            let next = at.align_down(PMD_PAGES).plus(PMD_PAGES).min(part.end());
            let block = VpnRange::new(at, next).expect("next lies above at");
            let list = own_pages(mm, &mut self.cx, block);
            let _counts = mm
                .machine()
                .reclaimer()
                .shrink(&mut self.cx, list, References::Ignore);
            at = next;
        }
    }
}

/// Frames of a leaf that no other entry maps: what others use is not this process's to give up.
fn own_pages<'m>(
    mm: &'m Mm,
    cx: &mut Cx<'_, rank::Mmap, Sleepable>,
    block: VpnRange,
) -> Vec<Frame<'m>> {
    let mem = mm.machine().mem();
    let pinned = cx.pin();
    let mut list = Vec::new();
    mm.table
        .leaves(block, mm.table.pin(pinned.guard()), |part, leaf| {
            let leaf = leaf.lock();
            let counted = part.iter().filter_map(|at| leaf.get(at).counted());
            let own = counted.filter(|&pfn| mem.mapcount(pfn) == 1);
            for pfn in own {
                mem.clear_flags(pfn, FrameFlags::REFERENCED | FrameFlags::ACTIVE);
                // Taken off its list: what is on none is somebody's business already.
                if mem.lru_remove(pfn) || !mem.keeps_lists() {
                    list.push(mem.get(pfn));
                }
            }
            Ok::<(), Infallible>(())
        })
        .unwrap_or_else(|e| match e {});
    list
}
