//! Which address spaces map a huge page or a folio, for those that the kernel does not count
//! (`machine/large_mappers.rs`).

use crate::mm::{
    machine::{Mapped, SpaceAt, number_of},
    space::Mm,
};
use crate::{
    addr::{Pfn, VpnRange},
    frame::Large,
    rmap::{Folio, FrameOwner, RmapCx},
};
use std::sync::Arc;

impl Mm {
    /// Notes that this address space has `new` more mappings of the huge page or folio that frame
    /// `pfn` is part of, if it is part of one.
    pub(in crate::mm) fn note_mapped(&self, cx: &mut RmapCx<'_>, pfn: Pfn, new: u64) {
        let Some((node, folio)) = self.large_of(pfn) else {
            return;
        };
        let machine = self.machine();
        let Some(&first) = folio.frames.first() else {
            return;
        };
        let all = mappers(cx, &node, &folio, machine.mem().large(pfn));
        let space = self.number();
        let all = &*all;
        machine.mappers.note(
            machine.mem(),
            &Mapped {
                first,
                space,
                new,
                all,
            },
        );
    }
    /// Notes the mappings of huge pages in `range`, which a fork has made.
    pub(in crate::mm) fn note_copied(&self, cx: &mut RmapCx<'_>, range: VpnRange) {
        let mem = self.machine().mem();
        if !mem.has_large() {
            return;
        }
        let mut pages: Vec<(Large, Pfn, u64)> = Vec::new();
        self.for_each_entry(cx, range, |_, pte| {
            let Some((page, pfn)) = pte.counted().and_then(|pfn| Some((mem.large(pfn)?, pfn)))
            else {
                return;
            };
            match pages.last_mut() {
                Some((last, _, count)) if *last == page => *count += 1,
                _ => pages.push((page, pfn, 1)),
            }
        });
        for (page, pfn, new) in pages {
            // With one mapping elsewhere for each of these, two address spaces have it at most.
            if mem.large_mappings(page) > 2 * new && !mem.is_of_pool(pfn) {
                self.note_mapped(cx, pfn, new);
            }
        }
    }
    /// Returns true if the kernel does not count all mappings of the huge page or folio that begins
    /// with frame `first` by this address space, so that it seems to be shared.
    pub(in crate::mm) fn is_uncounted(&self, first: Pfn) -> bool {
        let machine = self.machine();
        machine
            .mappers
            .is_uncounted(machine.mem(), first, self.number())
    }
    /// Returns the number of this address space, which no other has while it lives.
    pub(in crate::mm) fn number(&self) -> SpaceAt {
        std::ptr::from_ref(self).addr()
    }
    /// Returns the huge page or folio that the frame is part of, with its owner.
    fn large_of(&self, pfn: Pfn) -> Option<(Arc<dyn FrameOwner>, Folio)> {
        let machine = self.machine();
        let mem = machine.mem();
        let owner = mem.owner(pfn)?;
        let node = machine.registry().find(owner.id)?;
        let Some(page) = mem.large(pfn) else {
            let folio = node.folio(owner.index)?;
            return Some((node, folio));
        };
        let (first, _) = page.pages(pfn, owner.index)?;
        let frames = page.all().collect();
        Some((node, Folio { first, frames }))
    }
}

/// Returns how many mappings of a folio each address space has.
fn mappers(
    cx: &mut RmapCx<'_>,
    node: &Arc<dyn FrameOwner>,
    folio: &Folio,
    page: Option<Large>,
) -> Vec<(SpaceAt, u64)> {
    let is_part = |of: Pfn| match page {
        Some(page) => page.contains(of),
        None => folio.frames.contains(&of),
    };
    let mut all: Vec<(SpaceAt, u64)> = Vec::new();
    node.walk_huge(cx.reborrow(), folio.pages(), &mut |cx, spot, part| {
        let space = number_of(spot.space);
        let mappings = spot.space.mappings(cx, part, &is_part);
        match all.iter_mut().find(|(at, _)| *at == space) {
            Some((_, sum)) => *sum += mappings,
            None => all.push((space, mappings)),
        }
        true
    });
    all
}
