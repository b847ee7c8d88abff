//! The name of a large page.

use super::pfn::HUGE;
use crate::addr::Pfn;

/// A large page: its first frame, and how many it was made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Large {
    head: Pfn,
    frames: u32,
}

impl Large {
    /// Returns the large page of so many frames that begins with this one.
    pub(super) fn new(head: Pfn, frames: u32) -> Self {
        Self { head, frames }
    }
    /// Returns the huge page that begins with this frame.
    pub(crate) fn huge(head: Pfn) -> Self {
        Self { head, frames: HUGE }
    }
    /// Returns the large page of the same size that begins with this frame.
    pub(crate) fn moved_to(self, head: Pfn) -> Self {
        Self { head, ..self }
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
    /// Returns true if the page was made of this frame, among others.
    pub(crate) fn contains(self, pfn: Pfn) -> bool {
        (self.head..self.head.nth(self.frames)).contains(&pfn)
    }
    /// Returns the half-open range of its page offsets, if frame `part` has the offset `index`.
    pub(crate) fn pages(self, part: Pfn, index: u64) -> Option<(u64, u64)> {
        let first = index.checked_sub(self.place(part).into())?;
        Some((first, first + u64::from(self.frames)))
    }
}
