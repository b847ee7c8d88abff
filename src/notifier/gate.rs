//! The driver's lock with its shadow entries inside.
//!
//! Invariants, both held by the one lock:
//!
//! 1. while a [`Permit`](super::Permit) lives, no overlapping window can *become* open, because opening needs this
//!    gate's [`Ack`], which needs this lock;
//! 2. after [`Gate::exclude`] the store has no entry in the range, because the gate, not the driver, has it removed.

use super::{
    cached::{Cached, Translation},
    gone::RemovedEntries,
    inner::{Inner, give_up, pass_on_dirty},
    ops::{Ack, Invalidation, WouldBlock},
    owed::Owed,
    permit::{Access, Ticket},
    places::GateFilter,
    seat::Seat,
    store::{Rearrange, ShadowEntry, ShadowStore},
};
use crate::ctx::AtomicCallbackCx;

use crate::{
    addr::{Vpn, VpnRange},
    ctx::{Below, Context, Cx, EnterFrom, Outside, rank},
    frame::{FrameView, FrameViewMut, PhysMem},
    sync::{Mutex, MutexGuard},
};
use std::{marker::PhantomData, time::Duration};

/// What an audit waits for a gate. Whoever holds one lets it go soon, however busy the machine is; longer waits somebody who
/// waits for the auditor.
pub(super) const AUDITED_WITHIN: Duration = Duration::from_secs(10);

/// Driver lock around a store `S` and driver state `T`. `C` is the context its holders run in: [`Atomic`](crate::ctx::Atomic) for a
/// driver that spins, `Sleepable` for one that waits.
pub struct Gate<S: ShadowStore, T, C: Context> {
    pub(super) seat: Seat,
    pub(super) places: GateFilter,
    inner: Mutex<Inner<S, T>>,
    kind: PhantomData<fn() -> C>,
}

/// The gate is held.
#[must_use = "the gate is held only while this lives"]
pub struct GateGuard<'p, S: ShadowStore, T, C: Context> {
    pub(super) inner: MutexGuard<'p, Inner<S, T>>,
    /// Behind the lock: it is let go first.
    owed: Owed<'p>,
    pub(super) mem: &'p PhysMem,
    cx: Cx<'p, rank::Gate, C>,
}

impl<S: ShadowStore, T, C: Context> Gate<S, T, C> {
    /// Builds the gate of a registration.
    pub fn new(seat: Seat, store: S, state: T) -> Self {
        let inner = Mutex::new(Inner::new(&seat, store, state));
        Self {
            seat,
            places: GateFilter::default(),
            inner,
            kind: PhantomData,
        }
    }

    /// Draws a ticket for one page, before anything about the page is looked up.
    pub fn ticket(&self, vpn: Vpn, access: Access) -> Ticket<'_, Self> {
        Ticket::draw(self, self.seat.stamp(vpn), vpn, access)
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
        self.audited_parts(|store, _| look(store))
    }
    /// Runs `look` on the store and the driver's state, as [`audit`](Self::audit) does: for a driver
    /// that keeps copies of translations in its state.
    pub fn audited_parts(&self, look: impl FnOnce(&S, &T)) -> bool {
        let inner = self.inner.try_lock_for(AUDITED_WITHIN);
        inner
            .map(|inner| look(&inner.store, &inner.state))
            .is_some()
    }
    /// Locks the gate.
    pub fn lock<'p, R: Below<rank::Gate>, D: Context>(
        &'p self,
        cx: &'p mut Cx<'_, R, D>,
    ) -> GateGuard<'p, S, T, C>
    where
        C: EnterFrom<D>,
    {
        GateGuard::new(self.inner.lock(), &self.seat, cx.descend())
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
        self.places.note(range);
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
        let GateGuard { inner, mem, cx, .. } = &mut guard;
        let mut gone = inner.zap(inv.range());
        let zapped = Invalidated::new(inv.range(), gone.entries());
        f(&mut inner.state, &zapped, cx.reborrow());
        // After the flush: what was written through a TLB until then is told as well.
        pass_on_dirty(mem, &gone);
        drop(guard);
        give_up(&self.seat, &mut gone);
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
        let mut inner = self.inner.try_lock().ok_or(WouldBlock)?;
        let mut gone = inner.zap(inv.range());
        f(&mut inner.state, inv.range());
        pass_on_dirty(&self.seat.mem, &gone);
        drop(inner);
        give_up(&self.seat, &mut gone);
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
        if self.places.may_hold(range) || self.seat.sub.is_some() {
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
        let mut gone = guard.inner.zap(inv.range());
        if guard.inner.is_empty() {
            self.places.clear();
        }
        pass_on_dirty(guard.mem, &gone);
        drop(guard);
        give_up(&self.seat, &mut gone);
        inv.ack()
    }
}

impl Seat {
    /// Run-time check: drivers are long-lived objects behind `dyn`, so no brand can say whose gate this is.
    #[inline]
    pub(super) fn check_owner(&self, inv: &Invalidation<'_>) {
        let range = inv.range();
        assert_eq!(
            self.reg,
            inv.reg(),
            "gate of another registration: it does not answer for {range}"
        );
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

impl<'p, S: ShadowStore, T, C: Context> GateGuard<'p, S, T, C> {
    pub(super) fn new(
        inner: MutexGuard<'p, Inner<S, T>>,
        seat: &'p Seat,
        cx: Cx<'p, rank::Gate, C>,
    ) -> Self {
        Self {
            inner,
            owed: Owed::new(seat),
            mem: &seat.mem,
            cx,
        }
    }
    /// Driver state.
    pub fn state(&mut self) -> &mut T {
        &mut self.inner.state
    }
    /// The store, to look at.
    pub fn store(&self) -> &S {
        &self.inner.store
    }
    /// Store and state at once.
    pub fn parts(&mut self) -> (&S, &mut T) {
        let inner = &mut *self.inner;
        (&inner.store, &mut inner.state)
    }
    /// Has the store rearranged in a way of its own. Cached copies of what had to go for it must be flushed by `flush`, before
    /// the references that went with the entries are given up.
    pub fn rearrange(&mut self, how: S::How, flush: impl FnOnce(&mut T))
    where
        S: Rearrange,
    {
        let gone = self.inner.rearrange(how);
        flush(&mut self.inner.state);
        self.discard(gone);
    }
    /// Follows an established translation; of a huge page, its first frame.
    pub fn lookup(&self, key: &S::Key) -> Option<FrameView<'_>> {
        let t = self.inner.get(key)?.translation();
        Some(self.mem.view(t.pfn(), t.generation()))
    }
    /// Follows one that was established for writing.
    pub fn lookup_mut(&mut self, key: &S::Key) -> Option<FrameViewMut<'_>> {
        let entry = self.inner.get(key).filter(|e| e.is_writable())?;
        let t = entry.translation();
        Some(self.mem.view_mut(t.pfn(), t.generation()))
    }
    /// Copies a translation for a TLB, which must be filled while the gate is held, or by hardware that ignores what
    /// comes too late.
    pub fn cached(&self, key: &S::Key) -> Option<Cached> {
        Some(Cached(self.inner.get(key)?.translation()))
    }
    /// The same if `want` says so, which may set the entry's marks.
    pub fn cached_if(
        &self,
        key: &S::Key,
        want: impl FnOnce(&ShadowEntry) -> bool,
    ) -> Option<Cached> {
        let entry = self.inner.get(key).filter(|e| want(e))?;
        Some(Cached(entry.translation()))
    }
    /// Gives up a translation. Cached copies must be flushed before this gate is let go: then the references of what was given
    /// up go.
    pub fn forget(&mut self, key: &S::Key) {
        let gone = self.inner.remove(key);
        self.discard(gone);
    }
    /// Gives up the translations of a range, which nobody asked for; whether there were any. Cached copies must be
    /// flushed by `flush`: the references that went with them go when this gate is let go.
    pub fn forget_range(&mut self, range: VpnRange, flush: impl FnOnce(&mut T)) -> bool {
        let gone = self.inner.zap(range);
        let any = !gone.is_empty();
        flush(&mut self.inner.state);
        self.discard(gone);
        any
    }
    /// Passes on the dirty bits of entries that left the store. Their references go when this gate is let go.
    pub(super) fn discard(&mut self, mut gone: RemovedEntries) {
        pass_on_dirty(self.mem, &gone);
        let store = &self.inner.store;
        self.owed.take(&mut gone, |t| {
            let mut held = false;
            store.for_each_in(t.range(), &mut |e| {
                held |= e.is_pinned() && e.pfn() == t.pfn()
            });
            held
        });
    }
    /// Token usable while the gate is held.
    pub fn cx(&mut self) -> Cx<'_, rank::Gate, C> {
        self.cx.reborrow()
    }
}

impl<S: ShadowStore, T, C: Context> Drop for GateGuard<'_, S, T, C> {
    #[inline]
    fn drop(&mut self) {
        self.owed.close();
    }
}
