//! One registered driver: who may call it, and how its registration ends.

use super::{
    ops::{Event, ExternalMmu, FirstPass, demand},
    subscription::Subscription,
};
use crate::ctx::CallbackCx;

use crate::{
    addr::VpnRange,
    ctx::{Below, Cx, Sleepable, rank},
    sync::{AtomicBool, AtomicU8, AtomicUsize, Condvar, Mutex, OnceLock, Ordering, TakenAddress},
};
use smallvec::SmallVec;
use std::{convert::Infallible, sync::Arc};

/// Identity of a registration, never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct RegId(pub(super) u64);

/// Whose a translation is, as far as there is room for that in an entry: registrations whose numbers differ by a multiple
/// of 2^23 have the same one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Brand(u32);

impl Brand {
    /// How many bits it has.
    pub(super) const BITS: u32 = 23;

    #[allow(clippy::cast_possible_truncation)]
    const fn cut(number: u64) -> Self {
        Self((number & ((1 << Self::BITS) - 1)) as u32)
    }
    /// That of the entry in whose highest bits it is.
    #[inline]
    pub(super) const fn of_word(word: u64) -> Self {
        Self::cut(word >> (u64::BITS - Self::BITS))
    }
    /// In the highest bits of a word.
    pub(super) fn word(self) -> u64 {
        u64::from(self.0) << (u64::BITS - Self::BITS)
    }
}

impl RegId {
    pub(super) const fn brand(self) -> Brand {
        Brand::cut(self.0)
    }
}

/// How far a registration has come, as the driver's seat sees it.
pub(super) struct RegistrationPhase {
    /// Permits are given out while this is set.
    alive: AtomicBool,
    phase: AtomicU8,
    /// Gates that were built with the seat and are there.
    gates: AtomicUsize,
    name: OnceLock<&'static str>,
}

/// Windows do not see the driver yet.
const BUILDING: u8 = 0;
/// Every window that begins from now on does; older ones may be open.
const LISTED: u8 = 1;
/// The older ones are over.
const SETTLED: u8 = 2;

impl RegistrationPhase {
    pub(super) fn new() -> Self {
        Self {
            alive: AtomicBool::new(true),
            phase: AtomicU8::new(BUILDING),
            gates: AtomicUsize::new(0),
            name: OnceLock::new(),
        }
    }
    /// What the driver is called.
    pub(super) fn name(&self) -> &'static str {
        self.name.get().copied().unwrap_or_default()
    }
    pub(super) fn is_alive(&self) -> bool {
        self.alive.load(Ordering::SeqCst)
    }
    /// A gate was built with the seat.
    pub(super) fn gate_made(&self) {
        self.gates.fetch_add(1, Ordering::Relaxed);
    }
    /// It is gone.
    pub(super) fn gate_dropped(&self) {
        self.gates.fetch_sub(1, Ordering::Relaxed);
    }
    pub(super) fn has_gate(&self) -> bool {
        self.gates.load(Ordering::Relaxed) > 0
    }
    pub(super) fn is_settled(&self) -> bool {
        self.phase.load(Ordering::Acquire) == SETTLED
    }
    pub(super) fn is_listed(&self) -> bool {
        self.phase.load(Ordering::Acquire) >= LISTED
    }
    /// Windows see the driver from here on.
    pub(super) fn list(&self) {
        self.phase.store(LISTED, Ordering::Release);
    }
    /// No window is open that does not see the driver. Only after [`list`](Self::list).
    pub(super) fn settle(&self) {
        debug_assert!(self.is_listed(), "settled before windows see it");
        self.phase.store(SETTLED, Ordering::Release);
    }
}

/// One registered driver.
pub(super) struct Entry {
    pub(super) reg: RegId,
    pub(super) ext: Arc<dyn ExternalMmu>,
    pub(super) standing: Arc<RegistrationPhase>,
    /// The part of the address space that it is about; `None`: all of it.
    pub(super) sub: Option<Arc<Subscription>>,
    /// While it is on the chain, it can be put on no other.
    pub(super) taken: TakenAddress,
    visits: Mutex<Visiting>,
    left: Condvar,
}

#[derive(Default)]
struct Visiting {
    /// Windows that a subscription counts, and other callers.
    now: usize,
    /// Nobody may come any more.
    closed: bool,
    leave: UnregisterState,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum UnregisterState {
    #[default]
    Due,
    Running,
    Done,
}

/// The right to call a driver; unregistration waits until every visit has ended. Windows have it of those who subscribed;
/// the others they keep by their place on the chain.
pub(super) struct Visit {
    entry: Arc<Entry>,
    /// A window over its subscription is counted there.
    counted: bool,
}

/// Several of them.
pub(super) type Visits = SmallVec<[Visit; 2]>;

impl Visit {
    /// `None` once the driver's registration ends.
    pub(super) fn begin(entry: &Arc<Entry>) -> Option<Self> {
        let mut v = entry.visits.lock();
        if v.closed {
            return None;
        }
        v.now += 1;
        drop(v);
        Some(Self {
            entry: Arc::clone(entry),
            counted: false,
        })
    }
    /// The visit of a window, which the subscription counts as open from before the driver is called.
    pub(super) fn of_window(entry: &Arc<Entry>) -> Option<Self> {
        let mut visit = Self::begin(entry)?;
        if let Some(sub) = &entry.sub {
            sub.enter();
            visit.counted = true;
        }
        Some(visit)
    }
    /// The window has ended: the subscription's sequence goes on.
    pub(super) fn close_window(&mut self) {
        if std::mem::take(&mut self.counted)
            && let Some(sub) = &self.entry.sub
        {
            sub.leave();
        }
    }
    pub(super) fn entry(&self) -> &Entry {
        &self.entry
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.close_window();
        let mut v = self.entry.visits.lock();
        v.now -= 1;
        if v.now == 0 {
            drop(v);
            self.entry.left.notify_all();
        }
    }
}

impl Entry {
    pub(super) fn new(
        reg: RegId,
        ext: Arc<dyn ExternalMmu>,
        standing: Arc<RegistrationPhase>,
        (sub, taken): (Option<Arc<Subscription>>, TakenAddress),
    ) -> Self {
        let _first = standing.name.get_or_init(|| ext.name());
        Self {
            reg,
            ext,
            standing,
            sub,
            taken,
            visits: Mutex::default(),
            left: Condvar::new(),
        }
    }
    /// Forbids permits, then passes the gate once: permits given before are gone, and the store is empty.
    pub(super) fn exclude_all<R: Below<rank::Callback>>(&self, cx: &mut Cx<'_, R, Sleepable>) {
        self.standing.alive.store(false, Ordering::SeqCst);
        let Ok(None::<Infallible>) = demand(VpnRange::ALL, Event::Unmap, self.reg, |inv| {
            let ack = self.ext.invalidate_start(cx.descend(), inv);
            Ok::<_, Infallible>(FirstPass::Done(ack))
        });
        self.ext.invalidate_end(cx.descend(), VpnRange::ALL);
    }
    /// Lets nobody in any more and waits until everybody is out, windows among them.
    pub(super) fn close(&self) {
        let mut v = self.visits.lock();
        v.closed = true;
        while v.now > 0 {
            self.left.wait(&mut v);
        }
    }
    /// The right to take the driver off, given once. `None`: somebody has; he is done when this returns.
    pub(super) fn begin_leave(&self) -> Option<Unregistering<'_>> {
        let mut v = self.visits.lock();
        while v.leave == UnregisterState::Running {
            self.left.wait(&mut v);
        }
        if v.leave == UnregisterState::Done {
            return None;
        }
        v.leave = UnregisterState::Running;
        Some(Unregistering {
            entry: self,
            released: false,
        })
    }
}

/// A driver is being taken off. Given up half-way, by a panic of the driver, it is due again.
pub(super) struct Unregistering<'e> {
    entry: &'e Entry,
    released: bool,
}

impl Unregistering<'_> {
    pub(super) fn release(mut self, cx: CallbackCx<'_>) {
        self.released = true;
        self.entry.ext.release(cx);
    }
}

impl Drop for Unregistering<'_> {
    fn drop(&mut self) {
        self.entry.visits.lock().leave = if self.released {
            UnregisterState::Done
        } else {
            UnregisterState::Due
        };
        self.entry.left.notify_all();
    }
}
