//! How far a registration has come.

use crate::sync::{AtomicBool, AtomicU8, AtomicUsize, OnceLock, Ordering};

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
    /// What the driver is called.
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
    pub(super) fn forbid_permits(&self) {
        self.alive.store(false, Ordering::SeqCst);
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
    pub(super) fn is_drained(&self) -> bool {
        self.phase.load(Ordering::Acquire) == DRAINED
    }
    pub(super) fn is_listed(&self) -> bool {
        self.phase.load(Ordering::Acquire) >= LISTED
    }
    /// Windows see the driver from here on.
    pub(super) fn mark_listed(&self) {
        self.phase.store(LISTED, Ordering::Release);
    }
    /// No window is open that does not see the driver. Only after [`list`](Self::list).
    pub(super) fn mark_drained(&self) {
        debug_assert!(self.is_listed(), "settled before windows see it");
        self.phase.store(DRAINED, Ordering::Release);
    }
}
