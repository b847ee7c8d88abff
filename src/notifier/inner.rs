//! What is behind a gate: the store, the driver's state, and an account of the entries.
//!
//! Guarantee: what the gate gives of its store is an entry that a permit of this registration put there, and what leaves the
//! store comes back here, once. The store is the driver's, so the account is kept beside it, and finds one that says otherwise.

use super::{
    entry::{Brand, RegistrationPhase},
    gone::RemovedEntries,
    seat::Seat,
    store::{Rearrange, ShadowEntry, ShadowStore},
};
use crate::{
    addr::VpnRange,
    frame::{AccessBits, PhysMem},
};
use std::{ptr, sync::Arc};

pub(super) struct Inner<S: ShadowStore, T> {
    pub(super) store: S,
    pub(super) state: T,
    /// Entries that went in and have not come back. None of a store that has been found to lie: that is said once, and the
    /// driver can still be taken off.
    entries: Option<usize>,
    brand: Brand,
    mem: Arc<PhysMem>,
    standing: Arc<RegistrationPhase>,
}

impl<S: ShadowStore, T> Inner<S, T> {
    pub(super) fn new(seat: &Seat, store: S, state: T) -> Self {
        seat.standing.gate_made();
        Self {
            store,
            state,
            entries: Some(0),
            brand: seat.brand,
            mem: Arc::clone(&seat.mem),
            standing: Arc::clone(&seat.standing),
        }
    }
    /// Whether no entry is in the store.
    pub(super) fn is_empty(&self) -> bool {
        self.entries == Some(0)
    }
    /// The entry under a key.
    #[inline]
    pub(super) fn get(&self, key: &S::Key) -> Option<&ShadowEntry> {
        let entry = self.store.get(key)?;
        if entry.brand() != self.brand {
            of_another(entry);
        }
        debug_assert!(
            self.shows(entry),
            "the store hides {entry:?}, which it gives for a key"
        );
        Some(entry)
    }
    /// Whether an audit would see this very entry.
    fn shows(&self, entry: &ShadowEntry) -> bool {
        let mut shown = false;
        self.store
            .for_each_in(entry.range(), &mut |e| shown |= ptr::eq(e, entry));
        shown
    }
    /// Returns what had to go.
    pub(super) fn insert(&mut self, key: S::Key, entry: ShadowEntry) -> RemovedEntries {
        let gone = self.store.insert(key, entry);
        self.entries = self.entries.map(|n| n + 1);
        self.came_back(gone.entries());
        gone
    }
    pub(super) fn remove(&mut self, key: &S::Key) -> RemovedEntries {
        let gone: RemovedEntries = self.store.remove(key).into_iter().collect();
        self.came_back(gone.entries());
        gone
    }
    pub(super) fn rearrange(&mut self, how: S::How) -> RemovedEntries
    where
        S: Rearrange,
    {
        let mut gone = RemovedEntries::new();
        self.store.rearrange(how, &mut gone);
        self.came_back(gone.entries());
        gone
    }
    pub(super) fn zap(&mut self, range: VpnRange) -> RemovedEntries {
        let mut gone = RemovedEntries::new();
        self.zap_into(range, &mut gone);
        gone
    }
    /// The same into an empty buffer.
    pub(super) fn zap_into(&mut self, range: VpnRange, gone: &mut RemovedEntries) {
        self.store.remove_range(range, gone);
        self.came_back(gone.entries());
        if cfg!(debug_assertions) {
            self.check_zapped(range);
        }
    }
    fn check_zapped(&mut self, range: VpnRange) {
        let mut shown = 0;
        self.store.for_each(&mut |e| {
            let (vpn, pfn) = (e.vpn(), e.pfn());
            assert!(
                !range.overlaps(e.range()),
                "the store kept {vpn:?} -> {pfn:?} of {range:?}"
            );
            shown += 1;
        });
        if let Some(entries) = self.entries.filter(|n| *n != shown) {
            self.entries = None;
            panic!("the store shows {shown} entries, and has {entries}");
        }
    }
    /// These have left the store.
    fn came_back(&mut self, gone: &[ShadowEntry]) {
        if let Some(entry) = gone.iter().find(|e| e.brand() != self.brand) {
            of_another(entry);
        }
        if let Some(entries) = self.entries {
            self.entries = entries.checked_sub(gone.len());
            assert!(
                self.entries.is_some(),
                "a store hands back no more entries than it was given"
            );
        }
    }
}

#[cold]
fn of_another(entry: &ShadowEntry) -> ! {
    panic!("{entry:?} is an entry of another registration");
}

/// A gate that goes with entries, since its driver was never taken off, gives their references up.
impl<S: ShadowStore, T> Drop for Inner<S, T> {
    fn drop(&mut self) {
        self.standing.gate_dropped();
        // The store is the driver's, and may be what panicked.
        if !self.is_empty() && !std::thread::panicking() {
            let mut gone = RemovedEntries::new();
            self.store.remove_range(VpnRange::ALL, &mut gone);
            self.came_back(gone.entries());
            unpin(&self.mem, &mut gone);
        }
    }
}

/// Hands dirty and accessed bits of entries that went to their frames.
pub(super) fn pass_on_dirty(mem: &PhysMem, gone: &RemovedEntries) {
    for entry in gone.entries() {
        let (young, dirty) = (entry.is_accessed(), entry.is_dirty());
        if !young && !dirty {
            continue;
        }
        let translation = entry.translation();
        for pfn in translation.frames().filter(|pfn| !pfn.is_zero()) {
            mem.merge_device_bits(pfn, AccessBits { young, dirty });
        }
    }
}

/// Gives up the references of entries that went.
pub(super) fn unpin(mem: &PhysMem, gone: &mut RemovedEntries) {
    for entry in gone.entries_mut().iter_mut().filter(|e| e.is_pinned()) {
        entry.let_go();
        for pfn in entry.translation().frames() {
            drop(mem.adopt(pfn));
        }
    }
}

/// The same with the gate no longer held, which an oracle may see.
#[inline]
pub(super) fn give_up(seat: &Seat, gone: &mut RemovedEntries) {
    if gone.entries().iter().any(ShadowEntry::is_pinned) {
        seat.board
            .watched(|w| w.unpinning(seat.reg, gone.entries()));
        unpin(&seat.mem, gone);
    }
}
