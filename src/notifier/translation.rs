//! Pages, the frames that they lead to, and the registration that a translation belongs to.

use crate::{
    addr::{Pfn, Vpn, VpnRange},
    frame::PhysMem,
    sync::IdSource,
};

static NEXT: IdSource = IdSource::starting_at(0);

/// The identity of a registration, never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct RegId(pub(super) u64);

/// The registration that a translation belongs to, in as many bits as an entry has room for:
/// registrations whose numbers differ by a multiple of 2^23 have equal tags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RegTag(u32);

impl RegTag {
    /// The number of bits of a tag.
    pub(super) const BITS: u32 = 23;

    #[allow(clippy::cast_possible_truncation)]
    const fn cut(number: u64) -> Self {
        Self((number & ((1 << Self::BITS) - 1)) as u32)
    }
    /// Returns the tag in the highest bits of an entry's word.
    #[inline]
    pub(super) const fn of_word(word: u64) -> Self {
        Self::cut(word >> (u64::BITS - Self::BITS))
    }
    /// Returns a word with the tag in its highest bits.
    pub(super) fn word(self) -> u64 {
        u64::from(self.0) << (u64::BITS - Self::BITS)
    }
}

impl RegId {
    /// Returns the identity of the next registration.
    pub(super) fn next() -> Self {
        Self(NEXT.next())
    }
    pub(super) const fn tag(self) -> RegTag {
        RegTag::cut(self.0)
    }
}

/// One page, or the 512 pages of a huge page, and the frames that they lead to.
#[derive(Clone, Copy, Debug)]
pub struct Translation {
    pub(super) range: VpnRange,
    pub(super) pfn: Pfn,
    pub(super) generation: u32,
    pub(super) writable: bool,
    /// The registration that the translation belongs to.
    pub(super) tag: RegTag,
}

/// Compares pages, frames, generation and rights, and not the registration.
impl PartialEq for Translation {
    fn eq(&self, other: &Self) -> bool {
        let said = |t: &Self| (t.range, t.pfn, t.generation, t.writable);
        said(self) == said(other)
    }
}

impl Eq for Translation {}

impl Translation {
    /// Returns the pages, 1 or 512.
    #[inline]
    pub fn range(&self) -> VpnRange {
        self.range
    }
    /// Returns the frame of the first page; the frames of the other pages follow it.
    pub fn pfn(&self) -> Pfn {
        self.pfn
    }
    /// Returns the frame of a page; `None` outside of the range.
    #[inline(always)]
    pub fn frame_of(&self, at: Vpn) -> Option<Pfn> {
        let nth = u32::try_from(at.0.checked_sub(self.range.start().0)?).ok()?;
        self.range.contains(at).then(|| self.pfn.nth(nth))
    }
    /// Returns the frames in the order of the pages.
    pub fn frames(&self) -> impl Iterator<Item = Pfn> {
        let first = self.pfn;
        let pages = u32::try_from(self.range.pages()).expect("at most 512");
        (0..pages).map(move |n| first.nth(n))
    }
    /// Gives up one reference on each frame (`put_page`).
    pub(super) fn put(&self, mem: &PhysMem) {
        for pfn in self.frames() {
            drop(mem.adopt(pfn));
        }
    }
    /// Returns true if one of the pages leads to this frame.
    pub fn leads_to(&self, pfn: Pfn) -> bool {
        let (first, frame) = (u64::from(self.pfn.number()), u64::from(pfn.number()));
        (first..first + self.range.pages()).contains(&frame)
    }
    /// Returns true if the translation allows writing.
    pub fn is_writable(&self) -> bool {
        self.writable
    }
    /// Returns the number of times that the first frame had been retired when the translation was
    /// made.
    pub fn generation(&self) -> u32 {
        self.generation
    }
    #[inline(always)]
    pub(super) fn generation_of(&self, mem: &PhysMem, pfn: Pfn) -> u32 {
        if pfn == self.pfn {
            self.generation
        } else {
            mem.generation_within(pfn, self.pfn, self.generation)
        }
    }
}
