//! Ownership of a huge page of private memory: whether this process alone maps it.
//!
//! The 2 MiB of a huge page are 512 frames in a row, each with the flag `LARGE`; the first one is
//! the *head*. Several processes may map parts of them after a fork.

use crate::mm::{
    page_table::{LockedLeaf, shared_huge},
    space::Mm,
};
use crate::{
    addr::{Pfn, Vpn, VpnRange},
    ctx::{Context, Cx, FaultCx, Rank},
    frame::{FrameFlags, HUGE, PhysMem},
    rmap::{FrameOwner, RmapCx},
};
use std::sync::Arc;

/// Returns true if the entry maps a page of the huge page that begins with `head`.
pub(in crate::mm) fn is_part(mem: &PhysMem, leaf: &LockedLeaf<'_>, at: Vpn, head: Pfn) -> bool {
    let page = leaf.get(at).counted();
    page.is_some_and(|pfn| is_part_of(mem, &[head], pfn))
}

/// Returns true if the frame is part of one of the huge pages that begin with these.
pub(in crate::mm) fn is_part_of(mem: &PhysMem, heads: &[Pfn], pfn: Pfn) -> bool {
    heads.contains(&pfn.head()) && mem.is_large(pfn)
}

/// The kind of the huge pages of private memory: these flags of each frame.
pub(super) const LARGE_ANON: FrameFlags = FrameFlags::LARGE.union(FrameFlags::ANON);

/// The kind of the huge pages of objects, which have only this one of [`LARGE_ANON`].
pub(super) const LARGE_OBJECT: FrameFlags = FrameFlags::LARGE;

impl Mm {
    /// The owner of a huge page, and its half-open range of page offsets there.
    pub(super) fn node_of(&self, head: Pfn) -> Option<(Arc<dyn FrameOwner>, (u64, u64))> {
        let machine = self.machine();
        let owner = machine.mem().owner(head)?;
        let node = machine.registry().find(owner.id)?;
        Some((node, (owner.index, owner.index + u64::from(HUGE))))
    }
    /// Returns true if this process maps parts of a huge page of private memory and no other
    /// process does, nor seems to do (`!folio_maybe_mapped_shared`).
    pub(in crate::mm) fn has_alone(&self, cx: &mut RmapCx<'_>, head: Pfn) -> bool {
        let mem = self.machine().mem();
        let Some((node, pages)) = self.node_of(head) else {
            return false;
        };
        let (mut own, mut places) = (0, 0);
        node.walk_huge(cx.reborrow(), pages, &mut |cx, spot, part| {
            if std::ptr::addr_eq(Arc::as_ptr(spot.space), std::ptr::from_ref(self)) {
                let (parts, as_one) = self.parts_in(cx, part, head);
                own += parts;
                places += if as_one { 1 } else { parts };
            }
            true
        });
        // What is mapped in one place is not shared, counted or not.
        own > 0 && own == mem.huge_mappings(head) && (places == 1 || !self.is_uncounted(head))
    }
    /// Returns the first frame of the huge page that is mapped as one in the 2 MiB of `block`, all
    /// of them, if this process alone maps it, here or elsewhere.
    pub(in crate::mm) fn huge_alone(&self, cx: &mut FaultCx<'_>, block: VpnRange) -> Option<Pfn> {
        let at = block.start();
        let head = self.with_leaf_of(cx, at, |leaf| {
            let head = leaf.get(at).counted().filter(|_| leaf.is_huge())?;
            is_whole(leaf, block, at, head).then_some(head)
        });
        let head = head.flatten()?;
        self.has_alone(&mut cx.descend(), head).then_some(head)
    }
    /// Counts the entries of `range` that map pages of the huge page; true if they map it as one.
    fn parts_in(&self, mut cx: RmapCx<'_>, range: VpnRange, head: Pfn) -> (u64, bool) {
        let mem = self.machine().mem();
        let (mut found, mut as_one) = (0, false);
        self.for_each_locked_leaf(&mut cx, range, |part, leaf| {
            let parts = part.iter().filter(|&at| is_part(mem, leaf, at, head));
            found += parts.count() as u64;
            as_one |= leaf.is_huge() && found > 0;
        });
        (found, as_one)
    }
    /// Runs `f` on each frame in `range` of a huge page of this kind that is not mapped as a whole
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
                (!is_whole(leaf, range, at, pfn.head())).then_some(pfn)
            });
            if let Some(pfn) = cut.flatten() {
                f(cx, pfn);
            }
        }
    }
}

impl Mm {
    /// Returns the first frames of the huge pages in `range`, a part of one leaf, that an advice
    /// passes by, since they are or seem to be shared. Of a page that is mapped in parts only such
    /// are left that could not be split.
    pub(in crate::mm) fn passed_by(&self, leaf: &LockedLeaf<'_>, range: VpnRange) -> Vec<Pfn> {
        let mem = self.machine().mem();
        let mut passed_by = Vec::new();
        if !mem.has_huge() {
            return passed_by;
        }
        let mut last = None;
        for at in range.iter() {
            let page = leaf.get(at).counted();
            let Some(pfn) = page.filter(|&pfn| mem.is_large(pfn)) else {
                continue;
            };
            let head = pfn.head();
            if last.replace(head) != Some(head) && self.passes_by(leaf, range, at, head) {
                passed_by.push(head);
            }
        }
        passed_by
    }
    /// Returns true if an advice for `range` passes the huge page at `at` by.
    fn passes_by(&self, leaf: &LockedLeaf<'_>, range: VpnRange, at: Vpn, head: Pfn) -> bool {
        if leaf.is_huge() {
            return shared_huge(self.machine().mem(), leaf);
        }
        let all = self.machine().mem().huge_mappings(head);
        !is_whole(leaf, range, at, head) || all != u64::from(HUGE)
    }
}

/// Returns true if all of the huge page is mapped in the block of `at`, in a row, and the block
/// lies in `range`.
fn is_whole(leaf: &LockedLeaf<'_>, range: VpnRange, at: Vpn, head: Pfn) -> bool {
    let block = VpnRange::block_of(at);
    let is_nth = |(i, page): (u32, Vpn)| leaf.get(page).counted() == Some(head.nth(i));
    range.covers(block) && (0..HUGE).zip(block.iter()).all(is_nth)
}
