//! The requests of reverse maps: unmap a range or a page, make a page read-only, find whether it
//! was used.
//!
//! Each opens its window under the lock of the reverse map; the mmap lock is not held. So each
//! checks the entry again, in the window.

use crate::mm::{
    entry::{flags::VmFlags, pte::RawPte, release::RemovedPte},
    space::Mm,
    vma::hugetlb::{OWNER, STOLEN, with_shared_tables},
    window::{Lease, Marks, PteSlot, Zap},
};
use crate::{
    addr::{Pfn, Vpn, VpnRange},
    error::NoMemory,
    frame::Large,
    notifier::{AgeKind, Event},
    rmap::{Blocking, EvenCows, MappedAt, RmapCx, RmapTarget, Unmap, UnmapRefused, Young},
};

/// Mappings whose accesses do not predict further accesses (`vma_has_recency`).
pub(super) const NO_RECENCY: VmFlags = VmFlags::SEQ_READ.union(VmFlags::RAND_READ);

impl RmapTarget for Mm {
    fn unmap_range(&self, cx: RmapCx<'_>, spot: &MappedAt<'_>, range: VpnRange, cows: EvenCows) {
        let flags = VmFlags::from_bits_retain(spot.flags);
        let wide = with_shared_tables(spot.vma, flags, range);
        let mut window = Lease { mm: self, cx }.into_window(wide, Event::Clear);
        if flags.contains(VmFlags::HUGETLB) {
            // Private copies go in any case; when the file was cut, markers go too
            // (`ZAP_FLAG_DROP_MARKER`).
            let what = match cows {
                EvenCows::Yes => Zap::Mapping,
                EvenCows::No => Zap::Pages(Marks::of(false, flags)),
            };
            window.zap_hugetlb(range, what, flags.contains(OWNER));
            return window.close();
        }
        let marks = Marks::of(false, flags);
        window.zap(
            range,
            match cows {
                EvenCows::Yes => Zap::Pages(marks),
                EvenCows::No => Zap::ObjectPages(marks),
            },
        );
        window.close();
    }
    fn steal(&self, cx: RmapCx<'_>, spot: &MappedAt<'_>, part: VpnRange, head: Pfn) {
        let flags = VmFlags::from_bits_retain(spot.flags);
        if flags.intersects(VmFlags::MAYSHARE | OWNER) {
            return;
        }
        let mut window = Lease { mm: self, cx }.into_window(part, Event::Clear);
        let there = window.lock_ptes(part.start(), |txn| {
            txn.leaf().get(part.start()).counted() == Some(head)
        });
        if there == Some(true) {
            let marks = Marks::of(false, VmFlags::from_bits_retain(spot.flags));
            window.zap_hugetlb(part, Zap::Pages(marks), false);
            spot.mark(STOLEN.bits());
        }
        window.close();
    }
    fn mapped_at(&self, mut cx: RmapCx<'_>, vma: VpnRange, pfn: Pfn) -> Vec<Vpn> {
        let mut out = Vec::new();
        self.for_each_entry(&mut cx, vma, |at, pte| {
            out.extend((pte.counted_or_migrating() == Some(pfn)).then_some(at));
        });
        out
    }
    fn unmap_nonlinear(&self, cx: RmapCx<'_>, vma: VpnRange, from: u64, to: u64) {
        let mut window = Lease { mm: self, cx }.into_window(vma, Event::Clear);
        window.forget_pages(vma, from, to);
        window.close();
    }
    fn unmap_frame(&self, mut cx: RmapCx<'_>, spot: &MappedAt<'_>, pfn: Pfn) {
        if !self.has_frame(&mut cx, spot, pfn) {
            return;
        }
        if self.is_huge(&mut cx, spot.at) {
            // All pages of a huge page go together.
            return Lease { mm: self, cx }.drop_huge(spot.at, pfn);
        }
        self.at_frame(cx, spot, pfn, Event::Clear, |slot| {
            RemovedPte::give_up_locked(slot.clear());
        });
    }
    fn mappings(&self, mut cx: RmapCx<'_>, part: VpnRange, is_part: &dyn Fn(Pfn) -> bool) -> u64 {
        let mut found = 0;
        self.for_each_entry(&mut cx, part, |_, pte| {
            found += u64::from(pte.counted().is_some_and(is_part));
        });
        found
    }
    fn mapped_in(&self, mut cx: RmapCx<'_>, part: VpnRange, grain: u64) -> Vec<Vpn> {
        let mut out = Vec::new();
        self.for_each_entry(&mut cx, part, |at, pte| {
            out.extend((at.is_aligned(grain) && pte.counted().is_some()).then_some(at));
        });
        out
    }
    fn enter_huge(&self, cx: RmapCx<'_>, page: VpnRange, first: u64) -> Result<(), NoMemory> {
        self.enter_huge_at(cx, page, RawPte(first))
    }
    fn split_large(&self, cx: RmapCx<'_>, spot: &MappedAt<'_>, part: VpnRange, page: Large) -> u64 {
        self.split_large_at(cx, spot, part, page)
    }
    fn retract(&self, cx: RmapCx<'_>, spot: &MappedAt<'_>, head: Pfn) {
        self.retract_at(cx, spot, head);
    }
    fn try_to_unmap(
        &self,
        cx: RmapCx<'_>,
        spot: &MappedAt<'_>,
        pfn: Pfn,
        how: Unmap,
        blocking: Blocking,
    ) -> Result<(), UnmapRefused> {
        self.try_to_unmap_at(cx, spot, pfn, how, blocking)
    }
    fn restore(&self, cx: RmapCx<'_>, spot: &MappedAt<'_>, old: Pfn, new: Pfn) {
        self.restore_at(cx, spot, old, new);
    }
    fn leave_large(&self, cx: RmapCx<'_>, spot: &MappedAt<'_>, part: VpnRange, page: Large) {
        self.leave_large_at(cx, spot, part, page);
    }
    fn restore_large(
        &self,
        cx: RmapCx<'_>,
        spot: &MappedAt<'_>,
        part: VpnRange,
        (old, new): (Large, Pfn),
    ) {
        self.restore_large_at(cx, spot, part, (old, new));
    }
    fn referenced(&self, mut cx: RmapCx<'_>, spot: &MappedAt<'_>, pfn: Pfn) -> Option<Young> {
        if !self.has_frame(&mut cx, spot, pfn) {
            return None;
        }
        let flags = VmFlags::from_bits_retain(spot.flags);
        if flags.contains(VmFlags::LOCKED) {
            return Some(Young::Locked);
        }
        let range = VpnRange::single(spot.at);
        let kind = AgeKind::ClearFlush;
        let young = self.age_range(&mut cx, range, kind) && !flags.intersects(NO_RECENCY);
        Some(if young { Young::Yes } else { Young::No })
    }
    fn referenced_large(
        &self,
        cx: RmapCx<'_>,
        spot: &MappedAt<'_>,
        part: VpnRange,
        page: Large,
    ) -> (u64, Young) {
        self.referenced_large_at(cx, spot, part, page)
    }
    fn discard_large(
        &self,
        cx: RmapCx<'_>,
        spot: &MappedAt<'_>,
        part: VpnRange,
        of: (Large, Pfn),
    ) -> Result<(), UnmapRefused> {
        self.discard_large_at(cx, spot, part, of)
    }
    fn write_protect(&self, cx: RmapCx<'_>, spot: &MappedAt<'_>, pfn: Pfn) -> bool {
        if !VmFlags::from_bits_retain(spot.flags).contains(VmFlags::SHARED) {
            return false;
        }
        // The window opens whether or not the page is mapped, as on Linux.
        let mut was = false;
        self.at_frame(cx, spot, pfn, Event::ProtectionPage, |slot| {
            was = slot.raw().may_write() || slot.raw().is_dirty();
            slot.write_protect_clean();
        });
        was
    }
}

impl Mm {
    /// Returns true if the entry at the spot maps the frame: a hint, read without a lock.
    fn has_frame(&self, cx: &mut RmapCx<'_>, spot: &MappedAt<'_>, pfn: Pfn) -> bool {
        let view = self.table.view(cx);
        view.leaf(spot.at)
            .is_some_and(|leaf| leaf.peek(spot.at).mapped() == Some(pfn))
    }
    /// Opens a window over the spot's page, and runs `f` on its entry if that maps the frame.
    fn at_frame(
        &self,
        cx: RmapCx<'_>,
        spot: &MappedAt<'_>,
        pfn: Pfn,
        event: Event,
        f: impl FnOnce(PteSlot<'_>),
    ) {
        let mut window = Lease { mm: self, cx }.into_window(VpnRange::single(spot.at), event);
        window.lock_ptes(spot.at, |txn| {
            if let Some(slot) = txn.entry(spot.at)
                && slot.raw().counted() == Some(pfn)
            {
                f(slot);
            }
        });
        window.close();
    }
}
