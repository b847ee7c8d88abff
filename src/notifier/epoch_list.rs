//! A list that is walked without a lock.
//!
//! Guarantee of a walk: everyone who is in the list throughout is met exactly once. It is no snapshot: who comes or
//! goes meanwhile may or may not be met.
//!
//! How: writers are serialised by the list's mutex. A removed node keeps its `next`, so that a walker standing on it
//! goes on to the rest; it is destroyed through the epoch, once every pin of the moment of its removal has gone.
//!
//! A [`Call`] keeps whom it met on a walk beyond its pin: whoever takes a value out waits for the calls that may have met
//! it, and only then has it destroyed.
#![allow(unsafe_code)]

use super::calls::{Call, GraceSlots};
use crate::{
    ctx::{Context, Cx, Epoch, Rank},
    sync::{Mutex, Ordering, RaceProbe, probe},
};
use crossbeam_epoch::{self as epoch, Atomic, Guard, Owned, Shared};
use std::ptr::NonNull;

struct Node<T> {
    value: T,
    /// The number of the change by which it came.
    came: u64,
    next: Atomic<Node<T>>,
    witness: RaceProbe,
}

impl<T> Drop for Node<T> {
    fn drop(&mut self) {
        self.witness.write();
    }
}

/// The list. A call has an `X` for itself, as the last one left it, beside whom it met, and can reach the `S`.
pub(super) struct EpochList<T, X = (), S = ()> {
    head: Atomic<Node<T>>,
    epoch: Epoch,
    writer: Mutex<()>,
    calls: GraceSlots<CalleeList<T, X>, S>,
}

/// Whom a call met, in that order.
pub(super) struct CalleeList<T, X> {
    nodes: Vec<NonNull<Node<T>>>,
    own: X,
}

// SAFETY: the nodes are read through shared references alone, by whichever thread has the call.
unsafe impl<T: Send + Sync, X: Send> Send for CalleeList<T, X> {}

impl<T, X: Default> Default for CalleeList<T, X> {
    fn default() -> Self {
        Self {
            nodes: Vec::new(),
            own: X::default(),
        }
    }
}

/// The right to keep the values that were met on a walk.
pub(super) struct Calling<'l, T, X: Default, S>(Call<'l, CalleeList<T, X>, S>);

/// A value that new walkers do not meet. Calls may keep it.
#[must_use = "it goes when it is retired"]
pub(super) struct Unlinked<'l, T, X, S> {
    list: &'l EpochList<T, X, S>,
    node: *const Node<T>,
    came: u64,
    gone: u64,
}

/// A value that no call keeps. Walkers may stand on it.
#[must_use = "it goes when it is retired"]
pub(super) struct Uncalled<'l, T, X, S>(Unlinked<'l, T, X, S>);

impl<T: Send + Sync + 'static, X: Default + Send, S: Send + Sync> EpochList<T, X, S> {
    pub(super) fn new(epoch: Epoch, shared: S) -> Self {
        Self {
            head: Atomic::null(),
            epoch,
            writer: Mutex::new(()),
            calls: GraceSlots::new(shared),
        }
    }
    /// Whoever holds the token may walk the list, and take from it.
    pub(super) fn check_token<R: Rank, C: Context>(&self, cx: &Cx<'_, R, C>) {
        let mine = cx.epoch_is(&self.epoch);
        assert!(mine, "this thread entered another machine");
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
            came: self.calls.change(),
            next: Atomic::null(),
            witness: RaceProbe::new(),
        });
        node.next.store(head, Ordering::Relaxed);
        probe();
        self.head.store(node, Ordering::Release);
        drop(held);
    }
    /// Takes out the first value that fits, if there is one.
    pub(super) fn unlink(
        &self,
        guard: &Guard,
        mut fits: impl FnMut(&T) -> bool,
    ) -> Option<Unlinked<'_, T, X, S>> {
        self.check(guard);
        let _held = self.writer.lock();
        let mut link = &self.head;
        loop {
            probe();
            let at = link.load(Ordering::Acquire, guard);
            // SAFETY: a linked node is destroyed only after it was unlinked, which needs the lock held here.
            let node = unsafe { at.as_ref() }?;
            if fits(&node.value) {
                probe();
                link.store(node.next.load(Ordering::Relaxed, guard), Ordering::Release);
                return Some(Unlinked {
                    list: self,
                    node: at.as_raw(),
                    came: node.came,
                    // After the store: a call that knows of this change does not meet it.
                    gone: self.calls.change(),
                });
            }
            link = &node.next;
        }
    }
    /// Visits the values, the last put in first.
    pub(super) fn for_each(&self, guard: &Guard, mut visit: impl FnMut(&T)) {
        self.walk(guard, |node| visit(&node.value));
    }
    #[inline]
    fn walk<'g>(&self, guard: &'g Guard, mut visit: impl FnMut(&'g Node<T>)) {
        self.check(guard);
        probe();
        let mut at = self.head.load(Ordering::Acquire, guard);
        // SAFETY: reached from the head or from a node reached under the same pin, which is of this collector; nodes
        // unlinked since are destroyed only after it.
        while let Some(node) = unsafe { at.as_ref() } {
            visit(node);
            node.witness.read();
            probe();
            at = node.next.load(Ordering::Acquire, guard);
        }
    }
    /// Begins a call of everybody who is in the list, without a pin; `None` if somebody comes or goes meanwhile.
    #[inline]
    pub(super) fn try_call(&self) -> Option<Calling<'_, T, X, S>> {
        let mut call = self.calls.begin();
        probe();
        // SAFETY: nothing is reached through it but what the call keeps.
        let unpinned = unsafe { epoch::unprotected() };
        let mut at = self.head.load(Ordering::Acquire, unpinned);
        // Whoever comes is numbered before he is at the head, so all from here on came by changes that the call knows of.
        if !self.calls.is_current(&call) {
            return None;
        }
        // SAFETY: it had not gone, or else by a change that the call does not know of, and then it is destroyed only
        // after `Unlinked::wait`, which waits for this call. So are those behind it, who came before.
        while let Some(node) = unsafe { at.as_ref() } {
            call.nodes.push(NonNull::from(node));
            node.witness.read();
            probe();
            at = node.next.load(Ordering::Acquire, unpinned);
        }
        Some(Calling(call))
    }
    /// Begins a call of everybody who is in the list: those who come from now on may be left out, those who go wait.
    #[inline]
    pub(super) fn call(&self, guard: &Guard) -> Calling<'_, T, X, S> {
        let mut call = self.calls.begin();
        self.walk(guard, |node| {
            if call.knows(node.came) {
                call.nodes.push(NonNull::from(node));
            }
        });
        Calling(call)
    }
}

impl<T, X: Default, S> Calling<'_, T, X, S> {
    /// What the call has for itself.
    #[inline]
    pub(super) fn own(&self) -> &X {
        &self.0.own
    }
    /// What all calls share.
    #[inline]
    pub(super) fn shared(&self) -> &S {
        self.0.shared()
    }
    #[inline]
    pub(super) fn own_mut(&mut self) -> &mut X {
        &mut self.0.own
    }
    /// Who was met, in that order.
    #[inline]
    pub(super) fn met(&self) -> impl DoubleEndedIterator<Item = &T> + ExactSizeIterator {
        self.0.nodes.iter().map(|node| {
            // SAFETY: met by this call, which knows of its coming. It had not gone, or else by a change that the call does
            // not know of, and then it is destroyed only after `Unlinked::wait`, which waits for this call.
            let node = unsafe { node.as_ref() };
            node.witness.read();
            &node.value
        })
    }
}

impl<T, X: Default, S> Drop for Calling<'_, T, X, S> {
    #[inline]
    fn drop(&mut self) {
        self.0.nodes.clear();
    }
}

impl<'l, T, X, S> Unlinked<'l, T, X, S>
where
    T: Send + Sync + 'static,
    X: Default + Send,
    S: Send + Sync,
{
    /// Sleeps until no call keeps it; to be called without a pin, which such a call may need to come to its end.
    pub(super) fn wait(self) -> Uncalled<'l, T, X, S> {
        self.list.calls.wait(self.came, self.gone);
        Uncalled(self)
    }
    /// What must not be done.
    #[cfg(all(test, loom))]
    pub(super) fn without_waiting(self) -> Uncalled<'l, T, X, S> {
        Uncalled(self)
    }
}

impl<T, X, S> Uncalled<'_, T, X, S>
where
    T: Send + Sync + 'static,
    X: Default + Send,
    S: Send + Sync,
{
    /// Has it destroyed when no walker stands on it any more.
    pub(super) fn retire(self, guard: &Guard) {
        self.0.list.check(guard);
        let at = Shared::from(self.0.node);
        // SAFETY: unlinked by the one who made this value, so this is the only time; later pins cannot reach it, and
        // earlier ones, checked to be of this collector, hold its destruction back.
        unsafe { guard.defer_destroy(at) };
        // Not to wait for this thread to have more to give: a driver may be large.
        guard.flush();
    }
}

impl<T, X, S> Drop for EpochList<T, X, S> {
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

#[cfg(test)]
mod tests {
    use super::EpochList;
    use crate::ctx::Epoch;
    use crossbeam_epoch::LocalHandle;
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

    fn remove<T: Send + Sync + 'static>(
        list: &EpochList<T>,
        local: &LocalHandle,
        fits: impl FnMut(&T) -> bool,
    ) -> bool {
        let unlinked = list.unlink(&local.pin(), fits);
        let found = unlinked.is_some();
        unlinked
            .into_iter()
            .for_each(|u| u.wait().retire(&local.pin()));
        found
    }

    #[test]
    fn the_last_put_in_is_met_first_and_removal_takes_one() {
        let epoch = Epoch::new();
        let local = epoch.register();
        let list = EpochList::<_>::new(epoch.clone(), ());
        let guard = local.pin();
        for n in 0..4 {
            list.push(n, &guard);
        }
        assert!(remove(&list, &local, |n| *n == 2));
        assert!(!remove(&list, &local, |n| *n == 2));
        let mut met = Vec::new();
        list.for_each(&guard, |n| met.push(*n));
        assert_eq!(met, [3, 1, 0]);
    }

    #[test]
    fn a_removed_node_stays_for_those_who_pinned_before_and_goes_afterwards() {
        let drops = Arc::new(AtomicUsize::new(0));
        let epoch = Epoch::new();
        let (walker, writer) = (epoch.register(), epoch.register());
        let list = EpochList::<_>::new(epoch.clone(), ());
        for n in 0..3 {
            list.push(Counted(n, Arc::clone(&drops)), &writer.pin());
        }
        let pinned = walker.pin();
        let mut met = Vec::new();
        list.for_each(&pinned, |c| {
            // Removed while the walker stands on it: the walk goes on.
            remove(&list, &writer, |other| other.0 == c.0);
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
        let list = EpochList::<_>::new(epoch.clone(), ());
        for n in 0..3 {
            list.push(Counted(n, Arc::clone(&drops)), &local.pin());
        }
        drop(list);
        assert_eq!(drops.load(SeqCst), 3);
    }

    #[test]
    #[should_panic(expected = "another machine's epoch")]
    fn a_foreign_pin_is_refused() {
        let list = EpochList::<_>::new(Epoch::new(), ());
        let other = Epoch::new();
        let foreign = other.register();
        list.push(1, &foreign.pin());
    }

    #[test]
    fn writers_and_walkers_meet_everyone_who_stays() {
        let epoch = Epoch::new();
        let list = EpochList::<_>::new(epoch.clone(), ());
        list.push(Counted(1000, Arc::default()), &epoch.register().pin());
        let rounds = if cfg!(miri) { 20 } else { 2000 };
        std::thread::scope(|s| {
            for lane in 0..2_u32 {
                let (list, epoch) = (&list, &epoch);
                s.spawn(move || {
                    let local = epoch.register();
                    for _ in 0..rounds {
                        list.push(Counted(lane, Arc::default()), &local.pin());
                        assert!(remove(list, &local, |c| c.0 == lane));
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
}
