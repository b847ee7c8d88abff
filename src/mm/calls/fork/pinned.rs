//! Pages that a fork copies at once, because they are pinned (`folio_needs_cow_for_dma`).
//!
//! If the child shared the page, the parent's next write would copy it, and the holder of the pin
//! would keep a page that the parent no longer has.

use crate::mm::{
    entry::pte::RawPte,
    fault::hugetlb::NEW,
    page_table::{LockedLeaf, fill_part},
    vma::Vma,
    window::InvalidationWindow,
};
use crate::{
    addr::{Pfn, Vpn, VpnRange},
    ctx::Sleepable,
    error::NoMemory,
    frame::{Claim, FrameFlags, HUGE, PhysMem, PoolPage},
};
use std::collections::BTreeMap;

/// New huge pages of a pool for the child, by the place of the pages that they are copies of.
pub(super) type PoolCopies = BTreeMap<Vpn, PoolPage>;

/// Returns true if the child must get a copy of this page: it is pinned, and the process's own. A
/// pinned page that other processes have as well was pinned by one of them.
pub(super) fn must_copy(mem: &PhysMem, pfn: Pfn) -> bool {
    let own = FrameFlags::ANON | FrameFlags::ANON_EXCLUSIVE;
    mem.flags(pfn).contains(own) && mem.is_pinned(pfn)
}

/// Makes the child's own page from the parent's, and returns the entry for it.
pub(super) fn copy_page(mem: &PhysMem, to: &Vma, pfn: Pfn) -> Result<RawPte, NoMemory> {
    let node = to.anon_node().expect("its parent has pages of its own");
    let owner = mem.owner(pfn).map(|from| node.owner(from.index));
    let copy = mem.alloc_as(to.new_anon(), owner);
    let copy = copy.map_err(|_| NoMemory::Frame)?;
    mem.copy(pfn, copy.pfn());
    let copy = copy.into_raw();
    mem.map_inc(copy);
    mem.lru_add(copy);
    Ok(RawPte::frame(copy, to.rights()).mkdirty())
}

impl InvalidationWindow<'_, Sleepable> {
    /// Splits the mapping of each huge page that must be copied, in a nested window: the child gets
    /// small pages.
    pub(super) fn split_pinned(&mut self, range: VpnRange) {
        let mut huge = Vec::new();
        self.for_each_leaf_in(range, |txn| {
            let first = txn.leaf().get(txn.range().start());
            let pinned = first.counted().is_some_and(|pfn| must_copy(txn.mem(), pfn));
            huge.extend((txn.leaf().is_huge() && pinned).then(|| txn.range().start()));
        });
        for at in huge {
            self.split_pmd(at);
        }
    }
    /// Copies each huge page of a pool that must be copied. The child has no reservation for it
    /// (`copy_hugetlb_page_range`).
    pub(super) fn copy_pooled(&mut self, vma: &Vma, child: &Vma) -> Result<PoolCopies, NoMemory> {
        let mut copies = PoolCopies::new();
        let file = vma.hugetlb().expect("the caller has such a VMA");
        let node = child.anon_node().expect("its parent has pages of its own");
        let mut pinned = Vec::new();
        self.for_each_leaf_in(vma.range(), |txn| {
            let at = txn.range().start();
            let own = txn.leaf().get(at).counted();
            pinned.extend(own.filter(|&pfn| must_copy(txn.mem(), pfn)).map(|_| at));
        });
        for at in pinned {
            let page = vma.huge_page_of(at);
            if copies.contains_key(&page.start()) {
                continue;
            }
            let new = file.take(Claim::None).map_err(|_| NoMemory::Frame)?;
            new.own(NEW, node.owner(vma.pgoff_at(page.start())));
            let mut is_there = true;
            self.for_each_leaf_in(page, |txn| {
                let part = txn.range();
                for (nth, at) in (part.start().0 - page.start().0..).zip(part.iter()) {
                    let nth = u32::try_from(nth).expect("a page has less frames");
                    // Its pin may have ended: it moves then, or a cut of its file has removed it.
                    let pte = txn.leaf().get(at);
                    match pte.counted().or(pte.migrating()) {
                        Some(from) => txn.mem().copy(from, new.head().nth(nth)),
                        None => is_there = false,
                    }
                }
            });
            if is_there {
                copies.insert(page.start(), new);
            }
        }
        Ok(copies)
    }
}

/// Maps the part of a huge page's copy that belongs in this leaf of the child. `old` is the
/// parent's entry, whose mark of userfaultfd's protection a registered child takes over
/// (`hugetlb_install_folio`). Returns false if the page is not among the copies, or if a cut of the
/// file has removed it from the parent since.
pub(super) fn map_copy(
    mem: &PhysMem,
    (copies, child): (&PoolCopies, &Vma),
    (to, old): (&LockedLeaf<'_>, RawPte),
    part: VpnRange,
) -> bool {
    if copies.is_empty() || old.is_vacant() {
        return false;
    }
    let page = child.huge_page_of(part.start());
    let Some(copy) = copies.get(&page.start()) else {
        return false;
    };
    let nth = u32::try_from(part.start().0 - page.start().0).expect("a page has less frames");
    debug_assert!(nth.is_multiple_of(HUGE), "a leaf is a whole part");
    let mut first = RawPte::frame(copy.head().nth(nth), child.rights()).mkdirty();
    if child.is_uffd_wp() {
        first = first.in_place_of(old);
    }
    fill_part(mem, to, part, first, PhysMem::share);
    true
}
