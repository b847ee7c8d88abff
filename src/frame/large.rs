//! Large pages: frames in a row that were allocated as one and have not been split since.
//!
//! They are huge pages of 2 MiB, or smaller folios of private memory, from 16 KiB to 1 MiB, which
//! are mapped by small entries. Each frame keeps its own counts, so a large page that is mapped in
//! parts needs no accounts of its own; a question about the whole page asks all of its frames
//! (docs/adr/0006-a-huge-page-is-a-marked-leaf.md).

use super::{
    flags::FrameFlags,
    large_page::Large,
    mem::{Frame, PhysMem},
};
use crate::{addr::Pfn, sync::Ordering};

impl PhysMem {
    /// Notes the size of a large page that is made of free frames.
    pub(super) fn note_large(&self, head: Pfn, frames: u32) -> Large {
        self.folio_orders.note(head, frames, self.capacity());
        Large::new(head, frames)
    }
    /// Returns true if the frame is part of a large page.
    #[inline]
    pub(crate) fn is_large(&self, pfn: Pfn) -> bool {
        self.flags(pfn).contains(FrameFlags::LARGE)
    }
    /// Returns the large page that the frame is part of.
    #[inline]
    pub(crate) fn large(&self, pfn: Pfn) -> Option<Large> {
        self.is_large(pfn).then(|| self.large_around(pfn))
    }
    fn large_around(&self, pfn: Pfn) -> Large {
        match self.folio_orders.frames(pfn) {
            Some(frames) => Large::new(Pfn(pfn.0 & !(frames - 1)), frames),
            None => Large::huge(pfn.head()),
        }
    }
    /// Returns true if the frame is part of a huge page.
    pub(super) fn is_huge_part(&self, pfn: Pfn) -> bool {
        self.is_large(pfn) && self.folio_orders.frames(pfn).is_none()
    }
    /// Returns true if there has ever been a large page, a huge one of a pool apart.
    pub(crate) fn has_large(&self) -> bool {
        self.has_large.load(Ordering::Relaxed)
    }
    /// Returns the frames that are still part of the page; a frame that was given back, and may be
    /// in other use, is left out.
    pub(crate) fn large_parts(&self, page: Large) -> impl Iterator<Item = Pfn> {
        page.all().filter(move |&pfn| self.large(pfn) == Some(page))
    }
    /// Returns true if the large page is a private one of which any frame is left. Its first frame
    /// tells: the others of a new page become private one after the other.
    pub(super) fn is_left(&self, page: Large) -> bool {
        let first = self.parts_left(page).next();
        first.is_some_and(|first| self.flags(first).contains(FrameFlags::ANON))
    }
    /// Returns the frames of a large page that were not given back.
    pub(crate) fn parts_left(&self, page: Large) -> impl Iterator<Item = Pfn> {
        let parts = self.large_parts(page);
        parts.filter(|&pfn| self.refcount(pfn) > 0)
    }
    /// Returns a frame of each large page of private memory of which a part was given back
    /// (`folio_test_partially_mapped`), in the order of the kernel's queue. Pages of a pool are
    /// left out: the rest of one that is pinned waits for the end of the pins.
    pub(crate) fn partly_given_back(&self) -> Vec<Pfn> {
        let pages = self.partly.take(|page| self.is_left(page));
        let partly = pages.into_iter().filter_map(|page| {
            let mut left = self.parts_left(page);
            let first = left.next()?;
            let is_part = left.count() + 1 < page.frames() as usize && !self.is_of_pool(first);
            is_part.then_some((page, first))
        });
        let partly: Vec<_> = partly.collect();
        // One that cannot be split stays in the queue.
        for &(page, _) in &partly {
            self.partly.note(page, |page| self.is_left(page));
        }
        partly.into_iter().map(|(_, first)| first).collect()
    }
    /// Returns the number of entries, of all processes, that map any part of the page.
    pub(crate) fn large_mappings(&self, page: Large) -> u64 {
        let counts = self.large_parts(page).map(|pfn| self.mapcount(pfn));
        counts.map(u64::from).sum()
    }
    /// Returns the number of entries, of all processes, that map any part of a page of which no
    /// frame was given back.
    pub(crate) fn mappings_of_whole(&self, page: Large) -> u64 {
        page.all().map(|pfn| u64::from(self.mapcount(pfn))).sum()
    }
    /// Returns true if all that is left of the page is locked in memory (`folio_test_mlocked`).
    pub(crate) fn is_locked_whole(&self, page: Large) -> bool {
        let is_locked = |pfn| self.flags(pfn).contains(FrameFlags::UNEVICTABLE);
        self.large_parts(page).all(is_locked)
    }
    /// Returns true if anything but entries and the reference `part` holds a part of the large page
    /// of `part`: it cannot be split then (`can_split_folio`).
    pub(crate) fn is_large_held(&self, part: &Frame<'_>) -> bool {
        let own = |pfn| u32::from(pfn == part.pfn());
        let is_held = |pfn| self.refcount(pfn) > self.mapcount(pfn) + own(pfn);
        self.large(part.pfn())
            .is_some_and(|page| self.large_parts(page).any(is_held))
    }
    /// Ends the large page: its frames are independent from now on.
    pub(crate) fn forget_large(&self, page: Large) {
        for pfn in self.large_parts(page) {
            self.clear_flags(pfn, FrameFlags::LARGE);
        }
    }
}
