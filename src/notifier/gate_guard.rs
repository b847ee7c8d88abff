//! The guard of a locked gate: all that a driver may do with its store and its state.

#[cfg(feature = "testkit")]
use super::test_hook::Moment;
use super::{
    cached::Cached,
    deferred_put::DeferredPuts,
    guarded_store::{GuardedStore, pass_on_dirty},
    removed::RemovedEntries,
    seat::Seat,
    shadow_entry::ShadowEntry,
    store::{Rearrange, ShadowStore},
    translation::Translation,
};
use crate::{
    addr::{Vpn, VpnRange},
    ctx::{Context, Cx, rank},
    frame::{AccessBits, FrameView, FrameViewMut},
    sync::{Mutex, MutexGuard},
};

/// A locked gate.
///
/// Each look at an entry ends before the gate is unlocked, and a window locks the gate first. So no
/// translation outlives the beginning of a window over it:
///
/// ```
/// use emmu::driver::*;
///
/// fn first_byte(gate: GateGuard<'_, OrderedStore<Vpn>, (), Atomic>) -> Option<u8> {
///     Some(gate.lookup(&Vpn(16))?.read_u8(0))
/// }
/// ```
///
/// A view that is kept does not compile:
///
/// ```compile_fail,E0505
/// use emmu::driver::*;
///
/// fn first_byte(gate: GateGuard<'_, OrderedStore<Vpn>, (), Atomic>) -> Option<u8> {
///     let frame = gate.lookup(&Vpn(16))?;
///     drop(gate); // a window may begin here
///     Some(frame.read_u8(0))
/// }
/// ```
#[must_use = "the gate is held only while this lives"]
pub struct GateGuard<'p, S: ShadowStore, T, C: Context> {
    pub(super) guarded: MutexGuard<'p, GuardedStore<S, T>>,
    /// Dropped after the lock, so that references are given up with the gate unlocked.
    deferred: DeferredPuts<'p>,
    #[cfg(feature = "testkit")]
    _unlocked: Unlocked<'p>,
    seat: &'p Seat,
    pub(super) cx: Cx<'p, rank::Gate, C>,
}

/// Calls the hook of tests when it is dropped, after the lock.
#[cfg(feature = "testkit")]
struct Unlocked<'p>(&'p Seat);

#[cfg(feature = "testkit")]
impl Drop for Unlocked<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.0.reached(Moment::Unlocked);
        }
    }
}

impl<'p, S: ShadowStore, T, C: Context> GateGuard<'p, S, T, C> {
    /// Locks a gate.
    pub(super) fn lock(
        gate: &'p Mutex<GuardedStore<S, T>>,
        seat: &'p Seat,
        cx: Cx<'p, rank::Gate, C>,
    ) -> Self {
        #[cfg(feature = "testkit")]
        seat.reached(Moment::Locking);
        let mut guarded = gate.lock();
        guarded.locked();
        Self {
            guarded,
            deferred: DeferredPuts::new(seat),
            #[cfg(feature = "testkit")]
            _unlocked: Unlocked(seat),
            seat,
            cx,
        }
    }
    /// Returns the driver's state.
    pub fn state(&mut self) -> &mut T {
        &mut self.guarded.state
    }
    /// Returns the store, for reading.
    pub fn store(&self) -> &S {
        &self.guarded.store
    }
    /// Returns the store, for reading, and the driver's state.
    pub fn parts(&mut self) -> (&S, &mut T) {
        let guarded = &mut *self.guarded;
        (&guarded.store, &mut guarded.state)
    }
    /// Lets the store rearrange itself (see [`Rearrange`]).
    ///
    /// `flush` must flush the cached copies of the entries that go, before the references of these
    /// are given up.
    pub fn rearrange(&mut self, how: S::How, flush: impl FnOnce(&mut T))
    where
        S: Rearrange,
    {
        let mut leaving = Discarding::from(self);
        let Discarding { guard, gone } = &mut leaving;
        guard.guarded.rearrange(how, gone);
        flush(&mut guard.guarded.state);
    }
    /// Follows the translation under `key` for reading: the first frame, if the page is huge.
    pub fn lookup(&self, key: &S::Key) -> Option<FrameView<'_>> {
        let t = self.guarded.get(key)?.translation();
        Some(self.seat.mem.view(t.pfn(), t.generation()))
    }
    /// Follows the translation under `key` for writing: the first frame, if the page is huge.
    /// Returns `None` if the translation does not allow writing.
    pub fn lookup_mut(&mut self, key: &S::Key) -> Option<FrameViewMut<'_>> {
        let entry = self.guarded.get(key).filter(|e| e.is_writable())?;
        let t = entry.translation();
        Some(self.seat.mem.view_mut(t.pfn(), t.generation()))
    }
    /// Follows a cached translation for reading: the form for translations that lie in the state of
    /// this gate, since no window takes one while the view lives. Returns `None` if it does not
    /// translate `at`, or belongs to another registration.
    ///
    /// # Examples
    ///
    /// A device with a TLB of one entry, which lies under the gate:
    ///
    /// ```
    /// use emmu::driver::*;
    ///
    /// type Tlb = GateGuard<'static, NoStore, Option<Cached>, Atomic>;
    ///
    /// fn first_byte(gate: &mut Tlb, at: Vpn) -> Option<u8> {
    ///     let cached = (*gate.state())?;
    ///     Some(gate.follow(&cached, at)?.read_u8(0))
    /// }
    /// ```
    ///
    /// A view that is kept does not compile:
    ///
    /// ```compile_fail,E0505
    /// use emmu::driver::*;
    ///
    /// type Tlb = GateGuard<'static, NoStore, Option<Cached>, Atomic>;
    ///
    /// fn first_byte(mut gate: Tlb, at: Vpn) -> Option<u8> {
    ///     let cached = (*gate.state())?;
    ///     let frame = gate.follow(&cached, at)?;
    ///     drop(gate); // a window may begin here
    ///     Some(frame.read_u8(0))
    /// }
    /// ```
    #[inline(always)]
    pub fn follow(&self, cached: &Cached, at: Vpn) -> Option<FrameView<'_>> {
        self.seat.follow(cached, at)
    }
    /// Follows a cached translation for writing, as [`follow`](Self::follow) does for reading.
    /// Returns `None` also if the translation does not allow writing.
    #[inline(always)]
    pub fn follow_mut(&mut self, cached: &Cached, at: Vpn) -> Option<FrameViewMut<'_>> {
        self.seat.follow_mut(cached, at)
    }
    /// Copies the translation under `key` for a TLB.
    ///
    /// The TLB must be filled while the gate is held, or by hardware that ignores a translation
    /// which comes too late.
    pub fn cached(&self, key: &S::Key) -> Option<Cached> {
        Some(self.seat.cache(self.guarded.get(key)?.translation()))
    }
    /// Copies the translation under `key` for a TLB if `want` returns true for the entry. `want`
    /// may set the accessed and dirty bits of the entry. See [`cached`](Self::cached).
    pub fn cached_if(
        &self,
        key: &S::Key,
        want: impl FnOnce(&ShadowEntry) -> bool,
    ) -> Option<Cached> {
        let entry = self.guarded.get(key).filter(|e| want(e))?;
        Some(self.seat.cache(entry.translation()))
    }
    /// Removes the entry under `key`. Cached copies must be flushed before this gate is unlocked,
    /// which gives up the reference of the entry.
    pub fn forget(&mut self, key: &S::Key) {
        let gone = self.guarded.remove(key);
        self.discard(gone);
    }
    /// Removes the entries of a range at the driver's own wish. Returns true if there were any.
    ///
    /// `flush` must flush the cached copies of the entries. Unlocking this gate gives up their
    /// references.
    pub fn forget_range(&mut self, range: VpnRange, flush: impl FnOnce(&mut T)) -> bool {
        let mut leaving = Discarding::from(self);
        let Discarding { guard, gone } = &mut leaving;
        guard.guarded.zap_into(range, gone);
        let any = !gone.is_empty();
        flush(&mut guard.guarded.state);
        any
    }
    /// Puts a translation into the store under `key`, if `held` with a reference on each frame, and
    /// with its accessed and dirty bits as `used` says. The caller has checked its ticket under
    /// this guard.
    pub(super) fn enter(
        &mut self,
        found: Translation,
        key: S::Key,
        (held, used): (bool, AccessBits),
    ) {
        self.seat.established(&found);
        // The zero page has no reference count.
        let held = held && !found.pfn.is_zero();
        if held {
            for pfn in found.frames() {
                let _kept_by_the_entry = self.seat.mem.get(pfn).into_raw();
            }
        }
        let gone = self
            .guarded
            .insert(key, ShadowEntry::new(found, held, used));
        self.discard(gone);
    }
    /// Reports the dirty bits of removed entries. Unlocking this gate gives up their references.
    #[inline]
    pub(super) fn discard(&mut self, mut gone: RemovedEntries) {
        if gone.is_empty() {
            return;
        }
        pass_on_dirty(self.seat, &gone);
        self.deferred.take(&mut gone, &self.guarded.store);
    }
    /// Returns the token for calls that are made while the gate is held.
    pub fn cx(&mut self) -> Cx<'_, rank::Gate, C> {
        self.cx.reborrow()
    }
}

/// Entries that the driver itself removes. They are discarded when this is dropped, after the
/// flush, also if the store or the flush panics.
struct Discarding<'g, 'p, S: ShadowStore, T, C: Context> {
    guard: &'g mut GateGuard<'p, S, T, C>,
    gone: RemovedEntries,
}

impl<'g, 'p, S: ShadowStore, T, C: Context> Discarding<'g, 'p, S, T, C> {
    fn from(guard: &'g mut GateGuard<'p, S, T, C>) -> Self {
        let gone = RemovedEntries::new();
        Self { guard, gone }
    }
}

impl<S: ShadowStore, T, C: Context> Drop for Discarding<'_, '_, S, T, C> {
    fn drop(&mut self) {
        self.guard.discard(std::mem::take(&mut self.gone));
    }
}

impl<S: ShadowStore, T, C: Context> Drop for GateGuard<'_, S, T, C> {
    #[inline]
    fn drop(&mut self) {
        self.deferred.close();
    }
}
