//! A list that is walked without a lock, and a pointer that is set once: the unsafe code of the chain.
//!
//! Guarantee of a walk: everyone who is in the list throughout is met exactly once. It is no snapshot: who comes or
//! goes meanwhile may or may not be met.
//!
//! How: writers are serialised by the list's mutex. A removed node keeps its `next`, so that a walker standing on it
//! goes on to the rest; it is destroyed through the epoch, once every pin of the moment of its removal has gone.
#![allow(unsafe_code)]

use crate::{
    ctx::Epoch,
    sync::{AtomicPtr, Mutex, Ordering, Witness, exclusive, probe},
};
use crossbeam_epoch::{Atomic, Guard, Owned};
use std::{marker::PhantomData, ptr, sync::Arc};

struct Node<T> {
    value: T,
    next: Atomic<Node<T>>,
    witness: Witness,
}

impl<T> Drop for Node<T> {
    fn drop(&mut self) {
        self.witness.write();
    }
}

/// The list. `T` is a handle, cheap to clone.
pub(super) struct EpochList<T> {
    head: Atomic<Node<T>>,
    epoch: Epoch,
    writer: Mutex<()>,
}

impl<T: Send + Sync + 'static> EpochList<T> {
    pub(super) fn new(epoch: Epoch) -> Self {
        Self {
            head: Atomic::null(),
            epoch,
            writer: Mutex::new(()),
        }
    }
    fn check(&self, guard: &Guard) {
        assert!(self.epoch.owns(guard), "pinned in another machine's epoch");
    }
    /// Puts a value in front.
    pub(super) fn push(&self, value: T, guard: &Guard) {
        self.check(guard);
        let held = self.writer.lock();
        let head = self.head.load(Ordering::Relaxed, guard);
        let node = Owned::new(Node {
            value,
            next: Atomic::null(),
            witness: Witness::new(),
        });
        node.next.store(head, Ordering::Relaxed);
        probe();
        self.head.store(node, Ordering::Release);
        drop(held);
    }
    /// Takes out the first value that fits; says whether there was one.
    pub(super) fn remove(&self, guard: &Guard, mut fits: impl FnMut(&T) -> bool) -> bool {
        self.check(guard);
        let held = self.writer.lock();
        let mut link = &self.head;
        loop {
            probe();
            let at = link.load(Ordering::Acquire, guard);
            // SAFETY: a linked node is destroyed only after it was unlinked, which needs the lock held here.
            let Some(node) = (unsafe { at.as_ref() }) else {
                return false;
            };
            if fits(&node.value) {
                probe();
                link.store(node.next.load(Ordering::Relaxed, guard), Ordering::Release);
                drop(held);
                // SAFETY: unlinked just now, by the one writer, so this is the only time; later pins cannot reach it,
                // and earlier ones, checked to be of this collector, hold its destruction back.
                unsafe { guard.defer_destroy(at) };
                // Not to wait for this thread to have more to give: a driver may be large.
                guard.flush();
                return true;
            }
            link = &node.next;
        }
    }
    /// Visits the values, the last put in first.
    pub(super) fn for_each(&self, guard: &Guard, mut visit: impl FnMut(&T)) {
        self.check(guard);
        probe();
        let mut at = self.head.load(Ordering::Acquire, guard);
        // SAFETY: reached from the head or from a node reached under the same pin, which is of this collector; nodes
        // unlinked since are destroyed only after it.
        while let Some(node) = unsafe { at.as_ref() } {
            visit(&node.value);
            node.witness.read();
            probe();
            at = node.next.load(Ordering::Acquire, guard);
        }
    }
}

impl<T> Drop for EpochList<T> {
    fn drop(&mut self) {
        let mut at = std::mem::replace(&mut self.head, Atomic::null());
        loop {
            // SAFETY: `&mut self`: no walker is left in this list, and each node here is linked, hence owned by it.
            let Some(node) = (unsafe { at.try_into_owned() }) else {
                return;
            };
            at = std::mem::replace(&mut node.into_box().next, Atomic::null());
        }
    }
}

/// A shared value that is made at most once, and then stays: one pointer wide.
pub(super) struct Lazy<T> {
    at: AtomicPtr<T>,
    owns: PhantomData<Arc<T>>,
}

impl<T: Send + Sync> Lazy<T> {
    pub(super) fn new() -> Self {
        Self {
            at: AtomicPtr::new(ptr::null_mut()),
            owns: PhantomData,
        }
    }
    /// One load.
    #[inline(always)]
    pub(super) fn get(&self) -> Option<&T> {
        // SAFETY: null, or from `Arc::into_raw` in `get_or_make`, a reference of this value's own, which only `drop` gives
        // up; that the borrow excludes.
        unsafe { self.at.load(Ordering::Acquire).as_ref() }
    }
    /// A reference that may outlive this.
    pub(super) fn share(&self) -> Option<Arc<T>> {
        // Not through a reference, which would not lead to the count beside the value.
        let at = self.at.load(Ordering::Acquire);
        if at.is_null() {
            return None;
        }
        // SAFETY: from `Arc::into_raw`, and this value's reference keeps the count above zero meanwhile.
        unsafe { Arc::increment_strong_count(at) };
        // SAFETY: takes over the reference that was added just now.
        Some(unsafe { Arc::from_raw(at) })
    }
    pub(super) fn get_or_make(&self, make: impl FnOnce() -> T) -> &T {
        if let Some(value) = self.get() {
            return value;
        }
        let made = Arc::into_raw(Arc::new(make())).cast_mut();
        let set =
            self.at
                .compare_exchange(ptr::null_mut(), made, Ordering::AcqRel, Ordering::Acquire);
        if set.is_err() {
            // SAFETY: the exchange failed, so nobody else has seen it.
            drop(unsafe { Arc::from_raw(made) });
        }
        self.get().expect("set by this thread or another")
    }
}

impl<T> Drop for Lazy<T> {
    fn drop(&mut self) {
        let at = exclusive(&mut self.at);
        if !at.is_null() {
            // SAFETY: from `Arc::into_raw`, and `&mut self` excludes every borrow through this.
            drop(unsafe { Arc::from_raw(at) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{EpochList, Lazy};
    use crate::ctx::Epoch;
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    };

    struct Counted(u32, Arc<AtomicUsize>);
    impl Drop for Counted {
        fn drop(&mut self) {
            self.1.fetch_add(1, SeqCst);
        }
    }

    #[test]
    fn the_last_put_in_is_met_first_and_removal_takes_one() {
        let epoch = Epoch::new();
        let local = epoch.register();
        let list = EpochList::new(epoch.clone());
        let guard = local.pin();
        for n in 0..4 {
            list.push(n, &guard);
        }
        assert!(list.remove(&guard, |n| *n == 2));
        assert!(!list.remove(&guard, |n| *n == 2));
        let mut met = Vec::new();
        list.for_each(&guard, |n| met.push(*n));
        assert_eq!(met, [3, 1, 0]);
    }

    #[test]
    fn a_removed_node_stays_for_those_who_pinned_before_and_goes_afterwards() {
        let drops = Arc::new(AtomicUsize::new(0));
        let epoch = Epoch::new();
        let (walker, writer) = (epoch.register(), epoch.register());
        let list = EpochList::new(epoch.clone());
        for n in 0..3 {
            list.push(Counted(n, Arc::clone(&drops)), &writer.pin());
        }
        let pinned = walker.pin();
        let mut met = Vec::new();
        list.for_each(&pinned, |c| {
            // Removed while the walker stands on it: the walk goes on.
            list.remove(&writer.pin(), |other| other.0 == c.0);
            met.push(c.0);
        });
        assert_eq!((met, drops.load(SeqCst)), (vec![2, 1, 0], 0));
        drop(pinned);
        for _ in 0..512 {
            writer.pin().flush();
        }
        drop((walker, writer, list));
        assert_eq!(drops.load(SeqCst), 3);
    }

    #[test]
    fn dropping_the_list_drops_what_is_in_it_once() {
        let drops = Arc::new(AtomicUsize::new(0));
        let epoch = Epoch::new();
        let local = epoch.register();
        let list = EpochList::new(epoch.clone());
        for n in 0..3 {
            list.push(Counted(n, Arc::clone(&drops)), &local.pin());
        }
        drop(list);
        assert_eq!(drops.load(SeqCst), 3);
    }

    #[test]
    #[should_panic(expected = "another machine's epoch")]
    fn a_foreign_pin_is_refused() {
        let list = EpochList::new(Epoch::new());
        let other = Epoch::new();
        let foreign = other.register();
        list.push(1, &foreign.pin());
    }

    #[test]
    fn writers_and_walkers_meet_everyone_who_stays() {
        let epoch = Epoch::new();
        let list = EpochList::new(epoch.clone());
        list.push(Counted(1000, Arc::default()), &epoch.register().pin());
        let rounds = if cfg!(miri) { 20 } else { 2000 };
        std::thread::scope(|s| {
            for lane in 0..2_u32 {
                let (list, epoch) = (&list, &epoch);
                s.spawn(move || {
                    let local = epoch.register();
                    for _ in 0..rounds {
                        list.push(Counted(lane, Arc::default()), &local.pin());
                        assert!(list.remove(&local.pin(), |c| c.0 == lane));
                    }
                });
            }
            let local = epoch.register();
            for _ in 0..rounds {
                let mut stayed = 0;
                list.for_each(&local.pin(), |c| stayed += u32::from(c.0 == 1000));
                assert_eq!(stayed, 1);
            }
        });
    }

    #[test]
    fn a_lazy_value_is_one_pointer_and_made_once() {
        assert_eq!(size_of::<Lazy<[u64; 9]>>(), size_of::<usize>());
        let lazy = Lazy::new();
        assert!(lazy.get().is_none());
        std::thread::scope(|s| {
            for n in 0..3 {
                let lazy = &lazy;
                s.spawn(move || lazy.get_or_make(|| Box::new(n)));
            }
        });
        assert!(lazy.get().is_some());
        let shared = lazy.share().unwrap();
        assert!(std::ptr::eq(&*shared, lazy.get().unwrap()));
        assert_eq!(lazy.get_or_make(|| Box::new(99)), lazy.get().unwrap());
    }
}
