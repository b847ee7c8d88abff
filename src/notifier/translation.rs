//! Pages, the frames that they lead to, and the registration that a translation belongs to.

use crate::{
    addr::{Pfn, Vpn, VpnRange},
    frame::PhysMem,
};

/// Identity of a registration, never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct RegId(pub(super) u64);

/// Whose a translation is, as far as there is room for that in an entry: registrations whose numbers differ by a multiple
/// of 2^23 have the same one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Brand(u32);

impl Brand {
    /// How many bits it has.
    pub(super) const BITS: u32 = 23;

    #[allow(clippy::cast_possible_truncation)]
    const fn cut(number: u64) -> Self {
        Self((number & ((1 << Self::BITS) - 1)) as u32)
    }
    /// That of the entry in whose highest bits it is.
    #[inline]
    pub(super) const fn of_word(word: u64) -> Self {
        Self::cut(word >> (u64::BITS - Self::BITS))
    }
    /// In the highest bits of a word.
    pub(super) fn word(self) -> u64 {
        u64::from(self.0) << (u64::BITS - Self::BITS)
    }
}

impl RegId {
    pub(super) const fn brand(self) -> Brand {
        Brand::cut(self.0)
    }
}

/// Pages and the frames that they lead to.
#[derive(Clone, Copy, Debug)]
pub struct Translation {
    pub(super) range: VpnRange,
    pub(super) pfn: Pfn,
    pub(super) generation: u32,
    pub(super) writable: bool,
    /// Whose it is.
    pub(super) brand: Brand,
}

/// Equal in all that it says; not in whose it is.
impl PartialEq for Translation {
    fn eq(&self, other: &Self) -> bool {
        let said = |t: &Self| (t.range, t.pfn, t.generation, t.writable);
        said(self) == said(other)
    }
}

impl Eq for Translation {}

impl Translation {
    /// The pages, one or 512.
    #[inline]
    pub fn range(&self) -> VpnRange {
        self.range
    }
    /// The frame of the first one; the others follow.
    pub fn pfn(&self) -> Pfn {
        self.pfn
    }
    /// The frame of a page; `None` outside of the range.
    #[inline(always)]
    pub fn frame_of(&self, at: Vpn) -> Option<Pfn> {
        let nth = u32::try_from(at.0.checked_sub(self.range.start().0)?).ok()?;
        self.range.contains(at).then(|| self.pfn.nth(nth))
    }
    /// The frames of its pages, in their order.
    pub fn frames(&self) -> impl Iterator<Item = Pfn> {
        let first = self.pfn;
        let pages = u32::try_from(self.range.pages()).expect("at most 512");
        (0..pages).map(move |n| first.nth(n))
    }
    /// Whether one of the pages leads to this frame.
    pub fn leads_to(&self, pfn: Pfn) -> bool {
        let (first, frame) = (u64::from(self.pfn.number()), u64::from(pfn.number()));
        (first..first + self.range.pages()).contains(&frame)
    }
    /// Whether it allows writing.
    pub fn is_writable(&self) -> bool {
        self.writable
    }
    /// How often the (first) frame had been retired when the translation was made.
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
