//! Large pages of private memory as reclaim meets them: whether they were used, and how those go
//! that `MADV_FREE` has marked (`folio_referenced_one`, `try_to_unmap_one`).

use super::target::NO_RECENCY;
use crate::mm::{
    entry::{flags::VmFlags, release::RemovedPte},
    large::ownership::is_part,
    page_table::LockedLeaf,
    space::Mm,
    window::Lease,
};
use crate::{
    addr::{Pfn, Vpn, VpnRange},
    frame::{FrameFlags, Large, PhysMem},
    notifier::{AgeKind, Event},
    rmap::{MappedAt, RmapCx, UnmapRefused, Young},
};

impl Mm {
    /// See [`RmapTarget::referenced_large`](crate::rmap::RmapTarget::referenced_large).
    pub(super) fn referenced_large_at(
        &self,
        mut cx: RmapCx<'_>,
        spot: &MappedAt<'_>,
        part: VpnRange,
        page: Large,
    ) -> (u64, Young) {
        let mem = self.machine().mem();
        let flags = VmFlags::from_bits_retain(spot.flags);
        let mut rows: Vec<(VpnRange, u64)> = Vec::new();
        self.for_each_locked_leaf(&mut cx, part, |part, leaf| match leaf.is_huge() {
            // One entry, which is asked once.
            true if is_part(mem, leaf, part.start(), page) => rows.push((part, part.pages())),
            _ => rows.extend(parts(mem, leaf, part, page).map(|at| (VpnRange::single(at), 1))),
        });
        let mappings = rows.iter().map(|&(_, mappings)| mappings).sum();
        if flags.contains(VmFlags::LOCKED) {
            let all = mappings == u64::from(page.frames());
            return (mappings, if all { Young::Locked } else { Young::No });
        }
        let mut young = false;
        for (range, _) in rows {
            young |= self.age_range(&mut cx, range, AgeKind::ClearFlush);
        }
        let counts = young && !flags.intersects(NO_RECENCY);
        (mappings, if counts { Young::Yes } else { Young::No })
    }
    /// See [`RmapTarget::discard_large`](crate::rmap::RmapTarget::discard_large).
    pub(super) fn discard_large_at(
        &self,
        cx: RmapCx<'_>,
        spot: &MappedAt<'_>,
        part: VpnRange,
        (page, locked): (Large, Pfn),
    ) -> Result<(), UnmapRefused> {
        let mem = self.machine().mem();
        let flags = VmFlags::from_bits_retain(spot.flags);
        let mut window = Lease { mm: self, cx }.into_window(part, Event::Clear);
        let (mut kept, mut as_one) = (flags.contains(VmFlags::LOCKED), false);
        window.for_each_leaf_in(part, |txn| {
            let there: Vec<Vpn> = parts(mem, txn.leaf(), txn.range(), page).collect();
            let used = |&at: &Vpn| is_used(mem, txn.leaf(), at, (flags, locked));
            if kept || there.iter().any(used) {
                kept = true;
                return;
            }
            as_one |= txn.leaf().is_huge() && !there.is_empty();
            if as_one {
                txn.leaf().set_huge(false);
            }
            for at in there {
                let Some(slot) = txn.entry(at) else {
                    continue;
                };
                match slot.raw().counted() == Some(locked) {
                    true => RemovedPte::give_up_locked(slot.clear()),
                    false => drop(slot.clear()),
                }
            }
        });
        if as_one {
            // On Linux a page that is mapped as one has no table.
            window.free_empty_leaves(part);
        }
        window.close();
        match kept {
            true => Err(UnmapRefused::Needed),
            false => Ok(()),
        }
    }
}

/// Returns the pages of a leaf that map a part of the large page.
fn parts(
    mem: &PhysMem,
    leaf: &LockedLeaf<'_>,
    range: VpnRange,
    page: Large,
) -> impl Iterator<Item = Vpn> {
    range.iter().filter(move |&at| is_part(mem, leaf, at, page))
}

/// Returns true if the page was written since it was given up, which all of the large page is kept
/// for then, or if something else than its mappings and the caller's lock refers to it.
fn is_used(mem: &PhysMem, leaf: &LockedLeaf<'_>, at: Vpn, (flags, locked): (VmFlags, Pfn)) -> bool {
    let pte = leaf.get(at);
    let Some(pfn) = pte.counted() else {
        return false;
    };
    let dirty = pte.is_dirty() || mem.flags(pfn).contains(FrameFlags::DIRTY);
    if dirty && !flags.contains(VmFlags::DROPPABLE) {
        mem.set_flags(pfn, FrameFlags::DIRTY);
        mem.set_flags_of_page(pfn, FrameFlags::SWAP_BACKED);
        return true;
    }
    mem.refcount(pfn) != mem.mapcount(pfn) + u32::from(pfn == locked)
}
