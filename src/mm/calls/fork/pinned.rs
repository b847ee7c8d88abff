//! Pages that a fork copies at once, because they are pinned (`folio_needs_cow_for_dma`).
//!
//! If the child shared the page, the parent's next write would copy it, and the holder of the pin
//! would keep a page that the parent no longer has.

use crate::mm::{entry::pte::RawPte, vma::Vma, window::InvalidationWindow};
use crate::{
    addr::{Pfn, VpnRange},
    ctx::Sleepable,
    error::NoMemory,
    frame::{FrameFlags, PhysMem},
};

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
}
