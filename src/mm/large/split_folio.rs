//! Part of a huge page is given up: the page is split for good, wherever it is mapped (`split_folio`).
//!
//! Only pages of a single process come here, but the reverse map leads to every VMA that might have it, and each sees a
//! window until all mappings are found.

use crate::mm::{fault::huge::zero_unused, guard::Lease, page_table::LockedLeaf, space::Mm};
use crate::{
    addr::{Pfn, Vpn, VpnRange},
    ctx::{Context, Cx, Rank},
    frame::{FrameFlags, HUGE, PhysMem},
    notifier::Event,
    rmap::{AnonVma, OwnerRef, RmapCx, split_huge},
};
use std::sync::Arc;

/// Whether the entry is a page of the huge page that begins with `head`.
fn is_part(mem: &PhysMem, leaf: &LockedLeaf<'_>, at: Vpn, head: Pfn) -> bool {
    let part = |pfn: Pfn| pfn.head() == head && mem.flags(pfn).contains(FrameFlags::LARGE);
    leaf.get(at).counted().is_some_and(part)
}

const LARGE_ANON: FrameFlags = FrameFlags::LARGE.union(FrameFlags::ANON);

impl Mm {
    /// The node of private memory that a huge page belongs to, and its page offsets there.
    fn node_of(&self, head: Pfn) -> Option<(Arc<AnonVma>, (u64, u64))> {
        let machine = self.machine();
        let owner = machine.mem().owner(head)?;
        match machine.registry().find(owner.id)? {
            OwnerRef::Anon(node) => Some((
                node.upgrade()?,
                (owner.index, owner.index + u64::from(HUGE)),
            )),
            OwnerRef::Mapping(_) => None,
        }
    }
    /// Whether this process alone maps parts of a huge page of private memory (`!folio_maybe_mapped_shared`).
    pub(in crate::mm) fn has_alone(&self, cx: &mut RmapCx<'_>, head: Pfn) -> bool {
        let mem = self.machine().mem();
        let Some((node, pages)) = self.node_of(head) else {
            return false;
        };
        let mut own = 0;
        node.walk_range(cx.reborrow(), pages, |cx, spot, part| {
            if std::ptr::addr_eq(Arc::as_ptr(spot.space), std::ptr::from_ref(self)) {
                own += self.parts_in(cx, part, head);
            }
            true
        });
        own > 0 && own == mem.huge_mappings(head)
    }
    fn parts_in(&self, mut cx: RmapCx<'_>, range: VpnRange, head: Pfn) -> u64 {
        let mem = self.machine().mem();
        let pinned = cx.pin();
        let mut found = 0;
        self.table
            .leaves(range, self.table.pin(pinned.guard()), |part, leaf| {
                let Some(leaf) = leaf.lock() else {
                    return Ok(());
                };
                found += part
                    .iter()
                    .filter(|&at| is_part(mem, &leaf, at, head))
                    .count() as u64;
                Ok::<(), std::convert::Infallible>(())
            })
            .unwrap_or_else(|e| match e {});
        found
    }
    /// The pages of `range` that are of huge pages, each of which [`own_part`](Self::own_part) may be asked about.
    pub(in crate::mm) fn large_in<R: Rank, C: Context>(
        &self,
        cx: &mut Cx<'_, R, C>,
        range: VpnRange,
    ) -> Vec<Vpn> {
        let mem = self.machine().mem();
        let is_large = |pfn| mem.flags(pfn).contains(LARGE_ANON);
        let mut found = Vec::new();
        let pinned = cx.pin();
        self.table
            .leaves(range, self.table.pin(pinned.guard()), |part, leaf| {
                leaf.peek_each(part, |at, pte| {
                    found.extend(pte.counted().filter(|&pfn| is_large(pfn)).map(|_| at));
                });
                Ok::<(), std::convert::Infallible>(())
            })
            .unwrap_or_else(|e| match e {});
        found
    }
    /// The huge page that has `at` inside and is only partly in `range`, if it is this process's own.
    pub(in crate::mm) fn own_part<R: Rank, C: Context>(
        &self,
        cx: &mut Cx<'_, R, C>,
        range: VpnRange,
        at: Vpn,
    ) -> Option<Pfn> {
        let mem = self.machine().mem();
        let large = |pfn: &Pfn| mem.flags(*pfn).contains(LARGE_ANON);
        let found = self.with_leaf_of(cx, at, |leaf| {
            let head = leaf.get(at).counted().filter(large)?.head();
            let block = crate::mm::fault::huge::block(at);
            // All of it, in a row: nothing has to be split.
            let whole = range.covers(block)
                && (0..HUGE)
                    .zip(block.iter())
                    .all(|(i, page)| leaf.get(page).counted() == Some(head.nth(i)));
            (!whole).then_some(head)
        });
        found?
    }
    /// Splits a huge page; pages of it that hold only zeros are given back.
    pub(in crate::mm) fn split_own(&self, cx: RmapCx<'_>, head: Pfn) {
        let mem = self.machine().mem();
        let Some((node, pages)) = self.node_of(head) else {
            return;
        };
        split_huge(&node, mem, cx, (head, pages));
    }
    /// One VMA on the way; returns how many entries of it map the page still.
    pub(in crate::mm) fn split_folio_at(&self, cx: RmapCx<'_>, part: VpnRange, head: Pfn) -> u64 {
        let mem = self.machine().mem();
        // The first frame of private memory may have left it, and be anything by now but part of another.
        if mem.flags(head).intersection(LARGE_ANON) == FrameFlags::LARGE {
            self.drop_parts(cx, part, head);
            return 0;
        }
        let mut window = Lease { mm: self, cx }.into_window(part, Event::Clear);
        window.split_edges(part);
        window.split_huge(part.start());
        let mut found = 0;
        window
            .leaves_in(part, |txn| {
                let range = txn.range();
                let leaf = txn.leaf();
                for at in range.iter().filter(|&at| is_part(mem, leaf, at, head)) {
                    found += u64::from(!zero_unused(mem, leaf, at));
                }
                Ok::<(), std::convert::Infallible>(())
            })
            .unwrap_or_else(|e| match e {});
        window.close();
        found
    }
}
