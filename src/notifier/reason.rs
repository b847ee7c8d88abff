//! The reason of a window, its owner, and the promise of its opener.

use super::blocks::buckets_of;
use crate::{
    addr::{Pfn, VpnRange},
    frame::{DeviceId, PhysMem},
};
use std::marker::PhantomData;

/// The brand of one callback: an invariant lifetime, fresh for each call.
pub(super) type Brand<'i> = PhantomData<fn(&'i ()) -> &'i ()>;

/// The reason of an invalidation, with the names of Linux's `mmu_notifier_event`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Event {
    /// The range is unmapped, moved or replaced.
    Unmap,
    /// Pages are dropped or replaced; the mapping stays.
    Clear,
    /// The rights of the mapping change.
    ProtectionVma,
    /// The rights of pages change: a fork, a page to be written back.
    ProtectionPage,
    /// Tracking of written pages (soft-dirty) begins anew.
    SoftDirty,
    /// Pages migrate to the memory of a device, or home.
    Migrate,
    /// A device gets exclusive access to pages.
    Exclusive,
}

/// The reason of a window, and the promise of its opener.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reason {
    event: Event,
    /// The device memory for which the window is opened.
    owner: Option<DeviceId>,
    /// Set if the opener leaves the entries of the owner's frames alone.
    spares_owner: bool,
}

impl From<Event> for Reason {
    #[inline(always)]
    fn from(event: Event) -> Self {
        Self {
            event,
            owner: None,
            spares_owner: false,
        }
    }
}

impl Reason {
    /// Returns the reason of a migration for a device. `spares_owner`: no entry of a frame of this
    /// memory changes in the window.
    pub(crate) fn migration(owner: DeviceId, spares_owner: bool) -> Self {
        Self {
            event: Event::Migrate,
            owner: Some(owner),
            spares_owner,
        }
    }
    /// Returns the reason of a window in which a device gets a page alone, for this memory if the
    /// device has one.
    pub(crate) fn exclusive(owner: Option<DeviceId>) -> Self {
        Self {
            event: Event::Exclusive,
            owner,
            spares_owner: false,
        }
    }
    #[inline]
    pub(super) fn event(self) -> Event {
        self.event
    }
    #[inline]
    pub(super) fn owner(self) -> Option<DeviceId> {
        self.owner
    }
    /// Returns the memory whose frames no entry loses in the window.
    pub(super) fn spared(self) -> Option<DeviceId> {
        self.owner.filter(|_| self.spares_owner)
    }
}

/// The part that is the same in the demands of one window to all of its drivers.
#[derive(Debug)]
pub(super) struct Terms {
    range: VpnRange,
    reason: Reason,
    /// The buckets of the range, one bit each; `None` if it is wide.
    buckets: Option<u64>,
}

impl Terms {
    #[inline]
    pub(super) fn new(range: VpnRange, reason: Reason) -> Self {
        Self {
            range,
            reason,
            buckets: buckets_of(range),
        }
    }
    #[inline]
    pub(super) fn range(&self) -> VpnRange {
        self.range
    }
    #[inline]
    pub(super) fn reason(&self) -> Reason {
        self.reason
    }
    #[inline]
    pub(super) fn buckets(&self) -> Option<u64> {
        self.buckets
    }
}

/// The right to keep translations of one device's private frames in one window.
///
/// [`Invalidation::spare`](super::Invalidation::spare) gives it, for the demand of one callback:
///
/// ```compile_fail
/// use emmu::driver::*;
///
/// fn keep<'i, 'o>(
///     gate: &Gate<OrderedStore<Vpn>, (), Atomic>,
///     cx: CallbackCx<'_>,
///     demand: Invalidation<'i>,
///     of_another: Spared<'o>,
/// ) -> Ack<'i> {
///     gate.exclude_sparing(cx, demand, of_another, |(), _, _| ())
/// }
/// ```
#[must_use = "pass it to the gate: `Gate::exclude_sparing`"]
#[derive(Debug)]
pub struct Spared<'i> {
    memory: DeviceId,
    _brand: Brand<'i>,
}

impl Spared<'_> {
    pub(super) fn new(memory: DeviceId, brand: Brand<'_>) -> Spared<'_> {
        Spared {
            memory,
            _brand: brand,
        }
    }
    /// Returns true if the translation of this frame may stay.
    pub(super) fn keeps(&self, mem: &PhysMem, pfn: Pfn) -> bool {
        mem.is_device(pfn) && mem.device_of(pfn) == Some(self.memory)
    }
}
