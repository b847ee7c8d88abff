//! An external MMU that translates nothing and records its callbacks.

use crate::{
    addr::VpnRange,
    ctx::{Atomic, AtomicCallbackCx},
    driver::SpinningMmu,
    notifier::{Ack, AgeKind, Event, Gate, Invalidation, OrderedStore, Seat},
    sync::Mutex,
};
use std::sync::Arc;

/// A callback that the recorder received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// A window over the range began.
    Window(VpnRange),
    /// The pages of the range were aged. A question that leaves the accessed state (`test_young`)
    /// is not recorded.
    Age(VpnRange),
}

impl Recorded {
    /// Returns the pages of the callback.
    pub fn range(&self) -> VpnRange {
        match *self {
            Self::Window(range) | Self::Age(range) => range,
        }
    }
}

/// An external MMU that records windows and aging calls in the order of their beginning.
pub struct Recorder {
    gate: Gate<OrderedStore<()>, (), Atomic>,
    told: Mutex<Vec<(Recorded, Option<Event>)>>,
}

impl Recorder {
    /// Builds the recorder on its seat.
    pub fn new(seat: Seat) -> Arc<Self> {
        Arc::new(Self {
            gate: Gate::new(seat, OrderedStore::default(), ()),
            told: Mutex::default(),
        })
    }
    /// Returns the callbacks since the last call, and forgets them.
    pub fn take(&self) -> Vec<Recorded> {
        self.take_events()
            .into_iter()
            .map(|(told, _)| told)
            .collect()
    }
    /// Returns the callbacks since the last call, each window with its reason, and forgets them.
    pub fn take_events(&self) -> Vec<(Recorded, Option<Event>)> {
        std::mem::take(&mut self.told.lock())
    }
    fn note(&self, inv: &Invalidation<'_>) {
        // Unregistration is a demand over everything, and no window of the address space.
        if inv.range() != VpnRange::ALL {
            let told = (Recorded::Window(inv.range()), Some(inv.event()));
            self.told.lock().push(told);
        }
    }
}

impl SpinningMmu for Recorder {
    fn invalidate<'i>(&self, cx: AtomicCallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> {
        self.note(&inv);
        self.gate.exclude(cx, inv, |(), _, _| ())
    }
    fn age(&self, cx: AtomicCallbackCx<'_>, range: VpnRange, kind: AgeKind) -> bool {
        let _unused = cx;
        if kind != AgeKind::Test {
            self.told.lock().push((Recorded::Age(range), None));
        }
        false
    }
}

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recorder")
            .field("told", &self.told.lock().len())
            .finish_non_exhaustive()
    }
}
