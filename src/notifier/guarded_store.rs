//! The contents of a gate: the store, the driver's state, and a count of the entries.
//!
//! Guarantee: the gate hands out only entries that a permit of this registration put into the
//! store, and each entry that leaves the store comes back here once. The store is the driver's
//! code, so the count is kept beside it, and a store that shows or returns something else is
//! caught.

use super::{
    deferred_put::last_parts,
    reason::Spared,
    registration_phase::RegistrationPhase,
    removed::RemovedEntries,
    seat::Seat,
    shadow_entry::ShadowEntry,
    store::{Rearrange, ShadowStore},
    translation::{RegTag, Translation},
};
use crate::{addr::VpnRange, frame::PhysMem, sync::Despite};
use smallvec::SmallVec;
use std::{ptr, sync::Arc};

pub(super) struct GuardedStore<S: ShadowStore, T> {
    pub(super) store: S,
    pub(super) state: T,
    /// The number of entries that went in and have not come back. `None` for a store that was
    /// caught: the panic comes once, so the driver can still be unregistered.
    entries: Option<usize>,
    tag: RegTag,
    mem: Arc<PhysMem>,
    phase: Arc<RegistrationPhase>,
    /// Set if the registration was alive when the gate was locked last: then the gate gives entries
    /// out until it is unlocked, since the end of a registration passes the gate.
    open: bool,
}

impl<S: ShadowStore, T> GuardedStore<S, T> {
    pub(super) fn new(seat: &Seat, store: S, state: T) -> Self {
        seat.phase.gate_made();
        Self {
            store,
            state,
            entries: Some(0),
            tag: seat.tag,
            mem: Arc::clone(&seat.mem),
            phase: Arc::clone(&seat.phase),
            open: true,
        }
    }
    /// Notes whether the registration is alive; the gate has just been locked.
    #[inline]
    pub(super) fn locked(&mut self) {
        self.open = self.phase.is_alive();
    }
    /// Returns true if the store has no entry.
    pub(super) fn is_empty(&self) -> bool {
        self.entries == Some(0)
    }
    /// Returns the entry under a key; none if the registration had ended when the gate was locked.
    #[inline]
    pub(super) fn get(&self, key: &S::Key) -> Option<&ShadowEntry> {
        // A driver that panicked when it was asked to drop everything still has its entries.
        if !self.open {
            return None;
        }
        let entry = self.store.get(key)?;
        if entry.tag() != self.tag {
            foreign_entry(entry);
        }
        debug_assert!(
            self.shows(entry),
            "the store hides {entry:?}, which it gives for a key"
        );
        Some(entry)
    }
    /// Returns true if an audit would see this very entry.
    fn shows(&self, entry: &ShadowEntry) -> bool {
        let mut shown = false;
        self.store
            .for_each_in(entry.range(), &mut |e| shown |= ptr::eq(e, entry));
        shown
    }
    /// Puts an entry into the store. Returns the entries that the store removed for it.
    pub(super) fn insert(&mut self, key: S::Key, entry: ShadowEntry) -> RemovedEntries {
        let gone = self.store.insert(key, entry);
        self.entries = self.entries.map(|n| n + 1);
        self.account_removed(gone.entries());
        gone
    }
    pub(super) fn remove(&mut self, key: &S::Key) -> RemovedEntries {
        let gone: RemovedEntries = self.store.remove(key).into_iter().collect();
        self.account_removed(gone.entries());
        gone
    }
    /// Has the store rearrange itself. The entries that it removes come into a buffer, which is
    /// empty before.
    pub(super) fn rearrange(&mut self, how: S::How, gone: &mut RemovedEntries)
    where
        S: Rearrange,
    {
        self.store.rearrange(how, gone);
        self.account_removed(gone.entries());
    }
    /// Removes the entries of a range into a buffer, which is empty before.
    pub(super) fn zap_into(&mut self, range: VpnRange, gone: &mut RemovedEntries) {
        self.store.remove_range(range, gone);
        self.account_removed(gone.entries());
        if cfg!(debug_assertions) {
            self.check_zapped(range, |_| false);
        }
    }
    /// Removes the entries of a range as [`zap_into`](Self::zap_into) does, but for those that the
    /// driver may keep.
    pub(super) fn zap_sparing(
        &mut self,
        range: VpnRange,
        spared: &Spared<'_>,
        gone: &mut RemovedEntries,
    ) {
        let mem = Arc::clone(&self.mem);
        let stays = |e: &ShadowEntry| spared.keeps(&mem, e.pfn());
        let mut goes: SmallVec<[VpnRange; 4]> = SmallVec::new();
        self.store.for_each_in(range, &mut |e| {
            if !stays(e) {
                goes.push(e.range());
            }
        });
        for pages in goes {
            self.store.remove_range(pages, gone);
        }
        self.account_removed(gone.entries());
        if cfg!(debug_assertions) {
            self.check_zapped(range, stays);
        }
    }
    fn check_zapped(&mut self, range: VpnRange, stays: impl Fn(&ShadowEntry) -> bool) {
        let mut shown = 0;
        self.store.for_each(&mut |e| {
            assert!(
                !range.overlaps(e.range()) || stays(e),
                "the store kept {} -> {:?} of {range}",
                e.range(),
                e.pfn()
            );
            shown += 1;
        });
        if let Some(entries) = self.entries.filter(|n| *n != shown) {
            self.entries = None;
            panic!("the store shows {shown} entries, and has {entries}");
        }
    }
    /// Counts entries that have left the store.
    ///
    /// # Panics
    ///
    /// If an entry belongs to another registration, or more entries come back than went in.
    fn account_removed(&mut self, gone: &[ShadowEntry]) {
        if let Some(entry) = gone.iter().find(|e| e.tag() != self.tag) {
            foreign_entry(entry);
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
fn foreign_entry(entry: &ShadowEntry) -> ! {
    panic!("{entry:?} is an entry of another registration");
}

/// A gate that is dropped with entries, because its driver was never unregistered, gives their
/// references up.
impl<S: ShadowStore, T> Drop for GuardedStore<S, T> {
    fn drop(&mut self) {
        self.phase.gate_dropped();
        if !self.is_empty() {
            let mut gone = RemovedEntries::new();
            let mut despite = Despite::default();
            // The store is the driver's code, and may be the part that panicked.
            despite.call(|| self.store.remove_range(VpnRange::ALL, &mut gone));
            despite.call(|| self.account_removed(gone.entries()));
            put(&self.mem, self.tag, &mut gone);
            despite.resume();
        }
    }
}

/// Reports the dirty and accessed bits of removed entries of this registration to their frames.
pub(super) fn pass_on_dirty(seat: &Seat, gone: &RemovedEntries) {
    let (mem, tag) = (&seat.mem, seat.tag);
    for entry in gone.entries().iter().filter(|e| e.tag() == tag) {
        let used = entry.used();
        if (!used.young && !used.dirty) || entry.pfn().is_zero() {
            continue;
        }
        match entry.is_huge() {
            true => entry
                .frames()
                .for_each(|pfn| mem.merge_device_bits(pfn, used)),
            false => mem.merge_device_bits(entry.pfn(), used),
        }
    }
}

/// Gives up the references of removed entries of this registration.
fn put(mem: &PhysMem, tag: RegTag, gone: &mut RemovedEntries) {
    gone.take_references(tag).for_each(|gone| gone.put(mem));
}

/// Entries that a window removes from a gate, made before the gate is locked.
///
/// Guarantee: their dirty bits reach the frames, and their references are given up once the gate is
/// unlocked, also if the store or the driver panics in between.
pub(super) struct LeavingEntries<'s> {
    seat: &'s Seat,
    pub(super) gone: RemovedEntries,
    /// The parts of those with a reference to whose frames no other entry of the gate leads.
    last: SmallVec<[Translation; 1]>,
}

impl<'s> LeavingEntries<'s> {
    #[inline]
    pub(super) fn new(seat: &'s Seat) -> Self {
        Self {
            seat,
            gone: RemovedEntries::new(),
            last: SmallVec::new(),
        }
    }
    /// Reports the dirty and accessed bits, with the gate locked, after the driver's flush: stores
    /// through a TLB until then are reported as well.
    #[inline]
    pub(super) fn flushed<S: ShadowStore>(&mut self, store: &S) {
        pass_on_dirty(self.seat, &self.gone);
        self.last = last_parts(self.seat, &self.gone, store);
    }
    /// Gives up the references, with the gate unlocked, and first notifies the observer of the
    /// parts to whose frames no other entry leads.
    #[inline]
    pub(super) fn put_after_unlock(&mut self) {
        let (seat, gone) = (self.seat, &mut self.gone);
        if gone.entries().iter().any(ShadowEntry::is_held) {
            seat.board.observe(|w| w.giving_up(seat.reg, &self.last));
            put(&seat.mem, seat.tag, gone);
        }
        gone.clear();
    }
}

impl Drop for LeavingEntries<'_> {
    #[inline]
    fn drop(&mut self) {
        // Left over by a panic alone, which also was the end of the guard of the gate.
        if !self.gone.is_empty() {
            pass_on_dirty(self.seat, &self.gone);
            put(&self.seat.mem, self.seat.tag, &mut self.gone);
        }
    }
}
