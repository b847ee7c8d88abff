//! Upper-level table pages and the pointers between table pages: the unsafe code of the page table.
//!
//! Guarantee: a reference to a table page, taken under a pin, stays valid for as long as the pin
//! and the page table both live. An unlinked page is destroyed only after every pin of that moment
//! has ended.
//!
//! How: a slot of a directory is null or owns a `Box` of a child. Slots change only through
//! [`Dir::install`], [`Dir::take`], [`Dir::put`] and [`Dir::swap`]; a child that `take` yields is
//! either put elsewhere or retired through the epoch. The lifetime of a child reference is bounded
//! by the borrow of its parent (so by the table) and by the pin.
//!
//! A leaf may be in slots of several tables (see [`slot`](super::slot)). Each of these slots has
//! [`Marks`] in the low bits of its pointer, and none of them owns the leaf; the last sharer
//! removes its marks and becomes the owner. A marked leaf is never retired.
#![allow(unsafe_code)]

use super::{index::ENTRIES, leaf::Leaf};
use crate::{
    ctx::Epoch,
    sync::{self, AtomicPtr, Mutex, Ordering},
};
use crossbeam_epoch::Guard;
use std::ptr::{self, NonNull};

/// Directory of leaves: each slot spans 2 MiB.
pub(super) type Pmd = Dir<Leaf>;
/// Directory whose slots span 1 GiB.
pub(super) type Pud = Dir<Pmd>;
/// The root: each slot spans 512 GiB.
pub(super) type Pgd = Dir<Pud>;

/// An epoch pin that was checked to be of this table's collector: it holds back the destruction of
/// table pages.
#[derive(Clone, Copy)]
pub(in crate::mm) struct Pin<'p>(&'p Guard);

impl<'p> Pin<'p> {
    /// Makes a pin of an epoch guard.
    ///
    /// # Panics
    ///
    /// If the guard is of another collector, which cannot happen: every entry point of the address
    /// space has checked its token.
    pub(super) fn new(epoch: &Epoch, guard: &'p Guard) -> Self {
        assert!(epoch.owns(guard), "pinned in another machine's epoch");
        Self(guard)
    }
    /// Makes a pin of a guard that was checked when it was taken.
    #[inline]
    pub(super) fn checked(epoch: &Epoch, guard: &'p Guard) -> Self {
        debug_assert!(epoch.owns(guard), "pinned in another machine's epoch");
        Self(guard)
    }
}

/// Marks in the low bits of a slot: whether the leaf is shared, and how this table came by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Marks(usize);

impl Marks {
    /// The leaf is this table's alone.
    pub(super) const NONE: Self = Self(0);
    /// Other tables have the leaf as well.
    pub(super) const SHARED: Self = Self(1);
    /// Other tables have the leaf as well, and this one inherited it by a fork: its entries count
    /// as not accessed, whatever their bits say.
    pub(super) const INHERITED: Self = Self(3);

    pub(super) const fn is_shared(self) -> bool {
        self.0 != 0
    }
    pub(super) const fn is_inherited(self) -> bool {
        self.0 == Self::INHERITED.0
    }
}

/// A table page that a directory can lead to.
pub(in crate::mm) trait Child: Send + Sync + 'static {
    /// Low bits of a pointer to it that hold [`Marks`].
    const MARKS: usize;
}

impl Child for Leaf {
    const MARKS: usize = 3;
}

impl<C: Child> Child for Dir<C> {
    const MARKS: usize = 0;
}

/// The pointer without its marks.
#[inline]
fn plain<C: Child>(word: *mut C) -> *mut C {
    if C::MARKS == 0 {
        word
    } else {
        word.map_addr(|addr| addr & !C::MARKS)
    }
}

/// Returns true if the pointer has no marks.
fn is_own<C: Child>(word: *mut C) -> bool {
    word.addr() & C::MARKS == 0
}

/// A leaf in a slot as one load of the slot saw it.
#[derive(Clone, Copy)]
pub(super) struct SlotValue<'g> {
    pub(super) leaf: &'g Leaf,
    /// The pointer with its marks.
    word: *mut Leaf,
}

impl SlotValue<'_> {
    #[inline]
    pub(super) fn marks(&self) -> Marks {
        Marks(self.word.addr() & Leaf::MARKS)
    }
    fn marked(&self, marks: Marks) -> *mut Leaf {
        plain(self.word).map_addr(|addr| addr | marks.0)
    }
}

impl Dir<Leaf> {
    /// Returns how many slots from `i` on are empty. Slot `i` is counted without a look, since it
    /// may have been filled by now.
    pub(super) fn empty(&self, i: usize) -> u64 {
        let more = self.slots[i + 1..].iter();
        let empty = |slot: &&AtomicPtr<Leaf>| slot.load(Ordering::Relaxed).is_null();
        1 + more.take_while(empty).count() as u64
    }
    /// The leaf in a slot, with its marks.
    #[inline]
    pub(super) fn seen<'g>(&'g self, i: usize, _pin: Pin<'g>) -> Option<SlotValue<'g>> {
        let word = self.slots[i].load(Ordering::Acquire);
        // SAFETY: as in `child`. A shared leaf is given to the epoch only after every slot has lost
        // it.
        let leaf = unsafe { plain(word).as_ref() }?;
        Some(SlotValue { leaf, word })
    }
    /// Returns true if the slot still has the same leaf with the same marks.
    ///
    /// Acquire: a reader that finds them unchanged read the entry before any other table changed
    /// it.
    #[inline]
    pub(super) fn has_still(&self, i: usize, seen: SlotValue<'_>) -> bool {
        self.slots[i].load(Ordering::Acquire) == seen.word
    }
    /// Replaces the marks if the slot still has what was seen; returns whether it did.
    pub(super) fn remark(&self, i: usize, seen: SlotValue<'_>, marks: Marks) -> bool {
        self.swap(i, seen.word, seen.marked(marks))
    }
    /// Replaces a shared leaf by `own` or by nothing, if it is still there; returns whether it did.
    /// The caller holds the lock of the shared leaf and counts this table out.
    pub(super) fn leave(&self, i: usize, seen: SlotValue<'_>, own: Option<Box<Leaf>>) -> bool {
        debug_assert!(seen.marks().is_shared(), "it would be lost");
        let own = own.map_or(ptr::null_mut(), Box::into_raw);
        let done = self.swap(i, seen.word, own);
        if !done && !own.is_null() {
            // SAFETY: from `Box::into_raw` above, and no other thread has seen it.
            drop(unsafe { Box::from_raw(own) });
        }
        done
    }
    /// Links a leaf of another table into an empty slot, marked as inherited.
    ///
    /// # Panics
    ///
    /// If the slot is not empty.
    pub(super) fn join(&self, i: usize, seen: SlotValue<'_>) {
        let held = self.lock.lock();
        let done = self.swap(i, ptr::null_mut(), seen.marked(Marks::INHERITED));
        drop(held);
        assert!(done, "a table is shared into an empty slot only");
    }
    /// Replaces `from` by `to`; returns whether `from` was there. Needs no lock where a leaf is
    /// there, because `install` and `put` store into empty slots only.
    fn swap(&self, i: usize, from: *mut Leaf, to: *mut Leaf) -> bool {
        self.slots[i]
            .compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
    }
}

/// Upper-level table page: each slot is null, owns a child, or shares a marked leaf.
pub(in crate::mm) struct Dir<C: Child> {
    slots: [AtomicPtr<C>; ENTRIES],
    lock: Mutex<()>,
}

/// A child taken out of its slot. Earlier pins may still read it, so it is not a `Box`, which would
/// claim to be the only pointer.
#[must_use]
pub(in crate::mm) struct Taken<C: Child>(NonNull<C>);

impl<C: Child> Dir<C> {
    /// Makes a directory of empty slots.
    pub(super) fn new() -> Box<Self> {
        Box::new(Self {
            slots: sync::nulls(),
            lock: Mutex::new(()),
        })
    }
    /// Returns true if the slot has a child.
    #[inline]
    pub(in crate::mm) fn has(&self, i: usize) -> bool {
        !self.slots[i].load(Ordering::Relaxed).is_null()
    }
    /// The child in a slot. Acquire: its contents were written before it was linked.
    #[inline]
    pub(in crate::mm) fn child<'g>(&'g self, i: usize, _pin: Pin<'g>) -> Option<&'g C> {
        let child = self.slots[i].load(Ordering::Acquire);
        // SAFETY: a non-null slot owns a live `Box<C>`. It is freed only by `Taken::retire`,
        // through the epoch that `_pin` holds back for 'g, or by dropping this directory, which the
        // borrow for 'g forbids.
        unsafe { plain(child).as_ref() }
    }
    /// Links a new child unless another thread was first; returns whether it did.
    pub(super) fn install(&self, i: usize, made: Box<C>) -> bool {
        let held = self.lock.lock();
        let empty = !self.has(i);
        if empty {
            self.slots[i].store(Box::into_raw(made), Ordering::Release);
        }
        drop(held);
        empty
    }
    /// Returns how many children there are.
    pub(super) fn len(&self) -> usize {
        (0..ENTRIES).filter(|&i| self.has(i)).count()
    }
    /// Unlinks the child of a slot.
    pub(in crate::mm) fn take(&self, i: usize) -> Option<Taken<C>> {
        let held = self.lock.lock();
        let child = self.slots[i].swap(ptr::null_mut(), Ordering::AcqRel);
        drop(held);
        NonNull::new(child).map(Taken)
    }
    /// Links a child into an empty slot (a move of a whole table).
    ///
    /// # Panics
    ///
    /// If the slot is not empty.
    pub(in crate::mm) fn put(&self, i: usize, child: Taken<C>) {
        let held = self.lock.lock();
        assert!(!self.has(i), "a table is moved into an empty slot only");
        self.slots[i].store(child.0.as_ptr(), Ordering::Release);
        drop(held);
    }
}

impl<C: Child> Taken<C> {
    /// The page itself, for counting the tables below it.
    pub(super) fn page(&self) -> &C {
        // SAFETY: owned by this value, alive until it is put elsewhere or retired, both of which
        // consume it; only shared references to it exist. Other tables that have it as well do not
        // free it before this one has left.
        unsafe { &*plain(self.0.as_ptr()) }
    }
    /// Destroys the page and all below it once every present pin has ended.
    ///
    /// # Panics
    ///
    /// If the page is a shared leaf: this table has to leave it first.
    pub(in crate::mm) fn retire(self, pin: Pin<'_>) {
        let child = self.0;
        assert!(is_own(child.as_ptr()), "a shared table is left, not freed");
        let destroy = move || {
            // SAFETY: from `Box::into_raw`, unlinked, and every pin that could have seen it has
            // gone.
            drop(unsafe { Box::from_raw(child.as_ptr()) });
        };
        // SAFETY: the page is unlinked, so later pins cannot reach it; `C` is `Send` and 'static,
        // so any thread may drop it at any later time.
        unsafe { pin.0.defer_unchecked(destroy) };
    }
}

impl<C: Child> Drop for Dir<C> {
    fn drop(&mut self) {
        for slot in &mut self.slots {
            let child = sync::atomic_get_mut(slot);
            debug_assert!(is_own(child), "a shared table is left first");
            if !child.is_null() && is_own(child) {
                // SAFETY: the slot owns the box, and `&mut self` excludes every reader.
                drop(unsafe { Box::from_raw(child) });
            }
        }
    }
}
