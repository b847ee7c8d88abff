//! The mmap lock held shared, and pages that stay claimed after it is released.

use crate::mm::{
    lock::{ReadGuard, SharedClaim},
    space::Mm,
    vma::layout::Layout,
    window::Lease,
};
use crate::{
    addr::VpnRange,
    ctx::{Below, Cx, FaultCx, Sleepable, rank},
};

/// The mmap lock held shared: the VMAs stay as they are, and faults of other threads go on.
pub struct MmapReadGuard<'g> {
    pub(in crate::mm) mm: &'g Mm,
    pub(in crate::mm) layout: ReadGuard<'g, Layout>,
    pub(in crate::mm) cx: FaultCx<'g>,
}

/// Keeps the mappings of some pages as they are, without holding the mmap lock.
///
/// An operation that would change these mappings waits until the claim is dropped; faults on the
/// pages go on.
pub(in crate::mm) struct MmapSharedClaim<'m> {
    mm: &'m Mm,
    _kept: SharedClaim<'m, Layout>,
}

impl Mm {
    /// Takes the mmap lock shared, for work on any page: waits until no operation changes VMAs or
    /// works on pages.
    ///
    /// # Panics
    ///
    /// If the token is of a thread that entered another machine.
    pub fn lock_shared<'g, R: Below<rank::Mmap>>(
        &'g self,
        cx: &'g mut Cx<'_, R, Sleepable>,
    ) -> MmapReadGuard<'g> {
        self.lock_shared_over(cx, Some(VpnRange::ALL))
    }
    /// Takes the mmap lock shared for work on the pages of `range`, or with `None` for reading the
    /// layout alone. Does not wait for an operation that works on other pages.
    #[inline]
    pub(in crate::mm) fn lock_shared_over<'g, R: Below<rank::Mmap>>(
        &'g self,
        cx: &'g mut Cx<'_, R, Sleepable>,
        range: Option<VpnRange>,
    ) -> MmapReadGuard<'g> {
        self.check_token(cx);
        MmapReadGuard {
            mm: self,
            layout: self.layout.read(range),
            cx: cx.descend(),
        }
    }
}

impl<'m> MmapSharedClaim<'m> {
    /// Claims `range`. The guard `held` may be dropped afterwards.
    pub(in crate::mm) fn new(mm: &'m Mm, held: &MmapReadGuard<'_>, range: VpnRange) -> Self {
        Self {
            mm,
            _kept: mm.layout.claim_shared(&held.layout, range),
        }
    }
    /// Gives the right to open windows over the claimed pages.
    pub(in crate::mm) fn lease<'l, R: Below<rank::Mmap>>(
        &'l self,
        cx: &'l mut Cx<'_, R, Sleepable>,
    ) -> Lease<'l, rank::Mmap, Sleepable> {
        Lease {
            mm: self.mm,
            cx: cx.descend(),
        }
    }
}

impl MmapReadGuard<'_> {
    /// Gives the right to open windows.
    pub fn lease(&mut self) -> Lease<'_, rank::Mmap, Sleepable> {
        Lease {
            mm: self.mm,
            cx: self.cx.reborrow(),
        }
    }
}

impl std::fmt::Debug for MmapReadGuard<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MmapReadGuard").finish_non_exhaustive()
    }
}
