//! A VMA that is registered with a userfaultfd.

use super::{
    Vma,
    userfault::{Context, PageFault},
};
use crate::error::FaultError;
use crate::mm::entry::{flags::VmFlags, uffd_flags::UffdFeatures};
use std::sync::Arc;

impl Vma {
    fn userfault_has(&self, feature: UffdFeatures) -> bool {
        self.userfault().is_some_and(|context| context.has(feature))
    }
    /// Returns true if writes to protected pages are caught (`userfaultfd_wp`).
    pub(in crate::mm) fn is_uffd_wp(&self) -> bool {
        self.flags.contains(VmFlags::UFFD_WP)
    }
    /// Returns true if a write to a protected page lifts its protection (`userfaultfd_wp_async`).
    pub(in crate::mm) fn is_wp_async(&self) -> bool {
        self.userfault_has(UffdFeatures::WP_ASYNC)
    }
    /// Returns true if absent pages can be protected (`userfaultfd_wp_use_markers`).
    pub(in crate::mm) fn uses_markers(&self) -> bool {
        let unpopulated = UffdFeatures::WP_UNPOPULATED;
        self.is_uffd_wp() && (!self.is_anonymous() || self.userfault_has(unpopulated))
    }
    /// Returns the userfaultfd, if the VMA stays registered by a move or a fork with this feature.
    pub(in crate::mm) fn userfault_told(&self, of: UffdFeatures) -> Option<&Arc<Context>> {
        self.userfault().filter(|context| context.has(of))
    }
    /// Ends the registration (`userfaultfd_reset_ctx`).
    pub(in crate::mm) fn forget_userfault(&mut self) {
        self.flags -= VmFlags::UFFD;
        if self.userfault().is_some() {
            self.extras.change(|rare| rare.userfault = None);
        }
    }
    /// Hands an access to the userfaultfd that the VMA is registered with (`handle_userfault`).
    /// `Ok`: there is a message now; true if this access has left it.
    ///
    /// # Errors
    ///
    /// [`FaultError::Unhandled`]: the userfaultfd wants none.
    pub(in crate::mm) fn hand_over(&self, fault: PageFault) -> Result<bool, FaultError> {
        let context = self.userfault().expect("the VMA is registered");
        if context.has(UffdFeatures::SIGBUS) {
            return Err(FaultError::Unhandled(fault.addr));
        }
        Ok(context.wait_for(fault))
    }
}
