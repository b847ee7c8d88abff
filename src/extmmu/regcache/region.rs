//! One registered region: its pages, its pins, its users.

use crate::{
    addr::VpnRange,
    mm::HeldPages,
    notifier::Access,
    sync::{AtomicBool, AtomicU32, AtomicU64, Mutex, Ordering},
};

/// Pages that the adapter reaches by one key (`struct ibv_mr`).
#[derive(Debug)]
pub(super) struct Region {
    pub(super) range: VpnRange,
    pub(super) writable: bool,
    /// True if the region had pins when it was registered.
    pub(super) pinned: bool,
    /// The pins, until the region is deregistered.
    pins: Mutex<Option<HeldPages>>,
    /// Handles on the region. They come under the gate, while the region is found, and go at any
    /// time.
    users: AtomicU32,
    /// False once a window, a merge or an eviction has taken the region.
    valid: AtomicBool,
    /// The time of the last use, by the clock of the cache.
    pub(super) used: AtomicU64,
}

impl Region {
    /// Makes a region with one user.
    pub(super) fn new(range: VpnRange, writable: bool, pins: Option<HeldPages>) -> Self {
        Self {
            range,
            writable,
            pinned: pins.is_some(),
            pins: Mutex::new(pins),
            users: AtomicU32::new(1),
            valid: AtomicBool::new(true),
            used: AtomicU64::new(0),
        }
    }
    /// Returns true if the region serves this access to these pages.
    pub(super) fn serves(&self, range: VpnRange, access: Access) -> bool {
        self.range.covers(range) && (self.writable || access == Access::Read)
    }
    /// Adds a user. The caller holds the gate, and has found the region in the cache.
    pub(super) fn add_user(&self) {
        self.users.fetch_add(1, Ordering::Relaxed);
    }
    /// Removes a user. The last user of a region that is not found any more deregisters it.
    pub(super) fn remove_user(&self) {
        let was_last = self.users.fetch_sub(1, Ordering::AcqRel) == 1;
        if was_last && !self.is_valid() {
            self.deregister();
        }
    }
    pub(super) fn is_used(&self) -> bool {
        self.users.load(Ordering::Acquire) > 0
    }
    pub(super) fn is_valid(&self) -> bool {
        self.valid.load(Ordering::Acquire)
    }
    /// Notes that the region is not found any more.
    pub(super) fn invalidate(&self) {
        self.valid.store(false, Ordering::Release);
    }
    /// Gives up the pins (`ibv_dereg_mr`). The first call does, others find none.
    pub(super) fn deregister(&self) {
        drop(self.take_pins());
    }
    /// Takes the pins out.
    pub(super) fn take_pins(&self) -> Option<HeldPages> {
        self.pins.lock().take()
    }
    /// Runs `f` on the pins, which stay while it runs. `None` if there are none.
    pub(super) fn with_pins<V>(&self, f: impl FnOnce(&HeldPages) -> V) -> Option<V> {
        self.pins.lock().as_ref().map(f)
    }
}
