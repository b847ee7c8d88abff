//! A list that is read without a lock.
//!
//! Guarantee of a walk: the walk meets each value that is in the list throughout exactly once. It
//! is no snapshot: it may or may not meet a value that is inserted or removed meanwhile.
//!
//! How: the list's mutex serialises writers. A removed node keeps its `next`, so that a walker on
//! it continues with the rest. The epoch destroys the node once every pin from before its removal
//! is gone.
//!
//! Guarantee of a collection: a [`Collected`] keeps the values that it met, without a pin, until it
//! is dropped. A thread that removes a value waits for the collections that may have met it
//! ([`Unlinked::wait`]), and only then has the node destroyed. See
//! docs/adr/0020-windows-write-to-no-driver.md.
#![allow(unsafe_code)]

use super::grace::{GraceSlots, ReadSection};
use crate::{
    ctx::{Context, Cx, Epoch, Rank},
    sync::{Mutex, Ordering, RaceProbe, switch_point},
};
use crossbeam_epoch::{self as epoch, Atomic, Guard, Owned, Shared};
use std::ptr::NonNull;

struct Node<T> {
    value: T,
    /// The number of the change that inserted the node.
    inserted: u64,
    next: Atomic<Node<T>>,
    race_probe: RaceProbe,
}

impl<T> Drop for Node<T> {
    fn drop(&mut self) {
        self.race_probe.write();
    }
}

/// A list of `T`. Each collection has an `X` for itself, as the last collection left it, and all
/// collections share the `S`.
pub(super) struct EpochList<T, X = (), S = ()> {
    head: Atomic<Node<T>>,
    epoch: Epoch,
    writer: Mutex<()>,
    sections: GraceSlots<CollectedNodes<T, X>, S>,
}

/// The nodes that a collection met, in list order, and its own `X`.
pub(super) struct CollectedNodes<T, X> {
    nodes: Vec<NonNull<Node<T>>>,
    local: X,
}

// SAFETY: the nodes are read through shared references alone, by the thread that has the
// collection.
unsafe impl<T: Send + Sync, X: Send> Send for CollectedNodes<T, X> {}

impl<T, X: Default> Default for CollectedNodes<T, X> {
    fn default() -> Self {
        Self {
            nodes: Vec::new(),
            local: X::default(),
        }
    }
}

/// The values that a list had at one moment, kept until this is dropped.
pub(super) struct Collected<'l, T, X: Default, S>(ReadSection<'l, CollectedNodes<T, X>, S>);

/// A value that no new walker meets. Collections may still keep it.
#[must_use = "it goes when it is retired"]
pub(super) struct Unlinked<'l, T, X, S> {
    list: &'l EpochList<T, X, S>,
    node: *const Node<T>,
    inserted: u64,
    removed: u64,
}

/// A value that no collection keeps. Walkers may still be on its node.
#[must_use = "it goes when it is retired"]
pub(super) struct Drained<'l, T, X, S>(Unlinked<'l, T, X, S>);

impl<T: Send + Sync + 'static, X: Default + Send, S: Send + Sync> EpochList<T, X, S> {
    pub(super) fn new(epoch: Epoch, shared: S) -> Self {
        Self {
            head: Atomic::null(),
            epoch,
            writer: Mutex::new(()),
            sections: GraceSlots::new(shared),
        }
    }
    /// Checks that the holder of the token may walk the list, and remove from it.
    ///
    /// # Panics
    ///
    /// If the thread entered another machine.
    pub(super) fn check_token<R: Rank, C: Context>(&self, cx: &Cx<'_, R, C>) {
        let mine = cx.epoch_is(&self.epoch);
        assert!(mine, "this thread entered another machine");
    }
    fn check(&self, guard: &Guard) {
        assert!(self.epoch.owns(guard), "pinned in another machine's epoch");
    }
    /// Inserts a value at the front.
    pub(super) fn push(&self, value: T, guard: &Guard) {
        self.check(guard);
        let held = self.writer.lock();
        let head = self.head.load(Ordering::Relaxed, guard);
        let node = Owned::new(Node {
            value,
            inserted: self.sections.change(),
            next: Atomic::null(),
            race_probe: RaceProbe::new(),
        });
        node.next.store(head, Ordering::Relaxed);
        switch_point();
        self.head.store(node, Ordering::Release);
        drop(held);
    }
    /// Removes the first value that fits; `None` if no value does.
    pub(super) fn unlink(
        &self,
        guard: &Guard,
        mut fits: impl FnMut(&T) -> bool,
    ) -> Option<Unlinked<'_, T, X, S>> {
        self.check(guard);
        let _held = self.writer.lock();
        let mut link = &self.head;
        loop {
            switch_point();
            let at = link.load(Ordering::Acquire, guard);
            // SAFETY: a linked node is destroyed only after it was unlinked, which needs the lock
            // held here.
            let node = unsafe { at.as_ref() }?;
            if fits(&node.value) {
                switch_point();
                link.store(node.next.load(Ordering::Relaxed, guard), Ordering::Release);
                return Some(Unlinked {
                    list: self,
                    node: at.as_raw(),
                    inserted: node.inserted,
                    // After the store: a collection that knows of this change does not meet the
                    // node.
                    removed: self.sections.change(),
                });
            }
            link = &node.next;
        }
    }
    /// Visits the values, the last inserted first.
    pub(super) fn for_each(&self, guard: &Guard, mut visit: impl FnMut(&T)) {
        self.walk(guard, |node| visit(&node.value));
    }
    #[inline]
    fn walk<'g>(&self, guard: &'g Guard, mut visit: impl FnMut(&'g Node<T>)) {
        self.check(guard);
        switch_point();
        let mut at = self.head.load(Ordering::SeqCst, guard);
        // SAFETY: reached from the head or from a node reached under the same pin, which is of this
        // collector; nodes unlinked since are destroyed only after it.
        while let Some(node) = unsafe { at.as_ref() } {
            visit(node);
            node.race_probe.read();
            switch_point();
            at = node.next.load(Ordering::SeqCst, guard);
        }
    }
    /// Collects the values without a pin; `None` if a value is inserted or removed meanwhile.
    #[inline]
    pub(super) fn try_collect(&self) -> Option<Collected<'_, T, X, S>> {
        let mut section = self.sections.begin();
        switch_point();
        // SAFETY: nothing is reached through it but nodes that the section keeps.
        let unpinned = unsafe { epoch::unprotected() };
        // SeqCst, as all reads of the list: see `grace`, and `Board::is_idle`.
        let mut at = self.head.load(Ordering::SeqCst, unpinned);
        // An insertion is numbered before its node is at the head, so changes that the section
        // knows of inserted all nodes from here on.
        if !self.sections.is_current(&section) {
            return None;
        }
        // SAFETY: the node was not removed, or else by a change that the section does not know of,
        // and then it is destroyed only after `Unlinked::wait`, which waits for this section. The
        // same holds for the nodes behind it, which were inserted before.
        while let Some(node) = unsafe { at.as_ref() } {
            section.nodes.push(NonNull::from(node));
            node.race_probe.read();
            switch_point();
            at = node.next.load(Ordering::SeqCst, unpinned);
        }
        Some(Collected(section))
    }
    /// Collects the values under a pin. Values inserted from now on may be left out; the removal of
    /// a collected value waits.
    #[inline]
    pub(super) fn collect(&self, guard: &Guard) -> Collected<'_, T, X, S> {
        let mut section = self.sections.begin();
        self.walk(guard, |node| {
            if section.knows(node.inserted) {
                section.nodes.push(NonNull::from(node));
            }
        });
        Collected(section)
    }
}

impl<T, X: Default, S> Collected<'_, T, X, S> {
    /// Returns the state that belongs to this collection.
    #[inline]
    pub(super) fn local(&self) -> &X {
        &self.0.local
    }
    /// Returns the state that all collections share.
    #[inline]
    pub(super) fn shared(&self) -> &S {
        self.0.shared()
    }
    #[inline]
    /// Returns the state that belongs to this collection, mutably.
    pub(super) fn local_mut(&mut self) -> &mut X {
        &mut self.0.local
    }
    /// Returns the values in list order.
    #[inline]
    pub(super) fn values(&self) -> impl DoubleEndedIterator<Item = &T> + ExactSizeIterator {
        self.0.nodes.iter().map(|node| {
            // SAFETY: this collection met the node, and knows of its insertion. The node was not
            // removed, or else by a change that the section does not know of, and then it is
            // destroyed only after `Unlinked::wait`, which waits for this section.
            let node = unsafe { node.as_ref() };
            node.race_probe.read();
            &node.value
        })
    }
}

impl<T, X: Default, S> Drop for Collected<'_, T, X, S> {
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
    /// Sleeps until no collection keeps the value. The caller has no pin: such a collection may
    /// need one to come to its end.
    pub(super) fn wait(self) -> Drained<'l, T, X, S> {
        self.list.sections.wait(self.inserted, self.removed);
        Drained(self)
    }
    /// Does not wait: the mistake that a model must find.
    #[cfg(all(test, loom))]
    pub(super) fn without_waiting(self) -> Drained<'l, T, X, S> {
        Drained(self)
    }
}

impl<T, X, S> Drained<'_, T, X, S>
where
    T: Send + Sync + 'static,
    X: Default + Send,
    S: Send + Sync,
{
    /// Has the node destroyed when no walker is on it any more.
    pub(super) fn retire(self, guard: &Guard) {
        self.0.list.check(guard);
        let at = Shared::from(self.0.node);
        // SAFETY: unlinked by the thread that made this value, so this is the only time; later pins
        // cannot reach the node, and earlier ones, checked to be of this collector, hold its
        // destruction back.
        unsafe { guard.defer_destroy(at) };
        // At once, not when this thread has more garbage: a driver may be large.
        guard.flush();
    }
}

impl<T, X, S> Drop for EpochList<T, X, S> {
    fn drop(&mut self) {
        let mut at = std::mem::replace(&mut self.head, Atomic::null());
        loop {
            // SAFETY: `&mut self`: no walker is left in this list, and each node here is linked,
            // hence owned by it.
            let Some(node) = (unsafe { at.try_into_owned() }) else {
                return;
            };
            at = std::mem::replace(&mut node.into_box().next, Atomic::null());
        }
    }
}

#[cfg(test)]
mod tests;
