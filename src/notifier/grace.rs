//! Who is calling drivers now: a window that keeps those whom it met, without counting itself in at each of them.
//!
//! Guarantee: a change that [`GraceSlots::wait`] has returned for is one that no call under way knows less of: whoever it may
//! have met, and who is removed by that change, is called no more. A call that began before somebody inserted, or after he was
//! removed, is not waited for, however long it takes.
//!
//! How: changes are numbered. A call takes a slot, one that threads on other processors seldom use, and writes the number
//! of changes that it knows of into it; it may keep whom it meets if he inserted by one of these. Whoever goes waits for
//! the slots with numbers from his coming on and below his going.
//!
//! Slots are written, and looked at by those who go, with read-modify-write operations alone. So of a call and one who
//! goes, whoever comes second to a slot sees all that the other did before: he finds the call there, or the call finds
//! him removed.
#![allow(unsafe_code)]

use crate::sync::{
    AtomicU64, AtomicUsize, CachePadded, Condvar, Mutex, Ordering, RaceProbe, Sharded,
};
use std::{
    cell::UnsafeCell,
    marker::PhantomData,
    ops::{Deref, DerefMut},
};

/// A thread has windows inside windows seldom. A model checker has enough with one.
const SLOTS: usize = if cfg!(loom) { 1 } else { 2 };
/// Nobody has the slot.
const FREE: u64 = 0;

struct GraceSlot<R, S> {
    /// How many changes the call knows of.
    known: AtomicU64,
    contents: UnsafeCell<SlotContents<R, S>>,
    race_probe: RaceProbe,
}

struct SlotContents<R, S> {
    record: R,
    /// Where the slot is one of, if somebody has it: so that a call is one pointer wide.
    owner: *const GraceSlots<R, S>,
}

// SAFETY: a record may be sent, and so may a shared reference to the calls, which are `Sync` if `R` and `S` are such.
unsafe impl<R: Send, S: Send + Sync> Send for GraceSlot<R, S> {}
// SAFETY: what is in the slot is only accessed by the one who took it: passed between threads but not shared.
unsafe impl<R: Send, S: Send + Sync> Sync for GraceSlot<R, S> {}

impl<R: Default, S> Default for GraceSlot<R, S> {
    fn default() -> Self {
        Self {
            known: AtomicU64::new(FREE),
            contents: UnsafeCell::new(SlotContents {
                record: R::default(),
                owner: std::ptr::null(),
            }),
            race_probe: RaceProbe::new(),
        }
    }
}

/// Calls of the drivers of one address space. Each has an `R` for itself, which later ones find as it was left, and all
/// share the `S`.
pub(super) struct GraceSlots<R, S> {
    shards: Sharded<[GraceSlot<R, S>; SLOTS]>,
    /// Further slots, for those who find none; none is ever taken out.
    more: Mutex<Vec<Box<GraceSlot<R, S>>>>,
    state: CachePadded<GraceState>,
    asleep: Mutex<()>,
    left: Condvar,
    shared: S,
}

/// What calls only read.
struct GraceState {
    /// Changes so far, and one.
    changes: AtomicU64,
    /// Somebody waits for calls to end.
    waiting: AtomicUsize,
}

/// A call under way.
///
/// It stands for its record, and is shared and sent as that may be: other than the slot, whose record nobody reaches but
/// through the one call that took it, a call gives `&R` to whoever has `&ReadSection`.
pub(super) struct ReadSection<'c, R, S> {
    slot: &'c GraceSlot<R, S>,
    record: PhantomData<R>,
}

impl<R, S> GraceSlot<R, S> {
    fn take(&self, known: u64) -> bool {
        let taken = self
            .known
            .compare_exchange(FREE, known, Ordering::AcqRel, Ordering::Relaxed);
        taken.is_ok()
    }
    /// See the module: a plain load would not do.
    fn look(&self) -> u64 {
        self.known.fetch_or(0, Ordering::AcqRel)
    }
}

impl<R: Default + Send, S: Send + Sync> GraceSlots<R, S> {
    pub(super) fn new(shared: S) -> Self {
        Self {
            shards: Sharded::new(),
            more: Mutex::default(),
            state: CachePadded(GraceState {
                changes: AtomicU64::new(FREE + 1),
                waiting: AtomicUsize::new(0),
            }),
            asleep: Mutex::default(),
            left: Condvar::new(),
            shared,
        }
    }
    /// Somebody has come, from the next step of this thread on, or has removed: the number of the change.
    pub(super) fn change(&self) -> u64 {
        self.state.0.changes.fetch_add(1, Ordering::AcqRel) + 1
    }
    /// Whether nobody has come or removed by a change that the call does not know of.
    #[inline]
    pub(super) fn is_current(&self, call: &ReadSection<'_, R, S>) -> bool {
        call.slot.known.load(Ordering::Relaxed) == self.state.0.changes.load(Ordering::Acquire)
    }
    /// A call begins.
    #[inline]
    pub(super) fn begin(&self) -> ReadSection<'_, R, S> {
        let known = self.state.0.changes.load(Ordering::Acquire);
        let slot = self.shards.mine().iter().find(|slot| slot.take(known));
        let slot = slot.unwrap_or_else(|| self.take_further(known));
        // SAFETY: taken just now.
        unsafe { (*slot.contents.get()).owner = self };
        ReadSection {
            slot,
            record: PhantomData,
        }
    }
    #[cold]
    fn take_further(&self, known: u64) -> &GraceSlot<R, S> {
        let mut more = self.more.lock();
        let at = more.iter().position(|slot| slot.take(known));
        let at = at.unwrap_or_else(|| {
            let slot = GraceSlot::default();
            assert!(slot.take(known), "nobody else knows it");
            more.push(Box::new(slot));
            more.len() - 1
        });
        let slot: *const GraceSlot<R, S> = &*more[at];
        // SAFETY: a box stays where it is when the vector grows, and nothing is taken out while `self` lives.
        unsafe { &*slot }
    }
    fn any(&self, fits: impl Fn(u64) -> bool) -> bool {
        let mut all = self.shards.iter().flatten();
        // Those who take a further slot do it under the lock, so new ones are no exception to what the module says.
        all.any(|slot| fits(slot.look())) || self.more.lock().iter().any(|slot| fits(slot.look()))
    }
    /// Sleeps until no call is under way that may have met somebody who inserted by change `inserted` and went by change `removed`.
    pub(super) fn wait(&self, inserted: u64, removed: u64) {
        let concerns = |known| (inserted..removed).contains(&known);
        // Before the slots are looked at: a call that leaves one after that sees it.
        self.state.0.waiting.fetch_add(1, Ordering::AcqRel);
        if self.any(concerns) {
            let mut held = self.asleep.lock();
            while self.any(concerns) {
                self.left.wait(&mut held);
            }
        }
        self.state.0.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

impl<R, S> GraceSlots<R, S> {
    #[cold]
    fn wake(&self) {
        // Who waits looks and falls asleep under this mutex: he has seen the slot free, or sleeps already.
        drop(self.asleep.lock());
        self.left.notify_all();
    }
}

impl<R, S> ReadSection<'_, R, S> {
    #[inline]
    fn contents(&self) -> &SlotContents<R, S> {
        self.slot.race_probe.read();
        // SAFETY: who took the slot is the only one to access what is in it, through this.
        unsafe { &*self.slot.contents.get() }
    }
    /// Whether whoever inserted by this change may be kept until the call ends.
    #[inline]
    pub(super) fn knows(&self, inserted: u64) -> bool {
        // Nobody else writes another value.
        inserted <= self.slot.known.load(Ordering::Relaxed)
    }
    #[inline]
    fn owner(&self) -> &GraceSlots<R, S> {
        // SAFETY: written by `begin` from a reference that outlives this call.
        unsafe { &*self.contents().owner }
    }
    #[inline]
    pub(super) fn shared(&self) -> &S {
        &self.owner().shared
    }
}

impl<R, S> Deref for ReadSection<'_, R, S> {
    type Target = R;
    #[inline]
    fn deref(&self) -> &R {
        &self.contents().record
    }
}

impl<R, S> DerefMut for ReadSection<'_, R, S> {
    #[inline]
    fn deref_mut(&mut self) -> &mut R {
        self.slot.race_probe.write();
        // SAFETY: who took the slot is the only one to access what is in it, and `self` is borrowed exclusively.
        let contents = unsafe { &mut *self.slot.contents.get() };
        &mut contents.record
    }
}

impl<R, S> Drop for ReadSection<'_, R, S> {
    #[inline]
    fn drop(&mut self) {
        let slots: *const GraceSlots<R, S> = self.owner();
        // Release: the next one to take the slot finds the record as it is left. Acquire: whoever looked before waits now.
        self.slot.known.swap(FREE, Ordering::AcqRel);
        // SAFETY: as in `calls`; what is in the slot may be another's by now.
        let slots = unsafe { &*slots };
        if slots.state.0.waiting.load(Ordering::Acquire) > 0 {
            slots.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::ReadSection;
    use std::{cell::Cell, marker::PhantomData};

    /// Says of a type whether it may be shared: the constant of the type itself comes before that of the trait.
    struct May<T>(PhantomData<T>);
    trait Not {
        const BE_SHARED: bool = false;
    }
    impl<T> Not for May<T> {}
    impl<T: Sync> May<T> {
        const BE_SHARED: bool = true;
    }

    /// Of two threads with one call each would have the one record.
    #[test]
    fn a_call_is_shared_only_if_its_record_may_be() {
        const BARE: bool = May::<ReadSection<'_, Cell<u64>, ()>>::BE_SHARED;
        const SOUND: bool = May::<ReadSection<'_, u64, ()>>::BE_SHARED;
        assert_eq!((BARE, SOUND), (false, true));
    }
}
