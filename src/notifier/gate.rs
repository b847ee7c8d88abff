//! The driver's lock with its shadow entries inside.
//!
//! Invariants, both held by the one lock:
//!
//! 1. while a [`Permit`](super::Permit) lives, no overlapping window can *become* open, because opening needs this
//!    gate's [`Ack`], which needs this lock;
//! 2. after [`Gate::exclude`] the store has no entry in the range, because the gate, not the driver, has it removed.

use super::{
    cached::Cached,
    driver::{Ack, Invalidation, WouldBlock},
    gate_filter::GateFilter,
    gate_guard::GateGuard,
    guarded_store::{GuardedStore, pass_on_dirty, unpin_after_unlock},
    seat::Seat,
    shadow_entry::ShadowEntry,
    store::ShadowStore,
    translation::Translation,
};
use crate::{
    addr::{Vpn, VpnRange},
    ctx::{AtomicCallbackCx, Below, Context, Cx, EnterFrom, Outside, rank},
    frame::{FrameView, FrameViewMut},
    sync::Mutex,
};
use std::{marker::PhantomData, time::Duration};

/// What an audit waits for a gate. Whoever holds one lets it go soon, however busy the machine is; longer waits somebody who
/// waits for the auditor.
pub(super) const AUDIT_TIMEOUT: Duration = Duration::from_secs(10);

/// Driver lock around a store `S` and driver state `T`. `C` is the context its holders run in: [`Atomic`](crate::ctx::Atomic) for a
/// driver that spins, `Sleepable` for one that waits.
pub struct Gate<S: ShadowStore, T, C: Context> {
    pub(super) seat: Seat,
    pub(super) filter: GateFilter,
    guarded: Mutex<GuardedStore<S, T>>,
    kind: PhantomData<fn() -> C>,
}

impl<S: ShadowStore, T, C: Context> Gate<S, T, C> {
    /// Builds the gate of a registration.
    pub fn new(seat: Seat, store: S, state: T) -> Self {
        let guarded = Mutex::new(GuardedStore::new(&seat, store, state));
        Self {
            seat,
            filter: GateFilter::default(),
            guarded,
            kind: PhantomData,
        }
    }

    /// Sleeps until no window overlaps `range`, for drivers that hold their users off rather than retry; of a driver that
    /// subscribed to a range, until none overlaps any of that.
    ///
    /// Not from a window or a callback, which would wait for itself.
    pub fn wait_idle<R: Outside>(
        &self,
        cx: &mut Cx<'_, R, crate::ctx::Sleepable>,
        range: VpnRange,
    ) {
        let _unused = cx;
        self.seat.wait_idle(range);
    }

    /// Shows what is in the store to an audit, which comes with any locks held but this one. `false` if the gate could
    /// not be had for ten seconds: its holder waits for the auditor.
    pub fn audit(&self, visit: &mut dyn FnMut(Translation)) -> bool {
        self.audited(|store| store.for_each(&mut |e| visit(e.translation())))
    }
    /// [`audit`](Self::audit) of the pages in `range`.
    pub fn audit_in(&self, range: VpnRange, visit: &mut dyn FnMut(Translation)) -> bool {
        self.audited(|store| store.for_each_in(range, &mut |e| visit(e.translation())))
    }
    /// Runs `look` on the store, as [`audit`](Self::audit) does.
    pub fn audited(&self, look: impl FnOnce(&S)) -> bool {
        let guarded = self.guarded.try_lock_for(AUDIT_TIMEOUT);
        guarded.map(|guarded| look(&guarded.store)).is_some()
    }
    /// Locks the gate.
    pub fn lock<'p, R: Below<rank::Gate>, D: Context>(
        &'p self,
        cx: &'p mut Cx<'_, R, D>,
    ) -> GateGuard<'p, S, T, C>
    where
        C: EnterFrom<D>,
    {
        GateGuard::new(self.guarded.lock(), &self.seat, cx.descend())
    }

    /// Locks the gate for entries of `range`, whose ticket is settled next.
    pub(super) fn lock_for<'p, R: Below<rank::Gate>, D: Context>(
        &'p self,
        cx: &'p mut Cx<'_, R, D>,
        range: VpnRange,
    ) -> GateGuard<'p, S, T, C>
    where
        C: EnterFrom<D>,
    {
        let guard = self.lock(cx);
        self.filter.note(range);
        guard
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
        self.exclude_with(&mut cx, inv, |state, zapped, cx| {
            f(state, zapped.range, cx);
        })
    }

    /// [`exclude`](Self::exclude) that tells `f` what was dropped. Dirty and accessed bits of the entries are passed on after
    /// `f`, their references given up after that, when the lock is not held any more: a driver flushes its TLBs in `f`, so
    /// what was stored through one until then is known, and no frame goes while one has it. One that flushes later, before
    /// it returns the [`Ack`], must tell the frame of each store itself ([`FrameViewMut::write`]): the bit of the entry has gone.
    ///
    /// # Panics
    ///
    /// If the demand was made of another registration.
    pub fn exclude_with<'i, D: Context>(
        &self,
        cx: &mut Cx<'_, rank::Callback, D>,
        inv: Invalidation<'i>,
        f: impl FnOnce(&mut T, &Invalidated<'_>, Cx<'_, rank::Gate, C>),
    ) -> Ack<'i>
    where
        C: EnterFrom<D>,
    {
        self.seat.check_owner(&inv);
        let mut guard = self.lock(cx);
        let GateGuard {
            guarded, mem, cx, ..
        } = &mut guard;
        let mut gone = guarded.zap(inv.range());
        let zapped = Invalidated::new(inv.range(), gone.entries());
        f(&mut guarded.state, &zapped, cx.reborrow());
        // After the flush: what was written through a TLB until then is told as well.
        pass_on_dirty(mem, &gone);
        drop(guard);
        unpin_after_unlock(&self.seat, &mut gone);
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
        cx: AtomicCallbackCx<'_>,
        inv: Invalidation<'i>,
        f: impl FnOnce(&mut T, VpnRange),
    ) -> Result<Ack<'i>, WouldBlock> {
        self.seat.check_owner(&inv);
        let _unused = cx;
        let mut guarded = self.guarded.try_lock().ok_or(WouldBlock)?;
        let mut gone = guarded.zap(inv.range());
        f(&mut guarded.state, inv.range());
        pass_on_dirty(&self.seat.mem, &gone);
        drop(guarded);
        unpin_after_unlock(&self.seat, &mut gone);
        Ok(inv.ack())
    }
}

impl<S: ShadowStore, C: Context> Gate<S, (), C> {
    /// [`exclude`](Self::exclude) for a driver that has nothing but this store to bring up to date. A window over blocks of
    /// 2 MiB in which nothing was established since the store was last empty does not take the gate.
    ///
    /// # Panics
    ///
    /// If the demand was made of another registration.
    #[inline(always)]
    pub fn exclude_entries<'i, D: Context>(
        &self,
        cx: Cx<'_, rank::Callback, D>,
        inv: Invalidation<'i>,
    ) -> Ack<'i>
    where
        C: EnterFrom<D>,
    {
        let range = inv.range();
        // What comes to a range of its own is not settled at the board.
        if self.filter.may_hold(range) || self.seat.sub.is_some() {
            return self.exclude_held(cx, inv);
        }
        self.seat.check_owner(&inv);
        inv.ack()
    }
    #[inline(never)]
    fn exclude_held<'i, D: Context>(
        &self,
        mut cx: Cx<'_, rank::Callback, D>,
        inv: Invalidation<'i>,
    ) -> Ack<'i>
    where
        C: EnterFrom<D>,
    {
        self.seat.check_owner(&inv);
        let mut guard = self.lock(&mut cx);
        let mut gone = guard.guarded.zap(inv.range());
        if guard.guarded.is_empty() {
            self.filter.clear();
        }
        pass_on_dirty(guard.mem, &gone);
        drop(guard);
        unpin_after_unlock(&self.seat, &mut gone);
        inv.ack()
    }
}

/// What [`Gate::exclude_with`] dropped.
#[derive(Debug)]
pub struct Invalidated<'z> {
    range: VpnRange,
    gone: &'z [ShadowEntry],
}

impl<'z> Invalidated<'z> {
    pub(super) fn new(range: VpnRange, gone: &'z [ShadowEntry]) -> Self {
        Self { range, gone }
    }
    /// The range that was asked for.
    pub fn range(&self) -> VpnRange {
        self.range
    }
    /// The entries that went.
    pub fn entries(&self) -> &[ShadowEntry] {
        self.gone
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
