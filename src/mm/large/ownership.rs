//! Ownership of a huge page of private memory: whether this process alone maps it.
//!
//! The 2 MiB of a huge page are 512 frames in a row, each with the flag `LARGE`; the first one is
//! the *head*. Several processes may map parts of them after a fork.

use crate::mm::{page_table::LockedLeaf, space::Mm};
use crate::{
    addr::{Pfn, Vpn, VpnRange},
    ctx::{FaultCx, rank},
    frame::{FrameFlags, HUGE, PhysMem},
    rmap::{FrameOwner, RmapCx, split_object_huge},
};
use std::sync::Arc;

/// Returns true if the entry maps a page of the huge page that begins with `head`.
pub(in crate::mm) fn is_part(mem: &PhysMem, leaf: &LockedLeaf<'_>, at: Vpn, head: Pfn) -> bool {
    let part = |pfn: Pfn| pfn.head() == head && mem.flags(pfn).contains(FrameFlags::LARGE);
    leaf.get(at).counted().is_some_and(part)
}

pub(in crate::mm) const LARGE_ANON: FrameFlags = FrameFlags::LARGE.union(FrameFlags::ANON);

impl Mm {
    /// The owner of a huge page, and its half-open range of page offsets there.
    pub(super) fn node_of(&self, head: Pfn) -> Option<(Arc<dyn FrameOwner>, (u64, u64))> {
        let machine = self.machine();
        let owner = machine.mem().owner(head)?;
        let node = machine.registry().find(owner.id)?;
        Some((node, (owner.index, owner.index + u64::from(HUGE))))
    }
    /// Returns true if this process maps parts of a huge page of private memory and no other
    /// process does (`!folio_maybe_mapped_shared`).
    pub(in crate::mm) fn has_alone(&self, cx: &mut RmapCx<'_>, head: Pfn) -> bool {
        let mem = self.machine().mem();
        let Some((node, pages)) = self.node_of(head) else {
            return false;
        };
        let mut own = 0;
        node.walk_huge(cx.reborrow(), pages, &mut |cx, spot, part| {
            if std::ptr::addr_eq(Arc::as_ptr(spot.space), std::ptr::from_ref(self)) {
                own += self.parts_in(cx, part, head);
            }
            true
        });
        own > 0 && own == mem.huge_mappings(head)
    }
    /// Counts the entries of `range` that map pages of the huge page.
    fn parts_in(&self, mut cx: RmapCx<'_>, range: VpnRange, head: Pfn) -> u64 {
        let mem = self.machine().mem();
        let mut found = 0;
        self.for_each_locked_leaf(&mut cx, range, |part, leaf| {
            let parts = part.iter().filter(|&at| is_part(mem, leaf, at, head));
            found += parts.count() as u64;
        });
        found
    }
    /// The pages of `range` that map parts of huge private pages: candidates for
    /// [`own_part`](Self::own_part).
    pub(super) fn large_in(&self, cx: &mut RmapCx<'_>, range: VpnRange) -> Vec<Vpn> {
        let mem = self.machine().mem();
        let is_large = |pfn| mem.flags(pfn).contains(LARGE_ANON);
        let mut found = Vec::new();
        self.for_each_entry(cx, range, |at, pte| {
            found.extend(pte.counted().filter(|&pfn| is_large(pfn)).map(|_| at));
        });
        found
    }
    /// The pages of `range` that map parts of huge pages of objects: candidates for
    /// [`part_of_object`](Self::part_of_object).
    fn object_parts_in(&self, cx: &mut FaultCx<'_>, range: VpnRange) -> Vec<Vpn> {
        let mem = self.machine().mem();
        let is_part = |pfn| mem.flags(pfn).intersection(LARGE_ANON) == FrameFlags::LARGE;
        let mut found = Vec::new();
        self.for_each_entry(cx, range, |at, pte| {
            found.extend(pte.counted().filter(|&pfn| is_part(pfn)).map(|_| at));
        });
        found
    }
    /// Splits the huge pages of objects that lie only partly in `range`, if this process alone maps
    /// them: an advice for a part of a page must not reach the rest
    /// (`madvise_cold_or_pageout_pte_range`). Their pages are no longer mapped then.
    pub(in crate::mm) fn split_object_parts(&self, cx: &mut FaultCx<'_>, range: VpnRange) {
        let machine = self.machine();
        let mem = machine.mem();
        for at in self.object_parts_in(cx, range) {
            let Some(pfn) = self.part_of_object(cx, range, at) else {
                continue;
            };
            let part = mem.try_get(pfn).map(|part| mem.try_lock(part));
            let Some(Ok(locked)) = part else {
                continue;
            };
            let mut cx = cx.descend::<rank::Folio, _>();
            if self.has_alone(&mut cx.descend(), pfn.head()) {
                split_object_huge(machine.registry(), mem, &mut cx, &locked);
            }
        }
    }
    /// The frame at `at` if it is a part of an object's huge page that is not mapped in a row
    /// inside `range`.
    fn part_of_object(&self, cx: &mut FaultCx<'_>, range: VpnRange, at: Vpn) -> Option<Pfn> {
        let mem = self.machine().mem();
        let is_part = |&pfn: &Pfn| mem.flags(pfn).intersection(LARGE_ANON) == FrameFlags::LARGE;
        let found = self.with_leaf_of(cx, at, |leaf| {
            let pfn = leaf.get(at).counted().filter(is_part)?;
            (!is_whole(leaf, range, at, pfn.head())).then_some(pfn)
        });
        found?
    }
    /// Head of the huge private page that `at` maps a part of; `None` if the whole page is mapped
    /// in a row inside `range`, so that it need not be split.
    pub(super) fn own_part(&self, cx: &mut RmapCx<'_>, range: VpnRange, at: Vpn) -> Option<Pfn> {
        let mem = self.machine().mem();
        let large = |pfn: &Pfn| mem.flags(*pfn).contains(LARGE_ANON);
        let found = self.with_leaf_of(cx, at, |leaf| {
            let head = leaf.get(at).counted().filter(large)?.head();
            (!is_whole(leaf, range, at, head)).then_some(head)
        });
        found?
    }
}

/// Returns true if all of the huge page is mapped in the block of `at`, in a row, and the block
/// lies in `range`.
fn is_whole(leaf: &LockedLeaf<'_>, range: VpnRange, at: Vpn, head: Pfn) -> bool {
    let block = VpnRange::block_of(at);
    let is_nth = |(i, page): (u32, Vpn)| leaf.get(page).counted() == Some(head.nth(i));
    range.covers(block) && (0..HUGE).zip(block.iter()).all(is_nth)
}
