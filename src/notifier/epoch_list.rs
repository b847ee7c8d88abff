//! A list that is walked without a lock.
//!
//! Guarantee of a walk: everyone who is in the list throughout is met exactly once. It is no snapshot: who comes or
//! goes meanwhile may or may not be met.
//!
//! How: writers are serialised by the list's mutex. A removed node keeps its `next`, so that a walker phase on it
//! goes on to the rest; it is destroyed through the epoch, once every pin of the moment of its removal has removed.
//!
//! A [`ReadSection`] keeps whom it met on a walk beyond its pin: whoever takes a value out waits for the calls that may have met
//! it, and only then has it destroyed.
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
    /// The number of the change by which it inserted.
    inserted: u64,
    next: Atomic<Node<T>>,
    race_probe: RaceProbe,
}

impl<T> Drop for Node<T> {
    fn drop(&mut self) {
        self.race_probe.write();
    }
}

/// The list. A call has an `X` for itself, as the last one left it, beside whom it met, and can reach the `S`.
pub(super) struct EpochList<T, X = (), S = ()> {
    head: Atomic<Node<T>>,
    epoch: Epoch,
    writer: Mutex<()>,
    sections: GraceSlots<CollectedNodes<T, X>, S>,
}

/// Whom a call met, in that order.
pub(super) struct CollectedNodes<T, X> {
    nodes: Vec<NonNull<Node<T>>>,
    local: X,
}

// SAFETY: the nodes are read through shared references alone, by whichever thread has the call.
unsafe impl<T: Send + Sync, X: Send> Send for CollectedNodes<T, X> {}

impl<T, X: Default> Default for CollectedNodes<T, X> {
    fn default() -> Self {
        Self {
            nodes: Vec::new(),
            local: X::default(),
        }
    }
}

/// The right to keep the values that were met on a walk.
pub(super) struct Collected<'l, T, X: Default, S>(ReadSection<'l, CollectedNodes<T, X>, S>);

/// A value that new walkers do not meet. Calls may keep it.
#[must_use = "it goes when it is retired"]
pub(super) struct Unlinked<'l, T, X, S> {
    list: &'l EpochList<T, X, S>,
    node: *const Node<T>,
    inserted: u64,
    removed: u64,
}

/// A value that no call keeps. Walkers may stand on it.
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
            inserted: self.sections.change(),
            next: Atomic::null(),
            race_probe: RaceProbe::new(),
        });
        node.next.store(head, Ordering::Relaxed);
        switch_point();
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
            switch_point();
            let at = link.load(Ordering::Acquire, guard);
            // SAFETY: a linked node is destroyed only after it was unlinked, which needs the lock held here.
            let node = unsafe { at.as_ref() }?;
            if fits(&node.value) {
                switch_point();
                link.store(node.next.load(Ordering::Relaxed, guard), Ordering::Release);
                return Some(Unlinked {
                    list: self,
                    node: at.as_raw(),
                    inserted: node.inserted,
                    // After the store: a call that knows of this change does not meet it.
                    removed: self.sections.change(),
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
        switch_point();
        let mut at = self.head.load(Ordering::Acquire, guard);
        // SAFETY: reached from the head or from a node reached under the same pin, which is of this collector; nodes
        // unlinked since are destroyed only after it.
        while let Some(node) = unsafe { at.as_ref() } {
            visit(node);
            node.race_probe.read();
            switch_point();
            at = node.next.load(Ordering::Acquire, guard);
        }
    }
    /// Begins a call of everybody who is in the list, without a pin; `None` if somebody comes or goes meanwhile.
    #[inline]
    pub(super) fn try_collect(&self) -> Option<Collected<'_, T, X, S>> {
        let mut section = self.sections.begin();
        switch_point();
        // SAFETY: nothing is reached through it but what the call keeps.
        let unpinned = unsafe { epoch::unprotected() };
        let mut at = self.head.load(Ordering::Acquire, unpinned);
        // Whoever comes is numbered before he is at the head, so all from here on inserted by changes that the call knows of.
        if !self.sections.is_current(&section) {
            return None;
        }
        // SAFETY: it had not removed, or else by a change that the call does not know of, and then it is destroyed only
        // after `Unlinked::wait`, which waits for this call. So are those behind it, who inserted before.
        while let Some(node) = unsafe { at.as_ref() } {
            section.nodes.push(NonNull::from(node));
            node.race_probe.read();
            switch_point();
            at = node.next.load(Ordering::Acquire, unpinned);
        }
        Some(Collected(section))
    }
    /// Begins a call of everybody who is in the list: those who come from now on may be left out, those who go wait.
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
    /// What the call has for itself.
    #[inline]
    pub(super) fn local(&self) -> &X {
        &self.0.local
    }
    /// What all calls share.
    #[inline]
    pub(super) fn shared(&self) -> &S {
        self.0.shared()
    }
    #[inline]
    pub(super) fn local_mut(&mut self) -> &mut X {
        &mut self.0.local
    }
    /// Who was met, in that order.
    #[inline]
    pub(super) fn values(&self) -> impl DoubleEndedIterator<Item = &T> + ExactSizeIterator {
        self.0.nodes.iter().map(|node| {
            // SAFETY: met by this call, which knows of its coming. It had not removed, or else by a change that the call does
            // not know of, and then it is destroyed only after `Unlinked::wait`, which waits for this call.
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
    /// Sleeps until no call keeps it; to be called without a pin, which such a call may need to come to its end.
    pub(super) fn wait(self) -> Drained<'l, T, X, S> {
        self.list.sections.wait(self.inserted, self.removed);
        Drained(self)
    }
    /// What must not be done.
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
mod tests;
