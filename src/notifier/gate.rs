//! The driver's lock with its shadow entries inside.
//!
//! Invariants, both held by the one lock:
//!
//! 1. while a [`Permit`](super::Permit) lives, no overlapping window can *become* open, because opening needs this
//!    gate's [`Ack`], which needs this lock;
//! 2. after [`Gate::exclude`] the store has no entry in the range, because the gate, not the driver, has it removed.

use super::{
    chain::Seat,
    ops::{Ack, Invalidation, WouldBlock},
    permit::{Access, Ticket},
    store::ShadowStore,
};
use crate::{
    addr::{Vpn, VpnRange},
    ctx::{Atomic, Below, Context, Cx, EnterFrom, rank},
    frame::{FrameView, FrameViewMut, PhysMem},
    sync::{Mutex, MutexGuard},
};
use std::marker::PhantomData;

pub(super) struct Inner<S, T> {
    pub(super) store: S,
    pub(super) state: T,
}

/// Driver lock around a store `S` and driver state `T`. `C` is the context its holders run in: [`Atomic`] for a
/// driver that spins, `Sleepable` for one that waits.
pub struct Gate<S, T, C: Context> {
    pub(super) seat: Seat,
    inner: Mutex<Inner<S, T>>,
    kind: PhantomData<fn() -> C>,
}

/// The gate is held.
#[must_use]
pub struct GateGuard<'p, S, T, C: Context> {
    pub(super) inner: MutexGuard<'p, Inner<S, T>>,
    pub(super) mem: &'p PhysMem,
    cx: Cx<'p, rank::Gate, C>,
}

impl<S: ShadowStore, T, C: Context> Gate<S, T, C> {
    /// Builds the gate of a registration.
    pub fn new(seat: Seat, store: S, state: T) -> Self {
        Self {
            seat,
            inner: Mutex::new(Inner { store, state }),
            kind: PhantomData,
        }
    }

    /// Draws a ticket for one page, before anything about the page is looked up.
    pub fn ticket(&self, vpn: Vpn, access: Access) -> Ticket<'_, Self> {
        Ticket::draw(self, self.seat.board.snapshot(), vpn, access)
    }
    /// Sleeps until no window overlaps `range`, for drivers that hold their users off rather than retry.
    pub fn wait_idle<R: Below<rank::Gate>>(
        &self,
        cx: &mut Cx<'_, R, crate::ctx::Sleepable>,
        range: VpnRange,
    ) {
        let _unused = cx;
        self.seat.board.wait_idle(range);
    }

    /// Locks the gate.
    pub fn lock<'p, R: Below<rank::Gate>, D: Context>(
        &'p self,
        cx: &'p mut Cx<'_, R, D>,
    ) -> GateGuard<'p, S, T, C>
    where
        C: EnterFrom<D>,
    {
        GateGuard {
            inner: self.inner.lock(),
            mem: &self.seat.mem,
            cx: cx.descend(),
        }
    }

    /// Drops every entry in the range, runs `f` on the driver's state, and proves it.
    ///
    /// # Panics
    ///
    /// If the demand was made of another registration.
    pub fn exclude<'i, D: Context>(
        &self,
        mut cx: Cx<'_, rank::Callback, D>,
        inv: Invalidation<'i>,
        f: impl FnOnce(&mut T, VpnRange, Cx<'_, rank::Gate, C>),
    ) -> Ack<'i>
    where
        C: EnterFrom<D>,
    {
        self.check_owner(&inv);
        let mut guard = self.lock(&mut cx);
        let GateGuard { inner, cx, .. } = &mut guard;
        inner.zap(inv.range());
        f(&mut inner.state, inv.range(), cx.reborrow());
        inv.ack()
    }

    /// [`exclude`](Self::exclude) for any gate from an atomic context, without waiting.
    ///
    /// # Errors
    ///
    /// [`WouldBlock`] if the gate is held by somebody.
    ///
    /// # Panics
    ///
    /// If the demand was made of another registration.
    pub fn try_exclude<'i>(
        &self,
        cx: Cx<'_, rank::Callback, Atomic>,
        inv: Invalidation<'i>,
        f: impl FnOnce(&mut T, VpnRange),
    ) -> Result<Ack<'i>, WouldBlock> {
        self.check_owner(&inv);
        let _unused = cx;
        let mut inner = self.inner.try_lock().ok_or(WouldBlock)?;
        inner.zap(inv.range());
        f(&mut inner.state, inv.range());
        Ok(inv.ack())
    }

    /// Run-time check: drivers are long-lived objects behind `dyn`, so no brand can say whose gate this is.
    fn check_owner(&self, inv: &Invalidation<'_>) {
        assert_eq!(self.seat.reg, inv.reg(), "gate of another registration");
    }
}

impl<S: ShadowStore, T> Inner<S, T> {
    fn zap(&mut self, range: VpnRange) {
        self.store.remove_range(range);
        if cfg!(debug_assertions) {
            self.store.for_each(&mut |e| {
                let (vpn, pfn) = (e.vpn(), e.pfn());
                assert!(
                    !range.contains(vpn),
                    "the store kept {vpn:?} -> {pfn:?} of {range:?}"
                );
            });
        }
    }
}

impl<'p, S: ShadowStore, T, C: Context> GateGuard<'p, S, T, C> {
    /// Driver state.
    pub fn state(&mut self) -> &mut T {
        &mut self.inner.state
    }
    /// The store, to look at.
    pub fn store(&self) -> &S {
        &self.inner.store
    }
    /// Follows an established translation.
    pub fn lookup(&self, key: &S::Key) -> Option<FrameView<'_>> {
        let entry = self.inner.store.get(key)?;
        Some(self.mem.view(entry.pfn(), entry.generation))
    }
    /// Follows one that was established for writing.
    pub fn lookup_mut(&mut self, key: &S::Key) -> Option<FrameViewMut<'_>> {
        let entry = self.inner.store.get(key).filter(|e| e.is_writable())?;
        Some(self.mem.view_mut(entry.pfn(), entry.generation))
    }
    /// Gives up a translation.
    pub fn forget(&mut self, key: &S::Key) {
        self.inner.store.remove(key);
    }
    /// Token usable while the gate is held.
    pub fn cx(&mut self) -> Cx<'_, rank::Gate, C> {
        self.cx.reborrow()
    }
}
