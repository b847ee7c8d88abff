//! Several gates of one registration, each for a part of the pages, for drivers whose users seldom
//! meet.
//!
//! A page belongs to one gate by its 2-MiB block, so a huge page lies in one gate. Both invariants
//! of a [`Gate`](super::Gate) hold for each gate: a [`Permit`](super::Permit) holds the gate of its
//! pages, and a window passes every gate that has a page of it, one after the other, before there
//! is an [`Ack`].

use super::{
    blocks::{block_of, blocks_of, hash_of, indices},
    cached::{Cached, Nth},
    driver::{Ack, Invalidation},
    gate::Invalidated,
    gate_guard::GateGuard,
    guarded_store::{GuardedStore, LeavingEntries},
    observer::AUDIT_TIMEOUT,
    outcome::Access,
    seat::Seat,
    store::ShadowStore,
    ticket::{Admits, Seated, Ticket},
};
use crate::{
    addr::{Vpn, VpnRange},
    ctx::{Below, Context, Cx, EnterFrom, rank},
    frame::{FrameView, FrameViewMut},
    sync::{CachePadded, Mutex},
};
use std::marker::PhantomData;

/// The number of gates, a power of two. A model checker has enough with fewer.
const GATES: usize = if cfg!(loom) { 2 } else { 16 };

/// A driver's locks, each around a store `S` and driver state `T`; `C` is the context of their
/// holders, as for a [`Gate`](super::Gate).
pub struct Gates<S: ShadowStore, T, C: Context> {
    seat: Seat,
    gates: Box<[GateLock<S, T>]>,
    kind: PhantomData<fn() -> C>,
}

type GateLock<S, T> = CachePadded<Mutex<GuardedStore<S, T>>>;

impl<S: ShadowStore, T, C: Context> Seated for Gates<S, T, C> {
    fn seat(&self) -> &Seat {
        &self.seat
    }
}

impl<S: ShadowStore, T, C: Context> Admits for Gates<S, T, C> {
    type Store = S;
    type State = T;
    type Context = C;

    fn lock_for<'p, R: Below<rank::Gate>, D: Context>(
        &'p self,
        cx: &'p mut Cx<'_, R, D>,
        range: VpnRange,
    ) -> GateGuard<'p, S, T, C>
    where
        C: EnterFrom<D>,
    {
        self.lock(cx, range.start())
    }
}

/// Returns the gates that have pages of a range, one bit each.
fn gates_of(range: VpnRange) -> u64 {
    let (first, last) = blocks_of(range);
    let all = u64::MAX >> (64 - GATES);
    if last - first >= 4 * GATES as u64 {
        return all;
    }
    (first..=last).fold(0, |bits, block| bits | 1 << gate_of(block))
}

/// Returns the index of the gate of a block.
fn gate_of(block: u64) -> usize {
    hash_of(block) % GATES
}

impl<S: ShadowStore, T, C: Context> Gates<S, T, C> {
    /// Makes the gates of a registration. `build` makes store and state of each.
    pub fn new(seat: Seat, mut build: impl FnMut() -> (S, T)) -> Self {
        let gate = |_| {
            let (store, state) = build();
            CachePadded(Mutex::new(GuardedStore::new(&seat, store, state)))
        };
        let gates = (0..GATES).map(gate).collect();
        Self {
            seat,
            gates,
            kind: PhantomData,
        }
    }
    /// Returns the number of gates.
    pub fn count(&self) -> usize {
        self.gates.len()
    }
    /// Returns the index of the gate that a page belongs to.
    pub fn place_of(&self, at: Vpn) -> usize {
        gate_of(block_of(at))
    }
    /// Draws a ticket for one page, before anything about the page is looked up.
    pub fn ticket(&self, vpn: Vpn, access: Access) -> Ticket<'_, Self> {
        Ticket::draw(self, self.seat.snapshot(vpn.into()), vpn, access)
    }
    /// Locks the gate of a page.
    pub fn lock<'p, R: Below<rank::Gate>, D: Context>(
        &'p self,
        cx: &'p mut Cx<'_, R, D>,
        at: Vpn,
    ) -> GateGuard<'p, S, T, C>
    where
        C: EnterFrom<D>,
    {
        self.lock_nth(cx, self.place_of(at))
    }
    fn lock_nth<'p, R: Below<rank::Gate>, D: Context>(
        &'p self,
        cx: &'p mut Cx<'_, R, D>,
        nth: usize,
    ) -> GateGuard<'p, S, T, C>
    where
        C: EnterFrom<D>,
    {
        GateGuard::lock(&self.gates[nth].0, &self.seat, cx.descend())
    }
    /// Locks each gate that has pages of `range`, one after the other, and calls `f` with its index
    /// and its guard.
    pub fn each<R: Below<rank::Gate>, D: Context>(
        &self,
        cx: &mut Cx<'_, R, D>,
        range: VpnRange,
        mut f: impl FnMut(usize, &mut GateGuard<'_, S, T, C>),
    ) where
        C: EnterFrom<D>,
    {
        for nth in indices(gates_of(range)) {
            f(nth, &mut self.lock_nth(cx, nth));
        }
    }
    /// Removes every entry in the range, gate by gate, and returns the proof.
    ///
    /// `f` gets the index of the gate, its store without the entries, its state, and the removed
    /// entries. See [`Gate::exclude_with`](super::Gate::exclude_with) for the order of its effects.
    ///
    /// # Panics
    ///
    /// If the demand was made of another registration.
    pub fn exclude_with<'i, D: Context>(
        &self,
        cx: &mut Cx<'_, rank::Callback, D>,
        inv: Invalidation<'i>,
        mut f: impl FnMut(usize, &S, &mut T, &Invalidated<'_>),
    ) -> Ack<'i>
    where
        C: EnterFrom<D>,
    {
        self.seat.check_owner(&inv);
        let range = inv.range();
        // One buffer for all gates: a large one is memory that the allocator gets from the kernel.
        let mut leaving = LeavingEntries::new(&self.seat);
        for nth in indices(gates_of(range)) {
            let mut guard = self.lock_nth(cx, nth);
            guard.guarded.zap_into(range, &mut leaving.gone);
            let GuardedStore { store, state, .. } = &mut *guard.guarded;
            let zapped = Invalidated::new(range, leaving.gone.entries());
            f(nth, store, state, &zapped);
            leaving.flushed(&guard.guarded.store);
            drop(guard);
            leaving.put_after_unlock();
        }
        inv.ack()
    }
    /// Runs `look` on each store that has pages of `range`, for an audit. Returns false if a gate
    /// could not be locked within ten seconds.
    ///
    /// For `look` the rule of [`Gate::audited`](super::Gate::audited) holds.
    pub fn audited(&self, range: VpnRange, mut look: impl FnMut(&S)) -> bool {
        indices(gates_of(range)).fold(true, |all, nth| {
            let guarded = self.gates[nth].0.try_lock_for(AUDIT_TIMEOUT);
            all & guarded.map(|guarded| look(&guarded.store)).is_some()
        })
    }
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
    /// Follows a cached translation of a page by its index, as [`follow`](Self::follow) does.
    #[inline(always)]
    pub(crate) fn follow_nth(&self, cached: &Cached, nth: Nth) -> Option<FrameView<'_>> {
        self.seat.follow_nth(cached, nth)
    }
    /// Follows a cached translation of a page by its index, as [`follow_mut`](Self::follow_mut)
    /// does.
    #[inline(always)]
    pub(crate) fn follow_nth_mut(&self, cached: &Cached, nth: Nth) -> Option<FrameViewMut<'_>> {
        self.seat.follow_nth_mut(cached, nth)
    }
    /// Follows a cached translation for writing, under the lock that [`follow`](Self::follow) asks
    /// for. Returns `None` if it does not translate `at`, does not allow writing, or belongs to
    /// another registration.
    #[inline(always)]
    pub fn follow_mut(&self, cached: &Cached, at: Vpn) -> Option<FrameViewMut<'_>> {
        self.seat.follow_mut(cached, at)
    }
}

#[cfg(test)]
mod tests {
    use super::{GATES, gate_of, gates_of, indices};
    use crate::addr::{PMD_PAGES, Vpn, VpnRange};

    #[test]
    fn a_range_has_the_gates_of_its_blocks() {
        let range = |first: u64, end: u64| VpnRange::new(Vpn(first), Vpn(end)).unwrap();
        let block = range(3 * PMD_PAGES, 4 * PMD_PAGES);
        assert_eq!(gates_of(block), 1 << gate_of(3));
        assert_eq!(gates_of(range(PMD_PAGES - 1, PMD_PAGES)), 1 << gate_of(0));
        let two = gates_of(range(PMD_PAGES - 1, PMD_PAGES + 1));
        assert_eq!(two, 1 << gate_of(0) | 1 << gate_of(1));
        let all: Vec<usize> = (0..GATES).collect();
        for wide in [VpnRange::ALL, range(1, PMD_PAGES * 4 * GATES as u64 + 1)] {
            assert_eq!(indices(gates_of(wide)).collect::<Vec<_>>(), all);
        }
    }
}
