//! Folios of objects that an advice reaches as a whole, or not at all.

use super::ownership::LARGE_ANON;
use crate::mm::{entry::pte::RawPte, space::Mm};
use crate::{
    addr::{Pfn, Vpn, VpnRange},
    ctx::{FaultCx, rank},
    frame::FrameFlags,
    rmap::{Folio, FrameOwner, RmapCx, split_object_folio},
};
use std::sync::Arc;

impl Mm {
    /// Splits the folios of objects that are not mapped as a whole, in a row in `range`, if this
    /// process alone maps them. Returns the frames of all others of which a page is mapped
    /// elsewhere too.
    pub(super) fn split_folio_parts(&self, cx: &mut FaultCx<'_>, range: VpnRange) -> Vec<Pfn> {
        let mem = self.machine().mem();
        let shared = |pfn: &Pfn| {
            let kinds = LARGE_ANON | FrameFlags::SWAP_BACKED;
            mem.flags(*pfn).intersection(kinds) == FrameFlags::SWAP_BACKED
        };
        let mut entries = Vec::new();
        self.for_each_entry(cx, range, |at, pte: RawPte| {
            entries.extend(pte.counted().filter(shared).map(|pfn| (at, pfn)));
        });
        let mut passed_by = Vec::new();
        let mut rest = entries.as_slice();
        while let Some(&(_, pfn)) = rest.first() {
            let mut pages = 1;
            if let Some((node, folio, nth)) = self.folio_of(pfn) {
                let row = row(rest, &folio.frames[nth..]);
                if row == folio.frames.len() {
                    pages = row;
                    if folio.mappings(mem) != row as u64 {
                        passed_by.extend(&folio.frames);
                    }
                } else if !self.split_alone(cx, (&node, &folio), pfn) {
                    passed_by.push(pfn);
                }
            }
            rest = &rest[pages..];
        }
        passed_by
    }
    /// Returns the folio that the frame is in, with its owner and the frame's place in it.
    fn folio_of(&self, pfn: Pfn) -> Option<(Arc<dyn FrameOwner>, Folio, usize)> {
        let machine = self.machine();
        let owner = machine.mem().owner(pfn)?;
        let node = machine.registry().find(owner.id)?;
        let folio = node.folio(owner.index)?;
        let nth = folio.frames.iter().position(|&part| part == pfn)?;
        Some((node, folio, nth))
    }
    /// Splits the folio of a frame if this process alone maps it; returns true if it did.
    fn split_alone(
        &self,
        cx: &mut FaultCx<'_>,
        (node, folio): (&Arc<dyn FrameOwner>, &Folio),
        pfn: Pfn,
    ) -> bool {
        let machine = self.machine();
        let mem = machine.mem();
        let Some(Ok(locked)) = mem.try_get(pfn).map(|frame| mem.try_lock(frame)) else {
            return false;
        };
        let mut cx = cx.descend::<rank::Folio, _>();
        let own = self.own_mappings(&mut cx.descend(), node, folio);
        own == folio.mappings(mem)
            && (own == 1 || !self.is_uncounted(folio.frames[0]))
            && split_object_folio(machine.registry(), mem, &mut cx, &locked)
    }
    /// Counts the entries of this process that map pages of the folio.
    fn own_mappings(&self, cx: &mut RmapCx<'_>, node: &Arc<dyn FrameOwner>, folio: &Folio) -> u64 {
        let mut own = 0;
        node.walk_huge(cx.reborrow(), folio.pages(), &mut |mut cx, spot, part| {
            if std::ptr::addr_eq(Arc::as_ptr(spot.space), std::ptr::from_ref(self)) {
                self.for_each_entry(&mut cx, part, |_, pte| {
                    let is_part = pte.counted().is_some_and(|pfn| folio.frames.contains(&pfn));
                    own += u64::from(is_part);
                });
            }
            true
        });
        own
    }
}

/// Returns how many of the entries, from the first one on, map these frames in a row.
fn row(entries: &[(Vpn, Pfn)], frames: &[Pfn]) -> usize {
    let first = entries[0].0;
    let pairs = (0..).zip(entries).zip(frames);
    pairs
        .take_while(|((n, (at, pfn)), frame)| *at == first.plus(*n) && pfn == *frame)
        .count()
}
