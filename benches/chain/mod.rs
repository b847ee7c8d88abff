//! The chain's own price: drivers that have nothing to do, and beside them the plainest list behind
//! an epoch.
#![allow(dead_code)] // Each benchmark uses a part of it.

use crossbeam_epoch as epoch;
use emmu::{
    Mm, PAGE_SIZE,
    addr::{Vpn, VpnRange},
    ctx::{Atomic, CallCx, CallbackCx},
    notifier::{Access, Ack, ExternalMmu, Gate, Invalidation, OrderedStore, Seat},
};
use std::{
    hint::black_box,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

/// A driver with a table, and nothing to do beside dropping entries.
pub(crate) struct Driver(Gate<OrderedStore<u64>, (), Atomic>);

impl Driver {
    pub(crate) fn new(seat: Seat) -> Arc<Self> {
        Arc::new(Self(Gate::new(seat, OrderedStore::default(), ())))
    }
    /// Establishes a translation of page `n` from `base` on.
    pub(crate) fn translate(&self, cx: &mut CallCx<'_>, mm: &Mm, base: u64, n: u64) {
        let page = Vpn::containing(base + n * PAGE_SIZE);
        let pending = mm
            .resolve(cx, self.0.ticket(page, Access::Read))
            .expect("mapped");
        let permit = pending.admit(cx).expect("no window is open");
        drop(permit.establish(n));
    }
}

impl ExternalMmu for Driver {
    #[inline]
    fn invalidate_start<'i>(&self, cx: CallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> {
        self.0.exclude_entries(cx, inv)
    }
}

/// A list behind an epoch, as plain as can be; nothing is ever taken out.
pub(crate) struct List {
    head: epoch::Atomic<Node>,
    nodes: Vec<Arc<Node>>,
    collector: epoch::Collector,
}

struct Node {
    called: Box<dyn Called>,
    next: epoch::Atomic<Node>,
}

trait Called: Send + Sync {
    fn call(&self, range: VpnRange);
}

impl Called for AtomicUsize {
    fn call(&self, range: VpnRange) {
        // Somebody who only looks whether it concerns him.
        if black_box(range).start() == Vpn(0) {
            self.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl List {
    pub(crate) fn new(len: usize) -> Self {
        let mut nodes: Vec<Arc<Node>> = Vec::new();
        for _ in 0..len {
            let next = match nodes.last() {
                Some(last) => epoch::Atomic::from(Arc::as_ptr(last)),
                None => epoch::Atomic::null(),
            };
            nodes.push(Arc::new(Node {
                called: Box::new(AtomicUsize::new(0)),
                next,
            }));
        }
        Self {
            head: nodes.last().map_or(epoch::Atomic::null(), |n| {
                epoch::Atomic::from(Arc::as_ptr(n))
            }),
            nodes,
            collector: epoch::Collector::new(),
        }
    }
    /// A participant, for walks.
    pub(crate) fn register(&self) -> epoch::LocalHandle {
        self.collector.register()
    }
    /// Calls everybody once, under a pin.
    #[inline]
    pub(crate) fn walk(&self, local: &epoch::LocalHandle, range: VpnRange) {
        let guard = local.pin();
        let mut at = self.head.load(Ordering::Acquire, &guard);
        // SAFETY: every node is owned by this list's vector, which nothing is taken out of.
        while let Some(node) = unsafe { at.as_ref() } {
            node.called.call(range);
            at = node.next.load(Ordering::Acquire, &guard);
        }
    }
}
