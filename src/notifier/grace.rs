//! Grace periods: a window keeps the drivers that it collected, and writes to none of them.
//!
//! Guarantee: when [`GraceSlots::wait`] returns, no section under way keeps the removed value, and
//! none ever will. A section that began before the value was inserted, or after it was removed, is
//! not waited for, however long it takes.
//!
//! How: changes (insertions and removals) are numbered. A section takes a slot, one that threads on
//! other processors seldom use, and writes into it the number of changes that it knows of. It may
//! keep a value that one of these changes inserted. A thread that removes a value waits for the
//! slots with numbers from the insertion on and below the removal.
//!
//! A section takes its slot and then reads the list by sequentially consistent operations, and a
//! remover has a fence between the removal and its look at the slots. So the remover finds the
//! section in the slot, or the section finds the value removed. A section leaves its slot by a
//! store: the remover that finds the slot free sees all that the section did, and one that comes
//! before the store looks again. No thread is woken, since a section that asked for sleepers after
//! its store would need a fence between the two, and every window would pay for it. A remover looks
//! again after a while instead.
//!
//! ```text
//! section                               remover
//! take slot: known = n
//! read the list: keep the value
//!                                       unlink the value: change n + 1
//!                                       slots: n is below n + 1, so wait
//! free the slot
//!                                       slots: no number is left, so
//!                                       destroy the value
//! ```
//!
//! A counter in each driver would be a line that all windows write:
//! docs/adr/0020-windows-write-to-no-driver.md.
#![allow(unsafe_code)]

use crate::sync::{
    AtomicU64, Bell, CachePadded, Mutex, Ordering, Pauses, RaceProbe, Sharded, fence, sequential,
};
use std::{
    cell::UnsafeCell,
    marker::PhantomData,
    ops::{Deref, DerefMut},
};

/// Slots of each shard. A thread seldom has windows inside windows; a model checker has enough with
/// one slot.
const SLOTS: usize = if cfg!(loom) { 1 } else { 2 };
/// The `known` of a slot that is free.
const FREE: u64 = 0;

struct GraceSlot<R, S> {
    /// The number of changes that the section knows of, or [`FREE`].
    known: AtomicU64,
    contents: UnsafeCell<SlotContents<R, S>>,
    race_probe: RaceProbe,
}

struct SlotContents<R, S> {
    record: R,
    /// The slots that this slot is one of, while it is taken: so a section is one pointer wide.
    owner: *const GraceSlots<R, S>,
}

// SAFETY: a record may be sent, and so may a shared reference to the slots, which are `Sync` if `R`
// and `S` are such.
unsafe impl<R: Send, S: Send + Sync> Send for GraceSlot<R, S> {}
// SAFETY: only the section that took the slot accesses its contents: they are passed between
// threads but not shared.
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

/// The sections of one address space. Each section has an `R` for itself, as the last section in
/// the slot left it, and all share the `S`.
pub(super) struct GraceSlots<R, S> {
    shards: Sharded<[GraceSlot<R, S>; SLOTS]>,
    /// Further slots, for sections that find no free one; none is ever taken out.
    more: Mutex<Vec<Box<GraceSlot<R, S>>>>,
    /// The number of changes so far, plus one. Sections only read it.
    changes: CachePadded<AtomicU64>,
    left: Bell,
    shared: S,
}

/// A section under way: it keeps the values that it collected.
///
/// The section is `Send` and `Sync` as its record is: the slot's record can be reached only through
/// the one section that took it, but a section gives `&R` to every holder of `&ReadSection`.
pub(super) struct ReadSection<'c, R, S> {
    slot: &'c GraceSlot<R, S>,
    record: PhantomData<R>,
}

impl<R, S> GraceSlot<R, S> {
    fn take(&self, known: u64) -> bool {
        let taken = self
            .known
            .compare_exchange(FREE, known, Ordering::SeqCst, Ordering::Relaxed);
        sequential();
        taken.is_ok()
    }
}

impl<R: Default + Send, S: Send + Sync> GraceSlots<R, S> {
    pub(super) fn new(shared: S) -> Self {
        Self {
            shards: Sharded::new(),
            more: Mutex::default(),
            changes: CachePadded(AtomicU64::new(FREE + 1)),
            left: Bell::default(),
            shared,
        }
    }
    /// Counts a change and returns its number: an insertion that follows in this thread, or a
    /// removal that is done.
    pub(super) fn change(&self) -> u64 {
        self.changes.0.fetch_add(1, Ordering::AcqRel) + 1
    }
    /// Returns true if there was no change that the section does not know of.
    #[inline]
    pub(super) fn is_current(&self, section: &ReadSection<'_, R, S>) -> bool {
        section.slot.known.load(Ordering::Relaxed) == self.changes.0.load(Ordering::Acquire)
    }
    /// Begins a section.
    #[inline]
    pub(super) fn begin(&self) -> ReadSection<'_, R, S> {
        let known = self.changes.0.load(Ordering::Acquire);
        let slot = self.shards.mine().iter().find(|slot| slot.take(known));
        let slot = slot.unwrap_or_else(|| self.take_further(known));
        // SAFETY: this thread has just taken the slot.
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
        // SAFETY: a box stays in place when the vector grows, and nothing is taken out while `self`
        // lives.
        unsafe { &*slot }
    }
    fn any(&self, fits: impl Fn(u64) -> bool) -> bool {
        // Acquire: nothing is destroyed before a section that has left its slot was done.
        let taken = |slot: &GraceSlot<R, S>| fits(slot.known.load(Ordering::Acquire));
        // A further slot is taken under the lock, so new slots are no exception to the rule of the
        // module.
        self.shards.iter().flatten().any(taken) || self.more.lock().iter().any(|slot| taken(slot))
    }
    /// Returns when no section is under way that may keep a value which change `inserted` inserted
    /// and change `removed` removed. Sleeps between its looks at the slots.
    pub(super) fn wait(&self, inserted: u64, removed: u64) {
        let concerns = |known| (inserted..removed).contains(&known);
        let mut pauses = Pauses::default();
        fence(Ordering::SeqCst);
        loop {
            let heard = self.left.heard();
            if !self.any(concerns) {
                return;
            }
            self.left.wait(heard, &mut pauses);
        }
    }
}

impl<R, S> ReadSection<'_, R, S> {
    #[inline]
    fn contents(&self) -> &SlotContents<R, S> {
        self.slot.race_probe.read();
        // SAFETY: only the section that took the slot accesses its contents, through this.
        unsafe { &*self.slot.contents.get() }
    }
    /// Returns true if a value that this change inserted may be kept until the section ends.
    #[inline]
    pub(super) fn knows(&self, inserted: u64) -> bool {
        // Relaxed: only this section has written the slot since it took it.
        inserted <= self.slot.known.load(Ordering::Relaxed)
    }
    #[inline]
    fn owner(&self) -> &GraceSlots<R, S> {
        // SAFETY: written by `begin` from a reference that outlives this section.
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
        // SAFETY: only the section that took the slot accesses its contents, and `self` is borrowed
        // exclusively.
        let contents = unsafe { &mut *self.slot.contents.get() };
        &mut contents.record
    }
}

impl<R, S> Drop for ReadSection<'_, R, S> {
    #[inline]
    fn drop(&mut self) {
        let slots: *const GraceSlots<R, S> = self.owner();
        // Release: the next section in the slot finds the record as it is left, and a remover
        // destroys nothing before this section has used it for the last time.
        self.slot.known.store(FREE, Ordering::Release);
        // SAFETY: as in `owner`; the contents of the slot may belong to another section by now.
        let slots = unsafe { &*slots };
        slots.left.ring();
    }
}

#[cfg(test)]
mod tests {
    use super::ReadSection;
    use std::{cell::Cell, marker::PhantomData};

    /// Tells if a type is `Sync`: the constant of the type itself shadows that of the trait.
    struct May<T>(PhantomData<T>);
    trait Not {
        const BE_SHARED: bool = false;
    }
    impl<T> Not for May<T> {}
    impl<T: Sync> May<T> {
        const BE_SHARED: bool = true;
    }

    /// Two threads with one section each would otherwise share one record.
    #[test]
    fn a_call_is_shared_only_if_its_record_may_be() {
        const BARE: bool = May::<ReadSection<'_, Cell<u64>, ()>>::BE_SHARED;
        const SOUND: bool = May::<ReadSection<'_, u64, ()>>::BE_SHARED;
        assert_eq!((BARE, SOUND), (false, true));
    }
}
