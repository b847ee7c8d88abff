//! Translations outside of the gate: the contents of a TLB.
//!
//! No type can follow a translation into hardware, so a [`Cached`] translation is checked at run
//! time. The driver must drop it when a window asks for that. A use after its frame was given back
//! is caught by the [`FrameView`], and the [oracle](crate::oracle) finds a stale one where it lies.

use super::{seat::Seat, translation::Translation};
use crate::{
    addr::{Pfn, Vpn, VpnRange},
    frame::{FrameView, FrameViewMut},
};

/// A translation as a TLB holds it.
///
/// The driver that keeps one must drop it when a window asks for that: under the lock that its
/// invalidation callback takes, or by hardware that ignores a translation which comes too late.
#[must_use = "a translation that is not kept is lost"]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cached(pub(super) Translation);

impl Cached {
    /// Returns the pages, the frames and the rights of the translation.
    pub fn translation(&self) -> Translation {
        self.0
    }
    /// Returns the pages of the translation.
    #[inline]
    pub fn range(&self) -> VpnRange {
        self.0.range
    }
    /// Returns true if the translation allows writing.
    pub fn is_writable(&self) -> bool {
        self.0.writable
    }
    /// Returns a copy without the right to write.
    pub fn read_only(mut self) -> Self {
        self.0.writable = false;
        self
    }
}

impl Seat {
    /// Returns the frame of a page if the translation belongs to this registration.
    #[inline(always)]
    fn frame_of(&self, cached: &Cached, at: Vpn) -> Option<Pfn> {
        let pfn = cached.0.frame_of(at)?;
        (cached.0.brand == self.brand).then_some(pfn)
    }
    /// Follows a cached translation for reading. Returns `None` if it does not translate `at`, or
    /// belongs to another registration.
    #[inline(always)]
    pub(crate) fn follow(&self, cached: &Cached, at: Vpn) -> Option<FrameView<'_>> {
        let pfn = self.frame_of(cached, at)?;
        Some(self.mem.view(pfn, cached.0.generation_of(&self.mem, pfn)))
    }
    /// Follows a cached translation for writing. Returns `None` if it does not translate `at`, does
    /// not allow writing, or belongs to another registration.
    #[inline(always)]
    pub(crate) fn follow_mut(&self, cached: &Cached, at: Vpn) -> Option<FrameViewMut<'_>> {
        let pfn = self.frame_of(cached, at).filter(|_| cached.0.writable)?;
        let generation = cached.0.generation_of(&self.mem, pfn);
        Some(self.mem.view_mut(pfn, generation))
    }
}
