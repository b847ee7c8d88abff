//! Translations outside of the gate: what a TLB holds, and what an audit sees.
//!
//! No type can follow a translation into hardware. So a [`Cached`] one is a matter of run time: whoever keeps it must drop
//! it when its driver is asked to, whoever follows it after its frame was given back is caught by the
//! [`FrameView`], and the [oracle](crate::oracle) finds it where it lies.

use super::{seat::Seat, translation::Translation};
use crate::{
    addr::{Pfn, Vpn, VpnRange},
    frame::{FrameView, FrameViewMut},
};

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
