//! The first step of a migration: the selected pages of a range become marks
//! (`migrate_vma_collect`).

use super::{
    Choice, Selection, Stays,
    migration::{Migration, Moving},
};
use crate::mm::{
    entry::pte::RawPte,
    vma::Vma,
    window::{AsOne, InvalidationWindow, Lease, PteTxn, leave},
};
use crate::{
    addr::{Pfn, Vpn, VpnRange},
    ctx::Sleepable,
    frame::{FrameFlags, FrameLock, PhysMem},
};

/// The pages of a range that do not move, or not yet.
#[derive(Debug, Default)]
pub(in crate::mm) struct Collected {
    /// Holes, and zero pages: a new page may come there.
    pub(in crate::mm) holes: Vec<Vpn>,
    /// Pages that stay.
    pub(in crate::mm) stay: Vec<(Vpn, Stays)>,
}

impl<'a> Migration<'a> {
    /// Takes the selected pages of `range`, a part of `vma`, out of the page table, in one window.
    /// `locked`: a page among them that the caller has locked.
    ///
    /// The owner may keep translations of pages of its own memory, unless those are selected.
    pub(in crate::mm) fn collect(
        &mut self,
        vma: &Vma,
        range: VpnRange,
        select: &Selection,
        locked: Option<FrameLock<'a>>,
    ) -> Collected {
        let (mm, mem) = (self.mm, self.mm.machine().mem());
        let mut locked = locked;
        let mut out = Collected::default();
        let mut seen = range.start();
        let cx = self.cx.reborrow();
        let pages = &mut self.pages;
        let mut window = Lease { mm, cx }.into_window(range, select.reason());
        if select.system {
            window.split_for_device(range);
        }
        window.for_each_leaf_in(range, |txn| {
            let part = txn.range();
            out.hole(seen, part.start(), (mem, vma), select);
            seen = part.end();
            for at in part.iter() {
                match select.choose(mem, vma, txn.leaf().get(at)) {
                    Choice::Hole => out.holes.push(at),
                    Choice::Stays(why) => out.stay.push((at, why)),
                    Choice::Moves(pfn) => match take(mem, txn, vma, (at, pfn), &mut locked) {
                        Ok(old) => pages.push(Moving::new(mem, at, old)),
                        Err(why) => out.stay.push((at, why)),
                    },
                }
            }
        });
        out.hole(seen, range.end(), (mem, vma), select);
        window.close();
        out
    }
}

impl Collected {
    /// Notes pages that have no table.
    fn hole(&mut self, from: Vpn, to: Vpn, (mem, vma): (&PhysMem, &Vma), select: &Selection) {
        let pages = VpnRange::new(from, to);
        for at in pages.into_iter().flat_map(VpnRange::iter) {
            match select.choose(mem, vma, RawPte::NONE) {
                Choice::Stays(why) => self.stay.push((at, why)),
                _ => self.holes.push(at),
            }
        }
    }
}

/// Locks a page without waiting, and leaves a mark in its place.
fn take<'a>(
    mem: &'a PhysMem,
    txn: &mut PteTxn<'_>,
    vma: &Vma,
    (at, pfn): (Vpn, Pfn),
    locked: &mut Option<FrameLock<'a>>,
) -> Result<FrameLock<'a>, Stays> {
    let old = match locked.take_if(|locked| locked.pfn() == pfn) {
        Some(locked) => locked,
        None => mem.try_lock(mem.get(pfn)).map_err(|_| Stays::Locked)?,
    };
    // Drivers that have the frame exported must be notified: the step after this one does it.
    if mem.flags(pfn).contains(FrameFlags::EXPORTED) {
        return Ok(old);
    }
    let slot = txn.slot(at).ok_or(Stays::Changed)?;
    leave(slot, pfn, vma.flags, AsOne::No).map_err(|_| Stays::InUse)?;
    Ok(old)
}

impl InvalidationWindow<'_, Sleepable> {
    /// Splits the large pages of private memory in `range` for good, and the huge zero page into
    /// small entries, in windows inside of this one. One that is held stays huge.
    fn split_for_device(&mut self, range: VpnRange) {
        let mm = self.mm();
        let mem = mm.machine().mem();
        let (mut zeros, mut pages) = (Vec::new(), Vec::new());
        self.for_each_leaf_in(range, |txn| {
            let first = txn.range().start();
            if txn.leaf().is_huge() && txn.leaf().get(first).is_zero_page() {
                zeros.push(first);
            }
            for at in txn.range().iter() {
                if let Some(pfn) = txn.leaf().get(at).counted()
                    && let Some(page) = mem.private_large(pfn)
                    && pages.last().is_none_or(|&(last, _)| last != page)
                {
                    pages.push((page, pfn));
                }
            }
        });
        for at in zeros {
            self.split_pmd(at);
        }
        for (_, part) in pages {
            mm.split_own(self.cx().walk_inside(), part);
        }
    }
}
