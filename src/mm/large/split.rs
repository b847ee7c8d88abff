//! Splitting a huge page of private memory for good, wherever it is mapped (`split_folio`).
//!
//! The reverse map leads to every VMA that might map a part. Each VMA sees a window until all
//! mappings are found, even where only one process maps the page.

use super::ownership::is_part;
use crate::mm::{guard::Lease, page_table::zero_unused, space::Mm};
use crate::{
    addr::{Pfn, VpnRange},
    notifier::Event,
    rmap::RmapCx,
};

impl Mm {
    /// Splits the huge page that begins with `head`. Pages of it that hold only zeros are given
    /// back.
    pub(in crate::mm) fn split_own(&self, cx: RmapCx<'_>, head: Pfn) {
        let mem = self.machine().mem();
        let Some((node, pages)) = self.node_of(head) else {
            return;
        };
        node.split_huge(mem, cx, head, pages);
    }
    /// Splits the mappings of the huge page in one VMA, in a window over `part`, and returns how
    /// many entries there still map the page.
    pub(in crate::mm) fn split_folio_at(&self, cx: RmapCx<'_>, part: VpnRange, head: Pfn) -> u64 {
        let mem = self.machine().mem();
        let mut window = Lease { mm: self, cx }.into_window(part, Event::Clear);
        window.split_edges(part);
        window.split_huge(part.start());
        let mut found = 0;
        window.for_each_leaf_in(part, |txn| {
            let range = txn.range();
            let leaf = txn.leaf();
            for at in range.iter().filter(|&at| is_part(mem, leaf, at, head)) {
                found += u64::from(!zero_unused(mem, leaf, at));
            }
        });
        window.close();
        found
    }
}
