//! The invalidation windows of an address space, as tests and an oracle see them.

use crate::mm::space::Mm;
use crate::{
    addr::VpnRange,
    notifier::{ExternalMmu, RegId, WindowObserver},
};
use std::sync::Arc;

impl Mm {
    /// Returns the number of invalidation windows that are open now, on any thread, if the address
    /// space has, or had, an external MMU. Without one nothing counts them, and the answer is 0.
    pub fn windows_open(&self) -> usize {
        self.notifiers.windows_open()
    }
    /// Returns the ranges of the open windows, if the address space has, or had, an external MMU.
    ///
    /// A window that stays here was leaked ([`std::mem::forget`]): an unregistration or an exit
    /// that does not return is waiting for that one.
    pub fn open_windows(&self) -> Vec<VpnRange> {
        self.notifiers.open_windows()
    }
    /// Runs `f`; returns its result if no window was open over `range` meanwhile. The range is one
    /// page, or pages of one 2-MiB block.
    pub(crate) fn if_no_window<T>(&self, range: VpnRange, f: impl FnOnce() -> T) -> Option<T> {
        self.notifiers.if_no_window(range, f)
    }
    /// Returns the space of the hooks of its drivers.
    #[cfg(feature = "testkit")]
    pub(crate) fn hooked_space(&self) -> crate::notifier::test_hook::HookedSpace {
        self.notifiers.hooked_space()
    }
    /// Lets an oracle watch the windows of this address space, which has an external MMU.
    pub(crate) fn set_watch(&self, watch: Arc<dyn WindowObserver>) {
        self.notifiers.watch(watch);
    }
    /// Lets an oracle watch the walks of devices in this address space, which has one.
    pub(crate) fn set_walk_watch(&self, watch: Arc<dyn WindowObserver>) {
        self.tlbs.watch(watch);
    }
    /// Returns the registration of a driver of this address space.
    pub(crate) fn registration_of(&self, ext: &Arc<dyn ExternalMmu>) -> Option<RegId> {
        self.notifiers.registration_of(self.machine().epoch(), ext)
    }
}
