//! An external MMU that translates nothing and writes down what it is told.

use crate::ctx::{AtomicCallbackCx, CallbackCx};
use crate::{
    addr::VpnRange,
    ctx::Atomic,
    notifier::{
        Ack, AgeKind, Event, ExternalMmu, Gate, Invalidation, OrderedStore, Seat, WouldBlock,
    },
    sync::Mutex,
};
use std::sync::Arc;

/// Something that the recorder was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// The beginning of a window.
    Window(VpnRange),
    /// An aging call.
    Age(VpnRange),
}

impl Told {
    /// The pages that it was about.
    pub fn range(&self) -> VpnRange {
        match *self {
            Self::Window(range) | Self::Age(range) => range,
        }
    }
}

/// Records windows and aging calls in the order of their beginning.
pub struct Recorder {
    gate: Gate<OrderedStore<()>, (), Atomic>,
    told: Mutex<Vec<(Told, Option<Event>)>>,
}

impl Recorder {
    /// Builds the recorder around its seat.
    pub fn new(seat: Seat) -> Arc<Self> {
        Arc::new(Self {
            gate: Gate::new(seat, OrderedStore::default(), ()),
            told: Mutex::default(),
        })
    }
    /// What it was told since the last call.
    pub fn take(&self) -> Vec<Told> {
        self.take_events()
            .into_iter()
            .map(|(told, _)| told)
            .collect()
    }
    /// The same with the reason of each window.
    pub fn take_events(&self) -> Vec<(Told, Option<Event>)> {
        std::mem::take(&mut self.told.lock())
    }
    fn note(&self, inv: &Invalidation<'_>) {
        // Leaving the chain is a demand over everything; it is no window of the address space.
        if inv.range() != VpnRange::ALL {
            let told = (Told::Window(inv.range()), Some(inv.event()));
            self.told.lock().push(told);
        }
    }
}

impl ExternalMmu for Recorder {
    fn invalidate_start<'i>(&self, cx: CallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> {
        self.note(&inv);
        self.gate.exclude(cx, inv, |(), _, _| ())
    }
    fn try_invalidate_start<'i>(
        &self,
        cx: AtomicCallbackCx<'_>,
        inv: Invalidation<'i>,
    ) -> Result<Ack<'i>, WouldBlock> {
        self.note(&inv);
        Ok(self.gate.exclude(cx, inv, |(), _, _| ()))
    }
    fn age(&self, cx: AtomicCallbackCx<'_>, range: VpnRange, kind: AgeKind) -> bool {
        let _unused = (cx, kind);
        self.told.lock().push((Told::Age(range), None));
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
