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
///
/// # Examples
///
/// ```
/// use emmu::{PAGE_SIZE, extmmu::Recorder, mm::{MmapArgs, Prot}, notifier::Event};
/// # let machine = emmu::Machine::new(Default::default());
/// # let mut thread = machine.enter()?;
/// # let mut cx = thread.cx();
/// # let mm = emmu::Mm::new(&machine);
///
/// let (recorder, registration) = mm.register(&mut cx, Recorder::new);
/// let at = mm.mmap(&mut cx, &MmapArgs::anonymous(PAGE_SIZE))?;
/// mm.store(&mut cx, at, 7)?;
/// mm.mprotect(&mut cx, at, PAGE_SIZE, Prot::READ)?;
/// let [(_, event)] = recorder.take_events()[..] else { panic!("one window") };
/// assert_eq!(event, Some(Event::ProtectionVma));
/// mm.unregister(&mut cx, registration);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Recorder {
    gate: Gate<OrderedStore<()>, (), Atomic>,
    recorded: Mutex<Vec<(Recorded, Option<Event>)>>,
}

impl Recorder {
    /// Builds the recorder on its seat.
    pub fn new(seat: Seat) -> Arc<Self> {
        Arc::new(Self {
            gate: Gate::new(seat, OrderedStore::default(), ()),
            recorded: Mutex::default(),
        })
    }
    /// Returns the callbacks since the last call, and forgets them.
    pub fn take(&self) -> Vec<Recorded> {
        self.take_events()
            .into_iter()
            .map(|(recorded, _)| recorded)
            .collect()
    }
    /// Returns the callbacks since the last call, each window with its reason, and forgets them.
    pub fn take_events(&self) -> Vec<(Recorded, Option<Event>)> {
        std::mem::take(&mut self.recorded.lock())
    }
    fn note(&self, inv: &Invalidation<'_>) {
        // Unregistration is a demand over everything, and no window of the address space.
        if inv.range() != VpnRange::ALL || inv.event() == Event::SoftDirty {
            let recorded = (Recorded::Window(inv.range()), Some(inv.event()));
            self.recorded.lock().push(recorded);
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
            self.recorded.lock().push((Recorded::Age(range), None));
        }
        false
    }
}

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recorder")
            .field("recorded", &self.recorded.lock().len())
            .finish_non_exhaustive()
    }
}
