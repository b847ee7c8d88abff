//! Excluding a range without waiting, for windows that must not block.

use super::{
    driver::{Ack, Invalidation, WouldBlock},
    gate::{Gate, Invalidated},
    guarded_store::LeavingEntries,
    store::ShadowStore,
};
use crate::{
    addr::VpnRange,
    ctx::{AtomicCallbackCx, Context},
};

impl<S: ShadowStore, T, C: Context> Gate<S, T, C> {
    /// Removes every entry in the range as [`exclude`](Self::exclude) does, from an atomic context
    /// and for any gate, without waiting.
    ///
    /// # Errors
    ///
    /// [`WouldBlock`] if the gate is locked.
    ///
    /// # Panics
    ///
    /// If the demand was made of another registration.
    pub fn try_exclude<'i>(
        &self,
        cx: AtomicCallbackCx<'_>,
        inv: Invalidation<'i>,
        f: impl FnOnce(&mut T, VpnRange),
    ) -> Result<Ack<'i>, WouldBlock> {
        let ready = |_: &mut T, _| Ok(());
        self.try_exclude_with(cx, inv, ready, |state, gone, ()| f(state, gone.range()))
    }
    /// Removes every entry in the range without waiting, unless the driver refuses: for a driver
    /// with a second lock, which it must hold before any entry goes.
    ///
    /// `prepare` runs first, with the gate locked. If it returns a value, the entries are removed
    /// and shown to `f` with that value, as [`exclude_with`](Self::exclude_with) shows them.
    ///
    /// # Errors
    ///
    /// [`WouldBlock`] if the gate is locked, or `prepare` returns it. No entry is removed.
    ///
    /// # Panics
    ///
    /// If the demand was made of another registration.
    ///
    /// # Examples
    ///
    /// A driver whose TLB has a lock of its own:
    ///
    /// ```
    /// use emmu::driver::*;
    /// use std::sync::{Mutex, MutexGuard};
    ///
    /// struct Device {
    ///     gate: Gate<OrderedStore<Vpn>, (), Sleepable>,
    ///     tlb: Mutex<Vec<Cached>>,
    /// }
    ///
    /// impl Device {
    ///     fn try_drop<'i>(
    ///         &self,
    ///         cx: AtomicCallbackCx<'_>,
    ///         inv: Invalidation<'i>,
    ///     ) -> Result<Ack<'i>, WouldBlock> {
    ///         let lock = |_: &mut (), _| self.tlb.try_lock().map_err(|_| WouldBlock);
    ///         let flush = |_: &mut (), _: &Invalidated<'_>, mut tlb: MutexGuard<'_, Vec<_>>| {
    ///             tlb.clear();
    ///         };
    ///         self.gate.try_exclude_with(cx, inv, lock, flush)
    ///     }
    /// }
    /// ```
    pub fn try_exclude_with<'i, P>(
        &self,
        cx: AtomicCallbackCx<'_>,
        inv: Invalidation<'i>,
        prepare: impl FnOnce(&mut T, VpnRange) -> Result<P, WouldBlock>,
        f: impl FnOnce(&mut T, &Invalidated<'_>, P),
    ) -> Result<Ack<'i>, WouldBlock> {
        self.seat.check_owner(&inv);
        let _unused = cx;
        let mut leaving = LeavingEntries::new(&self.seat);
        let mut guarded = self.guarded.try_lock().ok_or(WouldBlock)?;
        let prepared = prepare(&mut guarded.state, inv.range())?;
        guarded.zap_into(inv.range(), &mut leaving.gone);
        let zapped = Invalidated::new(inv.range(), leaving.gone.entries());
        f(&mut guarded.state, &zapped, prepared);
        leaving.flushed(&guarded.store);
        drop(guarded);
        leaving.put_after_unlock();
        Ok(inv.ack())
    }
}
