//! Large pages: frames in a row that were allocated as one and have not been split since.
//!
//! There are two sizes: huge pages of 2 MiB, and folios of 64 KiB of private memory, which are
//! mapped by small entries. Each frame keeps its own counts, so a large page that is mapped in
//! parts needs no accounts of its own; a question about the whole page asks all of its frames
//! (docs/adr/0006-a-huge-page-is-a-marked-leaf.md).

use super::{
    flags::FrameFlags,
    mem::{Frame, PhysMem},
    pfn::{FOLIO, HUGE},
};
use crate::{addr::Pfn, sync::Ordering};

/// A large page: its first frame, and how many it was made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Large {
    head: Pfn,
    frames: u32,
}

impl Large {
    /// Returns the huge page that begins with this frame.
    pub(crate) fn huge(head: Pfn) -> Self {
        Self { head, frames: HUGE }
    }
    /// Returns the first frame. It may have left the page, and be in other use.
    pub(crate) fn head(self) -> Pfn {
        self.head
    }
    /// Returns the number of frames that the page was made of.
    pub(crate) fn frames(self) -> u32 {
        self.frames
    }
    /// Returns all frames that the page was made of.
    pub(crate) fn all(self) -> impl Iterator<Item = Pfn> {
        (0..self.frames).map(move |nth| self.head.nth(nth))
    }
    /// Returns the place of one of its frames in the page.
    pub(crate) fn place(self, part: Pfn) -> u32 {
        part.0 - self.head.0
    }
    /// Returns the half-open range of its page offsets, if frame `part` has the offset `index`.
    pub(crate) fn pages(self, part: Pfn, index: u64) -> Option<(u64, u64)> {
        let first = index.checked_sub(self.place(part).into())?;
        Some((first, first + u64::from(self.frames)))
    }
}

impl PhysMem {
    /// Notes the size of a large page that is made of free frames.
    pub(super) fn note_large(&self, head: Pfn, frames: u32) -> Large {
        match frames {
            FOLIO => self.folio_bits.set(head, self.capacity()),
            _ => self.folio_bits.clear(head, frames),
        }
        Large { head, frames }
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
        match self.folio_bits.has(pfn) {
            true => Large {
                head: Pfn(pfn.0 & !(FOLIO - 1)),
                frames: FOLIO,
            },
            false => Large::huge(pfn.head()),
        }
    }
    /// Returns true if the frame is part of a huge page.
    pub(super) fn is_huge_part(&self, pfn: Pfn) -> bool {
        self.is_large(pfn) && !self.folio_bits.has(pfn)
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
    /// Returns a frame of each large page of private memory of which a part was given back, in
    /// ascending order (`folio_test_partially_mapped`). Pages of a pool are left out: the rest of
    /// one that is pinned waits for the end of the pins.
    pub(crate) fn partly_given_back(&self) -> Vec<Pfn> {
        let private = FrameFlags::LARGE | FrameFlags::ANON;
        let mut found = Vec::new();
        // The zero page is frame 0, so the frames of a machine are one more than its capacity.
        let blocks = 0..=self.capacity() / HUGE;
        let heads = blocks.map(|block| Pfn(block * HUGE));
        for head in heads.filter(|&head| self.is_made(head)) {
            let last = head.0 + HUGE.min(self.capacity() + 1 - head.0);
            let mut at = head.0;
            while at < last {
                let pfn = Pfn(at);
                let is_part = self.refcount(pfn) > 0 && self.flags(pfn).contains(private);
                let Some(page) = self.large(pfn).filter(|_| is_part) else {
                    at += 1;
                    continue;
                };
                let live = |&part: &Pfn| self.refcount(part) > 0;
                let parts = self.large_parts(page).filter(live).count();
                if parts < page.frames as usize && !self.is_of_pool(pfn) {
                    found.push(pfn);
                }
                at = page.head.0 + page.frames;
            }
        }
        found
    }
    /// Returns the number of entries, of all processes, that map any part of the page.
    pub(crate) fn large_mappings(&self, page: Large) -> u64 {
        let counts = self.large_parts(page).map(|pfn| self.mapcount(pfn));
        counts.map(u64::from).sum()
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
        for pfn in page.all().filter(|&pfn| self.large(pfn) == Some(page)) {
            self.clear_flags(pfn, FrameFlags::LARGE);
        }
    }
}
