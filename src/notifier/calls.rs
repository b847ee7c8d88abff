//! Who is calling drivers now: a window that keeps those whom it met, without counting itself in at each of them.
//!
//! Guarantee: a change that [`GraceSlots::wait`] has returned for is one that no call under way knows less of: whoever it may
//! have met, and who is gone by that change, is called no more. A call that began before somebody came, or after he was
//! gone, is not waited for, however long it takes.
//!
//! How: changes are numbered. A call takes a slot, one that threads on other processors seldom use, and writes the number
//! of changes that it knows of into it; it may keep whom it meets if he came by one of these. Whoever goes waits for
//! the slots with numbers from his coming on and below his going.
//!
//! Slots are written, and looked at by those who go, with read-modify-write operations alone. So of a call and one who
//! goes, whoever comes second to a slot sees all that the other did before: he finds the call there, or the call finds
//! him gone.
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

struct Slot<R, S> {
    /// How many changes the call knows of.
    known: AtomicU64,
    taken: UnsafeCell<Taken<R, S>>,
    witness: RaceProbe,
}

struct Taken<R, S> {
    record: R,
    /// Where the slot is one of, if somebody has it: so that a call is one pointer wide.
    calls: *const GraceSlots<R, S>,
}

// SAFETY: a record may be sent, and so may a shared reference to the calls, which are `Sync` if `R` and `S` are such.
unsafe impl<R: Send, S: Send + Sync> Send for Slot<R, S> {}
// SAFETY: what is in the slot is only accessed by the one who took it: passed between threads but not shared.
unsafe impl<R: Send, S: Send + Sync> Sync for Slot<R, S> {}

impl<R: Default, S> Default for Slot<R, S> {
    fn default() -> Self {
        Self {
            known: AtomicU64::new(FREE),
            taken: UnsafeCell::new(Taken {
                record: R::default(),
                calls: std::ptr::null(),
            }),
            witness: RaceProbe::new(),
        }
    }
}

/// Calls of the drivers of one address space. Each has an `R` for itself, which later ones find as it was left, and all
/// share the `S`.
pub(super) struct GraceSlots<R, S> {
    lanes: Sharded<[Slot<R, S>; SLOTS]>,
    /// Further slots, for those who find none; none is ever taken out.
    more: Mutex<Vec<Box<Slot<R, S>>>>,
    now: CachePadded<Now>,
    asleep: Mutex<()>,
    left: Condvar,
    shared: S,
}

/// What calls only read.
struct Now {
    /// Changes so far, and one.
    changes: AtomicU64,
    /// Somebody waits for calls to end.
    waiting: AtomicUsize,
}

/// A call under way.
///
/// It stands for its record, and is shared and sent as that may be: other than the slot, whose record nobody reaches but
/// through the one call that took it, a call gives `&R` to whoever has `&Call`.
pub(super) struct Call<'c, R, S> {
    slot: &'c Slot<R, S>,
    record: PhantomData<R>,
}

impl<R, S> Slot<R, S> {
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
            lanes: Sharded::new(),
            more: Mutex::default(),
            now: CachePadded(Now {
                changes: AtomicU64::new(FREE + 1),
                waiting: AtomicUsize::new(0),
            }),
            asleep: Mutex::default(),
            left: Condvar::new(),
            shared,
        }
    }
    /// Somebody has come, from the next step of this thread on, or has gone: the number of the change.
    pub(super) fn change(&self) -> u64 {
        self.now.0.changes.fetch_add(1, Ordering::AcqRel) + 1
    }
    /// Whether nobody has come or gone by a change that the call does not know of.
    #[inline]
    pub(super) fn is_current(&self, call: &Call<'_, R, S>) -> bool {
        call.slot.known.load(Ordering::Relaxed) == self.now.0.changes.load(Ordering::Acquire)
    }
    /// A call begins.
    #[inline]
    pub(super) fn begin(&self) -> Call<'_, R, S> {
        let known = self.now.0.changes.load(Ordering::Acquire);
        let slot = self.lanes.mine().iter().find(|slot| slot.take(known));
        let slot = slot.unwrap_or_else(|| self.take_further(known));
        // SAFETY: taken just now.
        unsafe { (*slot.taken.get()).calls = self };
        Call {
            slot,
            record: PhantomData,
        }
    }
    #[cold]
    fn take_further(&self, known: u64) -> &Slot<R, S> {
        let mut more = self.more.lock();
        let at = more.iter().position(|slot| slot.take(known));
        let at = at.unwrap_or_else(|| {
            let slot = Slot::default();
            assert!(slot.take(known), "nobody else knows it");
            more.push(Box::new(slot));
            more.len() - 1
        });
        let slot: *const Slot<R, S> = &*more[at];
        // SAFETY: a box stays where it is when the vector grows, and nothing is taken out while `self` lives.
        unsafe { &*slot }
    }
    fn any(&self, fits: impl Fn(u64) -> bool) -> bool {
        let mut all = self.lanes.iter().flatten();
        // Those who take a further slot do it under the lock, so new ones are no exception to what the module says.
        all.any(|slot| fits(slot.look())) || self.more.lock().iter().any(|slot| fits(slot.look()))
    }
    /// Sleeps until no call is under way that may have met somebody who came by change `came` and went by change `gone`.
    pub(super) fn wait(&self, came: u64, gone: u64) {
        let calls = |known| (came..gone).contains(&known);
        // Before the slots are looked at: a call that leaves one after that sees it.
        self.now.0.waiting.fetch_add(1, Ordering::AcqRel);
        if self.any(calls) {
            let mut held = self.asleep.lock();
            while self.any(calls) {
                self.left.wait(&mut held);
            }
        }
        self.now.0.waiting.fetch_sub(1, Ordering::AcqRel);
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

impl<R, S> Call<'_, R, S> {
    #[inline]
    fn taken(&self) -> &Taken<R, S> {
        self.slot.witness.read();
        // SAFETY: who took the slot is the only one to access what is in it, through this.
        unsafe { &*self.slot.taken.get() }
    }
    /// Whether whoever came by this change may be kept until the call ends.
    #[inline]
    pub(super) fn knows(&self, came: u64) -> bool {
        // Nobody else writes another value.
        came <= self.slot.known.load(Ordering::Relaxed)
    }
    #[inline]
    fn calls(&self) -> &GraceSlots<R, S> {
        // SAFETY: written by `begin` from a reference that outlives this call.
        unsafe { &*self.taken().calls }
    }
    #[inline]
    pub(super) fn shared(&self) -> &S {
        &self.calls().shared
    }
}

impl<R, S> Deref for Call<'_, R, S> {
    type Target = R;
    #[inline]
    fn deref(&self) -> &R {
        &self.taken().record
    }
}

impl<R, S> DerefMut for Call<'_, R, S> {
    #[inline]
    fn deref_mut(&mut self) -> &mut R {
        self.slot.witness.write();
        // SAFETY: who took the slot is the only one to access what is in it, and `self` is borrowed exclusively.
        let taken = unsafe { &mut *self.slot.taken.get() };
        &mut taken.record
    }
}

impl<R, S> Drop for Call<'_, R, S> {
    #[inline]
    fn drop(&mut self) {
        let calls: *const GraceSlots<R, S> = self.calls();
        // Release: the next one to take the slot finds the record as it is left. Acquire: whoever looked before waits now.
        self.slot.known.swap(FREE, Ordering::AcqRel);
        // SAFETY: as in `calls`; what is in the slot may be another's by now.
        let calls = unsafe { &*calls };
        if calls.now.0.waiting.load(Ordering::Acquire) > 0 {
            calls.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Call;
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
        const BARE: bool = May::<Call<'_, Cell<u64>, ()>>::BE_SHARED;
        const SOUND: bool = May::<Call<'_, u64, ()>>::BE_SHARED;
        assert_eq!((BARE, SOUND), (false, true));
    }
}
