//! Splitting a large page for good, wherever it is mapped (`split_folio`).
//!
//! The reverse map leads to every VMA that might map a part. Each VMA sees a window until all
//! mappings are found, even where only one process maps the page.

use super::ownership::{LARGE_ANON, LARGE_OBJECT, is_part};
use crate::mm::{entry::flags::VmFlags, page_table::zero_unused, space::Mm, window::Lease};
use crate::{
    addr::{Pfn, VpnRange},
    ctx::{FaultCx, rank},
    frame::Large,
    notifier::Event,
    rmap::{MappedAt, RmapCx, split_object_folio},
};

impl Mm {
    /// Splits the large pages of private memory that lie only partly in `range`, if this process
    /// alone maps them. Returns those that are held, and so stay whole.
    pub(in crate::mm) fn split_own_parts(&self, mut cx: RmapCx<'_>, range: VpnRange) -> Vec<Large> {
        let mem = self.machine().mem();
        let mut whole = Vec::new();
        self.for_each_cut(&mut cx, range, LARGE_ANON, |cx, part| {
            let Some(page) = mem.large(part).filter(|page| !whole.contains(page)) else {
                return;
            };
            if self.has_alone(cx, part) && !self.split_own(cx.reborrow(), part) {
                whole.push(page);
            }
        });
        whole
    }
    /// Splits the huge pages and folios of objects that lie only partly in `range`, if this process
    /// alone maps them: an advice for a part of a page must not reach the rest
    /// (`madvise_cold_or_pageout_pte_range`). Their pages are no longer mapped then. Returns the
    /// frames of folios that the advice passes by.
    pub(in crate::mm) fn split_object_parts(
        &self,
        cx: &mut FaultCx<'_>,
        range: VpnRange,
    ) -> Vec<Pfn> {
        let machine = self.machine();
        let mem = machine.mem();
        self.for_each_cut(cx, range, LARGE_OBJECT, |cx, part| {
            let Some(Ok(locked)) = mem.try_get(part).map(|part| mem.try_lock(part)) else {
                return;
            };
            let mut cx = cx.descend::<rank::Folio, _>();
            if self.has_alone(&mut cx.descend(), part) {
                split_object_folio(machine.registry(), mem, &mut cx, &locked);
            }
        });
        self.split_folio_parts(cx, range)
    }
    /// Splits the private large page that frame `pfn` is part of, if it still is. Pages of it that
    /// hold only zeros are given back. Returns false, and opens no window, if the page is held by
    /// more than its mappings.
    pub(in crate::mm) fn split_own(&self, cx: RmapCx<'_>, pfn: Pfn) -> bool {
        let mem = self.machine().mem();
        // Until the split is complete: it clears the marks of these frames, which could be another
        // large page by then.
        let Some(part) = mem.try_get(pfn) else {
            return true;
        };
        if !mem.flags(pfn).contains(LARGE_ANON) {
            return true;
        }
        if mem.is_large_held(&part) {
            return false;
        }
        if let Some(page) = mem.large(pfn)
            && let Some((node, pages)) = self.node_of(page, pfn)
        {
            node.split_large(mem, cx, page, pages);
        }
        true
    }
    /// Splits the mappings of the large page in one VMA, in a window over `part`, and returns how
    /// many entries there still map the page. The mappings of an object's page are dropped. Memory
    /// that is locked keeps its frames, whatever they hold (`try_to_map_unused_to_zeropage`).
    pub(in crate::mm) fn split_large_at(
        &self,
        cx: RmapCx<'_>,
        spot: &MappedAt<'_>,
        part: VpnRange,
        page: Large,
    ) -> u64 {
        let mem = self.machine().mem();
        let is_locked = VmFlags::from_bits_retain(spot.flags).contains(VmFlags::LOCKED)
            || mem.is_locked_whole(page);
        // The first frame may have left a private large page and be in other use by now, but not as
        // part of a huge page. So a part that is not private belongs to an object.
        if mem.flags(page.head()).intersection(LARGE_ANON) == LARGE_OBJECT {
            self.drop_parts(cx, part, page.head());
            return 0;
        }
        let mut window = Lease { mm: self, cx }.into_window(part, Event::Clear);
        window.split_edges(part);
        window.split_huge(part.start());
        let mut found = 0;
        window.for_each_leaf_in(part, |txn| {
            let range = txn.range();
            for at in range {
                let (leaf, flusher) = txn.parts();
                if is_part(mem, leaf, at, page) {
                    let flush = || flusher.into_flushed(true, at.into());
                    found += u64::from(is_locked || !zero_unused(mem, leaf, at, flush));
                }
            }
        });
        window.close();
        found
    }
}
