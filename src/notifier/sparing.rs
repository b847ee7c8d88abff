//! Entries that a driver keeps in the window of a migration: those of its own memory.
//!
//! Guarantee: after [`Gate::exclude_sparing`] the store has no entry in the range but those of
//! frames of the one device memory whose entries the opener of the window leaves alone. The proof
//! of that promise, [`Spared`], comes of the very demand that it is used with, and of the token of
//! the memory; the driver's tickets are stale all the same, since the board makes them so
//! (docs/adr/0034-a-page-of-a-device-is-an-entry.md).

use super::{
    driver::{Ack, Invalidation},
    gate::{Gate, Invalidated},
    guarded_store::GuardedStore,
    reason::Spared,
    removed::RemovedEntries,
    store::ShadowStore,
};
use crate::ctx::{Context, Cx, EnterFrom, rank};

impl<S: ShadowStore, T, C: Context> Gate<S, T, C> {
    /// Removes every entry in the range as [`exclude_with`](Self::exclude_with) does, but for those
    /// of frames that `spared` names.
    ///
    /// # Panics
    ///
    /// If the demand was made of another registration.
    ///
    /// # Examples
    ///
    /// ```
    /// use emmu::{driver::*, frame::DeviceMemory};
    ///
    /// struct Device {
    ///     memory: DeviceMemory,
    ///     gate: Gate<OrderedStore<Vpn>, (), Atomic>,
    /// }
    ///
    /// impl SpinningMmu for Device {
    ///     fn invalidate<'i>(&self, cx: AtomicCallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> {
    ///         match inv.spare(&self.memory) {
    ///             Some(spared) => self.gate.exclude_sparing(cx, inv, spared, |(), _, _| ()),
    ///             None => self.gate.exclude(cx, inv, |(), _, _| ()),
    ///         }
    ///     }
    /// }
    /// ```
    pub fn exclude_sparing<'i, D: Context>(
        &self,
        mut cx: Cx<'_, rank::Callback, D>,
        inv: Invalidation<'i>,
        spared: Spared<'i>,
        f: impl FnOnce(&mut T, &Invalidated<'_>, Cx<'_, rank::Gate, C>),
    ) -> Ack<'i>
    where
        C: EnterFrom<D>,
    {
        let zap = |guarded: &mut GuardedStore<S, T>, range, gone: &mut RemovedEntries| {
            guarded.zap_sparing(range, &spared, gone);
        };
        self.exclude_by(&mut cx, inv, zap, f)
    }
}
