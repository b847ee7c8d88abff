//! Ownership of a large page of private memory: whether this process alone maps it.
//!
//! A huge page is 512 frames in a row, a folio 16, each with the flag `LARGE`; the first one is the
//! *head*. Several processes may map parts of them after a fork.

use crate::mm::{
    page_table::{LockedLeaf, shared_huge},
    space::Mm,
};
use crate::{
    addr::{Pfn, Vpn, VpnRange},
    ctx::{Context, Cx, FaultCx, Rank},
    frame::{FrameFlags, Large, PhysMem},
    rmap::{FrameOwner, RmapCx},
};
use std::sync::Arc;

/// Returns true if the entry maps a part of the large page.
pub(in crate::mm) fn is_part(mem: &PhysMem, leaf: &LockedLeaf<'_>, at: Vpn, page: Large) -> bool {
    let mapped = leaf.get(at).counted();
    mapped.is_some_and(|pfn| is_part_of(mem, &[page], pfn))
}

/// Returns true if the frame is part of one of these large pages.
pub(in crate::mm) fn is_part_of(mem: &PhysMem, pages: &[Large], pfn: Pfn) -> bool {
    !pages.is_empty() && mem.large(pfn).is_some_and(|page| pages.contains(&page))
}

/// The kind of the large pages of private memory: these flags of each frame.
pub(super) const LARGE_ANON: FrameFlags = FrameFlags::LARGE.union(FrameFlags::ANON);

/// The kind of the huge pages of objects, which have only this one of [`LARGE_ANON`].
pub(super) const LARGE_OBJECT: FrameFlags = FrameFlags::LARGE;

impl Mm {
    /// The owner of a large page, of which `part` is a frame, and the half-open range of its page
    /// offsets there.
    pub(super) fn node_of(
        &self,
        page: Large,
        part: Pfn,
    ) -> Option<(Arc<dyn FrameOwner>, (u64, u64))> {
        let machine = self.machine();
        let owner = machine.mem().owner(part)?;
        let node = machine.registry().find(owner.id)?;
        Some((node, page.pages(part, owner.index)?))
    }
    /// Returns true if this process maps parts of the large page of frame `part` and no other
    /// process does, nor seems to do (`!folio_maybe_mapped_shared`).
    pub(in crate::mm) fn has_alone(&self, cx: &mut RmapCx<'_>, part: Pfn) -> bool {
        let mem = self.machine().mem();
        let Some(page) = mem.large(part) else {
            return false;
        };
        let Some((node, pages)) = self.node_of(page, part) else {
            return false;
        };
        let (mut own, mut places) = (0, 0);
        node.walk_huge(cx.reborrow(), pages, &mut |cx, spot, part| {
            if std::ptr::addr_eq(Arc::as_ptr(spot.space), std::ptr::from_ref(self)) {
                let (parts, as_one) = self.parts_in(cx, part, page);
                own += parts;
                places += if as_one { 1 } else { parts };
            }
            true
        });
        // What is mapped in one place is not shared, counted or not.
        own > 0
            && own == mem.large_mappings(page)
            && (places == 1 || !self.is_uncounted(page.head()))
    }
    /// Returns the first frame of the huge page that is mapped as one in the 2 MiB of `block`, all
    /// of them, if this process alone maps it, here or elsewhere.
    pub(in crate::mm) fn huge_alone(&self, cx: &mut FaultCx<'_>, block: VpnRange) -> Option<Pfn> {
        let at = block.start();
        let head = self.with_leaf_of(cx, at, |leaf| {
            let head = leaf.get(at).counted().filter(|_| leaf.is_huge())?;
            is_whole(leaf, block, at, (Large::huge(head), head)).then_some(head)
        });
        let head = head.flatten()?;
        self.has_alone(&mut cx.descend(), head).then_some(head)
    }
    /// Counts the entries of `range` that map parts of the large page; true if they map it as one.
    fn parts_in(&self, mut cx: RmapCx<'_>, range: VpnRange, page: Large) -> (u64, bool) {
        let mem = self.machine().mem();
        let (mut found, mut as_one) = (0, false);
        self.for_each_locked_leaf(&mut cx, range, |part, leaf| {
            let parts = part.iter().filter(|&at| is_part(mem, leaf, at, page));
            found += parts.count() as u64;
            as_one |= leaf.is_huge() && found > 0;
        });
        (found, as_one)
    }
    /// Runs `f` on each frame in `range` of a large page of this kind that is not mapped as a whole
    /// there, in ascending order of addresses. Passes over the rest of a page that `f` has split.
    pub(super) fn for_each_cut<R: Rank, C: Context>(
        &self,
        cx: &mut Cx<'_, R, C>,
        range: VpnRange,
        kind: FrameFlags,
        mut f: impl FnMut(&mut Cx<'_, R, C>, Pfn),
    ) {
        let mem = self.machine().mem();
        let is_large = |pfn: &Pfn| mem.flags(*pfn).intersection(LARGE_ANON) == kind;
        let mut candidates = Vec::new();
        self.for_each_entry(cx, range, |at, pte| {
            candidates.extend(pte.counted().filter(is_large).map(|_| at));
        });
        for at in candidates {
            let cut = self.with_leaf_of(cx, at, |leaf| {
                let pfn = leaf.get(at).counted().filter(is_large)?;
                let page = mem.large(pfn)?;
                (!is_whole(leaf, range, at, (page, pfn))).then_some(pfn)
            });
            if let Some(pfn) = cut.flatten() {
                f(cx, pfn);
            }
        }
    }
}

/// The treatment of a large page that is mapped by small entries, all of it here and some of it
/// elsewhere as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::mm) enum Shared {
    /// The advice passes it by.
    PassesBy,
    /// The advice frees it lazily (`madvise_free_pte_range`), if nothing was written but through
    /// its entries.
    MayBeFreed,
}

impl Mm {
    /// Returns the large pages in `range`, a part of one leaf, that an advice passes by, since they
    /// are or seem to be shared. Of a page that is mapped in parts only such are left that could
    /// not be split.
    pub(in crate::mm) fn passed_by(
        &self,
        leaf: &LockedLeaf<'_>,
        range: VpnRange,
        shared: Shared,
    ) -> Vec<Large> {
        let mem = self.machine().mem();
        let mut passed_by = Vec::new();
        if !mem.has_large() {
            return passed_by;
        }
        let mut last = None;
        for at in range.iter() {
            let mapped = leaf.get(at).counted();
            let Some((page, pfn)) = mapped.and_then(|pfn| Some((mem.large(pfn)?, pfn))) else {
                continue;
            };
            let is_next = last.replace(page) != Some(page);
            if is_next && self.passes_by(leaf, range, at, (page, pfn), shared) {
                passed_by.push(page);
            }
        }
        passed_by
    }
    /// Returns true if an advice for `range` passes the large page by of which `at` maps a part.
    fn passes_by(
        &self,
        leaf: &LockedLeaf<'_>,
        range: VpnRange,
        at: Vpn,
        (page, part): (Large, Pfn),
        shared: Shared,
    ) -> bool {
        let mem = self.machine().mem();
        if leaf.is_huge() {
            return shared_huge(mem, leaf);
        }
        let kept = FrameFlags::DIRTY | FrameFlags::SWAP_CACHE;
        let is_kept = |pfn| mem.flags(pfn).intersects(kept);
        !is_whole(leaf, range, at, (page, part))
            || mem.large_mappings(page) != u64::from(page.frames())
                && (shared == Shared::PassesBy || mem.large_parts(page).any(is_kept))
    }
}

/// Returns true if all of the large page of which `at` maps a part is mapped in a row, in one leaf
/// and in `range` (`madvise_folio_pte_batch`).
pub(in crate::mm) fn is_whole(
    leaf: &LockedLeaf<'_>,
    range: VpnRange,
    at: Vpn,
    (page, part): (Large, Pfn),
) -> bool {
    let row = page.pages(part, at.0);
    let row = row.and_then(|(first, end)| VpnRange::new(Vpn(first), Vpn(end)));
    let Some(row) = row.filter(|&row| VpnRange::block_of(at).covers(row) && range.covers(row))
    else {
        return false;
    };
    let is_nth = |(pfn, page): (Pfn, Vpn)| leaf.get(page).counted() == Some(pfn);
    page.all().zip(row.iter()).all(is_nth)
}
