//! The phase of a registration, shared by the driver's seat and its entry on the chain.

use crate::sync::{AtomicBool, AtomicU8, AtomicUsize, OnceLock, Ordering};

/// The phase that a registration has reached.
pub(super) struct RegistrationPhase {
    /// Set while permits are given out.
    alive: AtomicBool,
    phase: AtomicU8,
    /// The number of gates that were made with the seat and still exist.
    gates: AtomicUsize,
    name: OnceLock<&'static str>,
}

/// Windows do not call the driver yet.
const BUILDING: u8 = 0;
/// Every window that begins from now on calls the driver; older ones may be open.
const LISTED: u8 = 1;
/// The windows that began before the driver was listed have ended.
const DRAINED: u8 = 2;

impl RegistrationPhase {
    pub(super) fn new() -> Self {
        Self {
            alive: AtomicBool::new(true),
            phase: AtomicU8::new(BUILDING),
            gates: AtomicUsize::new(0),
            name: OnceLock::new(),
        }
    }
    /// Returns the name of the driver; empty until it is registered.
    pub(super) fn name(&self) -> &'static str {
        self.name.get().copied().unwrap_or_default()
    }
    /// Names the driver; the first name stays.
    pub(super) fn set_name(&self, name: &'static str) {
        let _first = self.name.get_or_init(|| name);
    }
    pub(super) fn is_alive(&self) -> bool {
        self.alive.load(Ordering::SeqCst)
    }
    /// Ends the registration: no permit is given out from here on.
    ///
    /// Unregistration passes the gate after this, and a permit is checked under the gate. So when
    /// the gate was passed, every earlier permit is gone and every later check sees the end.
    pub(super) fn forbid_permits(&self) {
        self.alive.store(false, Ordering::SeqCst);
    }
    /// Counts a gate that was made with the seat.
    pub(super) fn gate_made(&self) {
        self.gates.fetch_add(1, Ordering::Relaxed);
    }
    /// Counts a gate that was dropped.
    pub(super) fn gate_dropped(&self) {
        self.gates.fetch_sub(1, Ordering::Relaxed);
    }
    pub(super) fn has_gate(&self) -> bool {
        self.gates.load(Ordering::Relaxed) > 0
    }
    pub(super) fn is_drained(&self) -> bool {
        self.phase.load(Ordering::Acquire) == DRAINED
    }
    pub(super) fn is_listed(&self) -> bool {
        self.phase.load(Ordering::Acquire) >= LISTED
    }
    /// Notes that every window from here on calls the driver.
    pub(super) fn mark_listed(&self) {
        self.phase.store(LISTED, Ordering::Release);
    }
    /// Notes that no window is open that began before [`mark_listed`](Self::mark_listed).
    pub(super) fn mark_drained(&self) {
        debug_assert!(self.is_listed(), "drained before windows see it");
        self.phase.store(DRAINED, Ordering::Release);
    }
}
