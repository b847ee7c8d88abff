//! Table pages and the pointers between them: the only unsafe code of the address space.
//!
//! Guarantee: a reference to a table page, got under a pin, stays valid for as long as the pin and the page table
//! both live. A page that was unlinked is destroyed only after every pin of that moment has gone.
//!
//! How: a slot of a directory is null or owns a `Box` of a child. Slots change only through [`Dir::install`],
//! [`Dir::take`] and [`Dir::put`]; what `take` yields is either put elsewhere or retired through the epoch. The
//! lifetime of a child is bounded by the borrow of its parent (so by the table) and by the pin.
#![allow(unsafe_code)]

use crate::{
    addr::{Vpn, VpnRange},
    ctx::Epoch,
    mm::pte::RawPte,
    sync::{self, AtomicBool, AtomicPtr, AtomicU64, Mutex, MutexGuard, Ordering},
};
use crossbeam_epoch::Guard;
use std::ptr::{self, NonNull};

/// Entries of a table page.
pub(in crate::mm) const ENTRIES: usize = 512;

/// An epoch pin known to be of this table's collector.
#[derive(Clone, Copy)]
pub(in crate::mm) struct Pin<'p>(&'p Guard);

impl<'p> Pin<'p> {
    /// Checks that the pin holds back this table's reclamation.
    ///
    /// # Panics
    ///
    /// If the guard is of another collector: every entry point of the address space has checked its token.
    pub(super) fn new(epoch: &Epoch, guard: &'p Guard) -> Self {
        assert!(epoch.owns(guard), "pinned in another machine's epoch");
        Self(guard)
    }
    /// The same for a guard that was checked when it was taken.
    #[inline]
    pub(super) fn checked(epoch: &Epoch, guard: &'p Guard) -> Self {
        debug_assert!(epoch.owns(guard), "pinned in another machine's epoch");
        Self(guard)
    }
}

/// Last-level table page: 512 entries and the lock that guards changes of them.
pub(in crate::mm) struct Leaf {
    ptes: [AtomicU64; ENTRIES],
    lock: Mutex<()>,
    /// Taken out of the table while faults may run: nothing may be put in any more.
    unlinked: AtomicBool,
    /// The entries stand for one of the level above: a huge page, mapped whole. Changed under the lock.
    huge: AtomicBool,
}

impl Leaf {
    pub(super) fn new() -> Box<Self> {
        Box::new(Self {
            ptes: sync::zeros(),
            lock: Mutex::new(()),
            unlinked: AtomicBool::new(false),
            huge: AtomicBool::new(false),
        })
    }
    /// The page-table lock of these 2 MiB.
    pub(in crate::mm) fn lock(&self) -> LockedLeaf<'_> {
        let held = self.lock.lock();
        LockedLeaf {
            leaf: self,
            _held: held,
        }
    }
    /// The same, unless the leaf has meanwhile been taken out of the table: look it up again then.
    pub(in crate::mm) fn lock_linked(&self) -> Option<LockedLeaf<'_>> {
        let locked = self.lock();
        (!self.unlinked.load(Ordering::Relaxed)).then_some(locked)
    }
    /// Two leaves' locks, in an order that cannot deadlock.
    pub(in crate::mm) fn lock_pair<'l>(
        a: &'l Self,
        b: &'l Self,
    ) -> (LockedLeaf<'l>, LockedLeaf<'l>) {
        if ptr::from_ref(a) < ptr::from_ref(b) {
            let first = a.lock();
            (first, b.lock())
        } else {
            let second = b.lock();
            (a.lock(), second)
        }
    }
    /// Whether it maps a huge page as one.
    pub(in crate::mm) fn is_huge(&self) -> bool {
        self.huge.load(Ordering::Acquire)
    }
    /// Reads one entry without the lock: what a hardware walk sees.
    #[inline]
    pub(in crate::mm) fn peek(&self, at: Vpn) -> RawPte {
        RawPte(self.ptes[index(at)].load(Ordering::Acquire))
    }
}

/// A leaf with its lock held.
pub(in crate::mm) struct LockedLeaf<'l> {
    leaf: &'l Leaf,
    _held: MutexGuard<'l, ()>,
}

impl LockedLeaf<'_> {
    pub(in crate::mm) fn get(&self, at: Vpn) -> RawPte {
        RawPte(self.leaf.ptes[index(at)].load(Ordering::Relaxed))
    }
    pub(in crate::mm) fn set(&self, at: Vpn, pte: RawPte) {
        self.leaf.ptes[index(at)].store(pte.0, Ordering::Release);
    }
    /// Copies the entries of `part` into an empty leaf: of each that there is `f` says what it is from now on, here and
    /// there.
    #[inline]
    pub(in crate::mm) fn copy_to(
        &self,
        to: &LockedLeaf<'_>,
        part: VpnRange,
        mut f: impl FnMut(RawPte) -> (RawPte, RawPte),
    ) {
        let entries = index(part.start())..=index(Vpn(part.end().0 - 1));
        let pairs = self.leaf.ptes[entries.clone()]
            .iter()
            .zip(&to.leaf.ptes[entries]);
        for (from, to) in pairs {
            let old = RawPte(from.load(Ordering::Relaxed));
            if old.is_none() {
                continue;
            }
            let (here, there) = f(old);
            to.store(there.0, Ordering::Release);
            if here != old {
                from.store(here.0, Ordering::Release);
            }
        }
    }
    /// Clears the entries of `part`; `f` gets each that there was.
    #[inline]
    pub(in crate::mm) fn take_all(&self, part: VpnRange, mut f: impl FnMut(RawPte)) {
        for entry in &self.leaf.ptes[index(part.start())..=index(Vpn(part.end().0 - 1))] {
            let old = RawPte(entry.load(Ordering::Relaxed));
            if !old.is_none() {
                entry.store(RawPte::NONE.0, Ordering::Release);
                f(old);
            }
        }
    }
    pub(in crate::mm) fn is_huge(&self) -> bool {
        self.leaf.is_huge()
    }
    pub(in crate::mm) fn set_huge(&self, huge: bool) {
        self.leaf.huge.store(huge, Ordering::Release);
    }
    pub(in crate::mm) fn is_empty(&self) -> bool {
        self.leaf
            .ptes
            .iter()
            .all(|p| p.load(Ordering::Relaxed) == 0)
    }
    pub(super) fn mark_unlinked(&self) {
        self.leaf.unlinked.store(true, Ordering::Relaxed);
    }
}

#[inline]
#[allow(clippy::cast_possible_truncation)]
const fn index(at: Vpn) -> usize {
    at.0 as usize & (ENTRIES - 1)
}

/// Upper-level table page: each slot is null or owns a child.
pub(in crate::mm) struct Dir<C> {
    slots: [AtomicPtr<C>; ENTRIES],
    lock: Mutex<()>,
}

/// A child taken out of its slot: owned by this value, but still seen by those who pinned before, hence no `Box`,
/// which would claim to be alone.
#[must_use]
pub(in crate::mm) struct Taken<C: Send + Sync + 'static>(NonNull<C>);

impl<C: Send + Sync + 'static> Dir<C> {
    pub(super) fn new() -> Box<Self> {
        Box::new(Self {
            slots: sync::nulls(),
            lock: Mutex::new(()),
        })
    }
    pub(in crate::mm) fn has(&self, i: usize) -> bool {
        !self.slots[i].load(Ordering::Relaxed).is_null()
    }
    #[inline]
    pub(in crate::mm) fn child<'g>(&'g self, i: usize, _pin: Pin<'g>) -> Option<&'g C> {
        let child = self.slots[i].load(Ordering::Acquire);
        // SAFETY: a non-null slot owns a live `Box<C>`. It is freed only by `Taken::retire`, through the epoch that
        // `_pin` holds back for 'g, or by dropping this directory, which the borrow for 'g forbids.
        unsafe { child.as_ref() }
    }
    /// Links a new child unless another thread was first; says whether it did.
    pub(super) fn install(&self, i: usize, made: Box<C>) -> bool {
        let held = self.lock.lock();
        let empty = !self.has(i);
        if empty {
            self.slots[i].store(Box::into_raw(made), Ordering::Release);
        }
        drop(held);
        empty
    }
    /// How many children there are.
    pub(super) fn len(&self) -> usize {
        (0..ENTRIES).filter(|&i| self.has(i)).count()
    }
    /// Unlinks a child.
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

impl<C: Send + Sync + 'static> Taken<C> {
    /// The page itself, for counting what hangs below.
    pub(super) fn page(&self) -> &C {
        // SAFETY: owned by this value, alive until it is put elsewhere or retired, both of which consume it; only shared
        // references to it exist.
        unsafe { self.0.as_ref() }
    }
    /// Destroys the page, and all below it, once every present pin has gone.
    pub(in crate::mm) fn retire(self, pin: Pin<'_>) {
        let child = self.0;
        let destroy = move || {
            // SAFETY: from `Box::into_raw`, unlinked, and every pin that could have seen it has gone.
            drop(unsafe { Box::from_raw(child.as_ptr()) });
        };
        // SAFETY: the page is unlinked, so later pins cannot reach it; `C` is `Send` and 'static, so any thread may
        // drop it at any later time.
        unsafe { pin.0.defer_unchecked(destroy) };
    }
}

impl<C> Drop for Dir<C> {
    fn drop(&mut self) {
        for slot in &mut self.slots {
            let child = sync::exclusive(slot);
            if !child.is_null() {
                // SAFETY: the slot owns the box, and `&mut self` excludes every reader.
                drop(unsafe { Box::from_raw(child) });
            }
        }
    }
}
