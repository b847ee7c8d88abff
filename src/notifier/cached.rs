//! Translations outside of the gate: what a TLB holds, and what an audit sees.
//!
//! No type can follow a translation into hardware. So a [`Cached`] one is a matter of run time: whoever keeps it must drop
//! it when its driver is asked to, whoever follows it after its frame was given back is caught by the
//! [`FrameView`], and the [oracle](crate::oracle) finds it where it lies.

use super::{entry::Brand, gate::Gate, seat::Seat, store::ShadowStore};
use crate::{
    addr::{Pfn, Vpn, VpnRange},
    ctx::Context,
    frame::{FrameView, FrameViewMut, PhysMem},
};

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
    fn generation_of(&self, mem: &PhysMem, pfn: Pfn) -> u32 {
        if pfn == self.pfn {
            self.generation
        } else {
            mem.generation_within(pfn, self.pfn, self.generation)
        }
    }
}

/// A translation as a TLB holds it. Whoever keeps one answers for dropping it: with the lock held under which the driver
/// drops them, or by hardware that ignores one that comes too late.
#[must_use = "a translation that is not kept is lost"]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cached(pub(super) Translation);

impl Cached {
    /// What it says.
    pub fn translation(&self) -> Translation {
        self.0
    }
    /// The pages.
    #[inline]
    pub fn range(&self) -> VpnRange {
        self.0.range
    }
    /// Whether it allows writing.
    pub fn is_writable(&self) -> bool {
        self.0.writable
    }
    /// The same without the right to write.
    pub fn read_only(mut self) -> Self {
        self.0.writable = false;
        self
    }
}

impl Seat {
    /// The frame of a page, if the translation is one of this registration.
    #[inline(always)]
    fn frame_of(&self, cached: &Cached, at: Vpn) -> Option<Pfn> {
        let pfn = cached.0.frame_of(at)?;
        (cached.0.brand == self.brand).then_some(pfn)
    }
    /// Follows a cached translation for reading; `None` if it is not one of `at`, or of another registration.
    #[inline(always)]
    pub(crate) fn follow(&self, cached: &Cached, at: Vpn) -> Option<FrameView<'_>> {
        let pfn = self.frame_of(cached, at)?;
        Some(self.mem.view(pfn, cached.0.generation_of(&self.mem, pfn)))
    }
    /// Follows it for writing, if it allows that.
    #[inline(always)]
    pub(crate) fn follow_mut(&self, cached: &Cached, at: Vpn) -> Option<FrameViewMut<'_>> {
        let pfn = self.frame_of(cached, at).filter(|_| cached.0.writable)?;
        let generation = cached.0.generation_of(&self.mem, pfn);
        Some(self.mem.view_mut(pfn, generation))
    }
}

impl<S: ShadowStore, T, C: Context> Gate<S, T, C> {
    /// Follows a cached translation for reading; `None` if it is not one of `at`, or of another registration.
    #[inline(always)]
    pub fn follow(&self, cached: &Cached, at: Vpn) -> Option<FrameView<'_>> {
        self.seat.follow(cached, at)
    }
    /// Follows it for writing, if it allows that.
    #[inline(always)]
    pub fn follow_mut(&self, cached: &Cached, at: Vpn) -> Option<FrameViewMut<'_>> {
        self.seat.follow_mut(cached, at)
    }
}
