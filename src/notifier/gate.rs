//! The driver's lock with its shadow entries inside.
//!
//! Two invariants, both held by the one lock:
//!
//! 1. While a [`Permit`](super::Permit) lives, no overlapping window can *become* open, because
//!    that needs this gate's [`Ack`], which needs this lock. A window passes a gate without the
//!    lock only if the filter has none of its pages, and an admission notes its page there before
//!    it asks the board: so it finds such a window open.
//! 2. After [`Gate::exclude`] the store has no entry in the range, because the gate, not the
//!    driver, removes the entries. It holds the lock for all of a range
//!    (docs/adr/0013-a-zap-holds-the-gate-for-all-of-it.md).

use super::{
    cached::Cached,
    driver::{Ack, Invalidation},
    gate_filter::GateFilter,
    gate_guard::GateGuard,
    guarded_store::{GuardedStore, LeavingEntries},
    observer::AUDIT_TIMEOUT,
    removed::RemovedEntries,
    seat::Seat,
    shadow_entry::ShadowEntry,
    store::{NoState, ShadowStore},
    translation::Translation,
};
use crate::{
    addr::{Vpn, VpnRange},
    ctx::{Below, Context, Cx, EnterFrom, Outside, rank},
    frame::{FrameView, FrameViewMut},
    sync::{CachePadded, Mutex},
};
use std::marker::PhantomData;

/// A driver's lock around a store `S` and driver state `T`.
///
/// `C` is the context of its holders: [`Atomic`](crate::ctx::Atomic) for a driver that spins,
/// `Sleepable` for one that sleeps.
pub struct Gate<S: ShadowStore, T, C: Context> {
    pub(super) seat: Seat,
    pub(super) filter: GateFilter,
    /// On lines of its own: a window that passes the gate by reads the fields around it.
    pub(super) guarded: CachePadded<Mutex<GuardedStore<S, T>>>,
    kind: PhantomData<fn() -> C>,
}

impl<S: ShadowStore, T, C: Context> Gate<S, T, C> {
    /// Makes the gate of a registration.
    pub fn new(seat: Seat, store: S, state: T) -> Self {
        let guarded = CachePadded(Mutex::new(GuardedStore::new(&seat, store, state)));
        Self {
            seat,
            filter: GateFilter::default(),
            guarded,
            kind: PhantomData,
        }
    }

    /// Sleeps until no window overlaps `range`, for drivers that make their users wait rather than
    /// retry. The gate of a driver of a range waits until no window overlaps any page of that
    /// range.
    ///
    /// The types forbid the call from a window or a callback, which would wait for itself.
    pub fn wait_idle<R: Outside>(
        &self,
        cx: &mut Cx<'_, R, crate::ctx::Sleepable>,
        range: VpnRange,
    ) {
        let _unused = cx;
        self.seat.wait_idle(range);
    }

    /// Shows the translations in the store to an audit, which may hold any locks but this one.
    /// Returns false if the gate could not be locked within ten seconds.
    ///
    /// # Examples
    ///
    /// ```
    /// use emmu::{driver::*, mm::MmapArgs};
    /// use std::sync::Arc;
    /// # struct Device(Gate<OrderedStore<Vpn>, (), Atomic>);
    /// # impl SpinningMmu for Device {
    /// #     fn invalidate<'i>(&self, cx: AtomicCallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> {
    /// #         self.0.exclude_entries(cx, inv)
    /// #     }
    /// # }
    /// # let machine = emmu::Machine::new(Default::default());
    /// # let mut thread = machine.enter()?;
    /// # let mut cx = thread.cx();
    /// # let mm = emmu::Mm::new(&machine);
    /// # let new = |seat| Arc::new(Device(Gate::new(seat, OrderedStore::default(), ())));
    /// # let (device, _registration) = mm.register(&mut cx, new);
    ///
    /// let at = mm.mmap(&mut cx, &MmapArgs::anonymous(PAGE_SIZE))?;
    /// let page = Vpn::containing(at);
    /// let establish = |permit: Permit<'_, _, _, _>| drop(permit.establish(page));
    /// device.0.translate(&mut cx, &mm, page, Access::Read, establish)?;
    /// let mut pages = Vec::new();
    /// assert!(device.0.audit(&mut |translation| pages.push(translation.range())));
    /// assert_eq!(pages, [VpnRange::single(page)]);
    /// # mm.exit(&mut cx);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn audit(&self, visit: &mut dyn FnMut(Translation)) -> bool {
        self.audited(|store| store.for_each(&mut |e| visit(e.translation())))
    }
    /// Shows the translations of pages in `range` to an audit, as [`audit`](Self::audit) does.
    pub fn audit_in(&self, range: VpnRange, visit: &mut dyn FnMut(Translation)) -> bool {
        self.audited(|store| store.for_each_in(range, &mut |e| visit(e.translation())))
    }
    /// Runs `look` on the store for an audit. Returns false if the gate could not be locked within
    /// ten seconds.
    ///
    /// `look` runs with the gate locked, and no token says so: it must call neither this gate nor
    /// the address space, whose windows would wait for the gate.
    pub fn audited(&self, look: impl FnOnce(&S)) -> bool {
        self.audited_parts(|store, _| look(store))
    }
    /// Runs `look` on the store and the driver's state, as [`audit`](Self::audit) does: for a
    /// driver that keeps copies of translations in its state.
    pub fn audited_parts(&self, look: impl FnOnce(&S, &T)) -> bool {
        let guarded = self.guarded.0.try_lock_for(AUDIT_TIMEOUT);
        guarded
            .map(|guarded| look(&guarded.store, &guarded.state))
            .is_some()
    }
    /// Locks the gate.
    ///
    /// # Examples
    ///
    /// ```
    /// use emmu::{driver::*, mm::MmapArgs};
    /// use std::sync::Arc;
    /// # struct Device(Gate<OrderedStore<Vpn>, (), Atomic>);
    /// # impl SpinningMmu for Device {
    /// #     fn invalidate<'i>(&self, cx: AtomicCallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> {
    /// #         self.0.exclude_entries(cx, inv)
    /// #     }
    /// # }
    /// # let machine = emmu::Machine::new(Default::default());
    /// # let mut thread = machine.enter()?;
    /// # let mut cx = thread.cx();
    /// # let mm = emmu::Mm::new(&machine);
    /// # let new = |seat| Arc::new(Device(Gate::new(seat, OrderedStore::default(), ())));
    /// # let (device, _registration) = mm.register(&mut cx, new);
    ///
    /// let at = mm.mmap(&mut cx, &MmapArgs::anonymous(PAGE_SIZE))?;
    /// let page = Vpn::containing(at);
    /// let establish = |permit: Permit<'_, _, _, _>| drop(permit.establish(page));
    /// device.0.translate(&mut cx, &mm, page, Access::Read, establish)?;
    /// let mut guard = device.0.lock(&mut cx);
    /// assert_eq!(guard.lookup(&page).map(|frame| frame.read_u8(0)), Some(0));
    /// assert!(guard.lookup_mut(&page).is_none(), "translated for reading");
    /// guard.forget(&page);
    /// assert!(guard.lookup(&page).is_none());
    /// drop(guard);
    /// # mm.exit(&mut cx);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn lock<'p, R: Below<rank::Gate>, D: Context>(
        &'p self,
        cx: &'p mut Cx<'_, R, D>,
    ) -> GateGuard<'p, S, T, C>
    where
        C: EnterFrom<D>,
    {
        GateGuard::lock(&self.guarded.0, &self.seat, cx.descend())
    }

    /// Removes every entry in the range, runs `f` on the driver's state under the lock, and returns
    /// the proof. `f` gets the state and the range: a TLB in the state drops what overlaps it. A
    /// gate without state has [`exclude_entries`](Self::exclude_entries), which lets windows pass
    /// by that do not concern the driver.
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

    /// Removes every entry in the range, shows the removed entries to `f` under the lock, and
    /// returns the proof.
    ///
    /// A driver flushes its TLBs in `f`. The dirty and accessed bits of the entries reach their
    /// frames after `f`, so stores that went through a TLB until then are known. The references of
    /// the entries are given up after that, with the lock no longer held, so no frame goes while a
    /// TLB has it. A driver that flushes later, before it returns the [`Ack`], must itself report
    /// each store to the frame ([`FrameViewMut::write`]): the entry, and its bit, are gone.
    ///
    /// # Panics
    ///
    /// If the demand was made of another registration.
    ///
    /// # Examples
    ///
    /// ```
    /// use emmu::{driver::*, mm::{Advice, MmapArgs}};
    /// use std::sync::Arc;
    ///
    /// /// A device with a TLB of one entry, which lies under the gate.
    /// struct Device(Gate<OrderedStore<Vpn>, Option<Cached>, Atomic>);
    ///
    /// impl SpinningMmu for Device {
    ///     fn invalidate<'i>(
    ///         &self,
    ///         mut cx: AtomicCallbackCx<'_>,
    ///         inv: Invalidation<'i>,
    ///     ) -> Ack<'i> {
    ///         self.0.exclude_with(&mut cx, inv, |tlb, gone, _| {
    ///             if !gone.entries().is_empty() {
    ///                 *tlb = None;
    ///             }
    ///         })
    ///     }
    /// }
    /// # let machine = emmu::Machine::new(Default::default());
    /// # let mut thread = machine.enter()?;
    /// # let mut cx = thread.cx();
    /// # let mm = emmu::Mm::new(&machine);
    ///
    /// let new = |seat| Arc::new(Device(Gate::new(seat, OrderedStore::default(), None)));
    /// let (device, registration) = mm.register(&mut cx, new);
    /// let at = mm.mmap(&mut cx, &MmapArgs::anonymous(PAGE_SIZE))?;
    /// let page = Vpn::containing(at);
    /// device.0.translate(&mut cx, &mm, page, Access::Read, |mut permit| {
    ///     let cached = permit.cached();
    ///     *permit.state() = Some(cached);
    ///     drop(permit.establish(page));
    /// })?;
    /// mm.madvise(&mut cx, at, PAGE_SIZE, Advice::DontNeed)?;
    /// assert!(device.0.lock(&mut cx).state().is_none(), "flushed in the window");
    /// mm.unregister(&mut cx, registration);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn exclude_with<'i, D: Context>(
        &self,
        cx: &mut Cx<'_, rank::Callback, D>,
        inv: Invalidation<'i>,
        f: impl FnOnce(&mut T, &Invalidated<'_>, Cx<'_, rank::Gate, C>),
    ) -> Ack<'i>
    where
        C: EnterFrom<D>,
    {
        self.exclude_by(cx, inv, GuardedStore::zap_into, f)
    }
    /// Has `zap` remove entries of the range, and runs `f` as [`exclude_with`](Self::exclude_with)
    /// does.
    #[inline]
    pub(super) fn exclude_by<'i, D: Context>(
        &self,
        cx: &mut Cx<'_, rank::Callback, D>,
        inv: Invalidation<'i>,
        zap: impl FnOnce(&mut GuardedStore<S, T>, VpnRange, &mut RemovedEntries),
        f: impl FnOnce(&mut T, &Invalidated<'_>, Cx<'_, rank::Gate, C>),
    ) -> Ack<'i>
    where
        C: EnterFrom<D>,
    {
        self.seat.check_owner(&inv);
        let mut leaving = LeavingEntries::new(&self.seat);
        let mut guard = self.lock(cx);
        let GateGuard { guarded, cx, .. } = &mut guard;
        zap(guarded, inv.range(), &mut leaving.gone);
        let zapped = Invalidated::new(inv.range(), leaving.gone.entries());
        f(&mut guarded.state, &zapped, cx.reborrow());
        leaving.flushed(&guard.guarded.store);
        drop(guard);
        leaving.put_after_unlock();
        inv.ack()
    }
}

impl<S: ShadowStore, T, C: Context> Gate<S, T, C> {
    /// Removes every entry in the range, for a driver that has no state beside this store.
    ///
    /// A window over 2-MiB blocks in which no entry was made since the store was last empty does
    /// not lock the gate (docs/adr/0021-windows-skip-what-they-do-not-concern.md).
    ///
    /// # Panics
    ///
    /// If the demand was made of another registration.
    ///
    /// A gate with a state does not do: [`exclude`](Self::exclude) runs a closure for it.
    ///
    /// ```compile_fail,E0277
    /// use emmu::driver::*;
    ///
    /// /// A device with a TLB under its gate.
    /// struct Device(Gate<NoStore, Vec<Cached>, Atomic>);
    ///
    /// impl SpinningMmu for Device {
    ///     fn invalidate<'i>(&self, cx: AtomicCallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> {
    ///         self.0.exclude_entries(cx, inv) // and the TLB?
    ///     }
    /// }
    /// ```
    #[inline(always)]
    pub fn exclude_entries<'i, D: Context>(
        &self,
        cx: Cx<'_, rank::Callback, D>,
        inv: Invalidation<'i>,
    ) -> Ack<'i>
    where
        C: EnterFrom<D>,
        T: NoState,
    {
        // Tickets of a driver of a range are not checked at the board, so the filter says nothing
        // of them.
        if self.filter.may_hold(inv.terms()) || self.seat.sub.is_some() {
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
        let mut leaving = LeavingEntries::new(&self.seat);
        let mut guard = self.lock(&mut cx);
        guard.guarded.zap_into(inv.range(), &mut leaving.gone);
        if guard.guarded.is_empty() {
            self.filter.clear();
        }
        leaving.flushed(&guard.guarded.store);
        drop(guard);
        leaving.put_after_unlock();
        inv.ack()
    }
}

/// The entries that [`Gate::exclude_with`] removed.
#[derive(Debug)]
pub struct Invalidated<'z> {
    range: VpnRange,
    gone: &'z [ShadowEntry],
}

impl<'z> Invalidated<'z> {
    pub(super) fn new(range: VpnRange, gone: &'z [ShadowEntry]) -> Self {
        Self { range, gone }
    }
    /// Returns the range of the demand.
    pub fn range(&self) -> VpnRange {
        self.range
    }
    /// Returns the removed entries. A gate with a [`NoStore`](super::NoStore) has none, whatever
    /// its state holds: there the [range](Self::range) tells.
    pub fn entries(&self) -> &[ShadowEntry] {
        self.gone
    }
}

impl<S: ShadowStore, T, C: Context> Gate<S, T, C> {
    /// Follows a cached translation for reading. Returns `None` if it does not translate `at`, or
    /// belongs to another registration.
    ///
    /// The caller holds the lock under which its invalidation drops the translation, from the
    /// moment at which it found the translation to the end of the access. If that lock is the gate,
    /// use [`GateGuard::follow`](super::GateGuard::follow), whose view ends with the guard.
    #[inline(always)]
    pub fn follow(&self, cached: &Cached, at: Vpn) -> Option<FrameView<'_>> {
        self.seat.follow(cached, at)
    }
    /// Follows a cached translation for writing, under the lock that [`follow`](Self::follow) asks
    /// for. Returns `None` if it does not translate `at`, does not allow writing, or belongs to
    /// another registration.
    #[inline(always)]
    pub fn follow_mut(&self, cached: &Cached, at: Vpn) -> Option<FrameViewMut<'_>> {
        self.seat.follow_mut(cached, at)
    }
}
