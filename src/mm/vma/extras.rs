//! [`Extras`]: the rare properties of a VMA, out of the way of all the VMAs that have none.

use super::userfault::{Context, same_userfault};
use crate::file::{File, same_file};
use crate::mm::entry::policy::MemPolicy;
use std::sync::Arc;

/// The properties of a VMA that most VMAs do not have.
#[derive(Clone, Debug, Default)]
pub(in crate::mm) struct Rare {
    /// Name that the program gave this memory; VMAs with different names do not merge.
    pub(in crate::mm) label: Option<Arc<str>>,
    /// The userfaultfd that the VMA is registered with, in the ways that its flags say.
    pub(in crate::mm) userfault: Option<Arc<Context>>,
    /// The nodes from which its memory comes; `None`: the default.
    pub(in crate::mm) policy: Option<MemPolicy>,
    /// The device through which anonymous memory was mapped: `/dev/zero`.
    pub(in crate::mm) device: Option<Arc<File>>,
}

impl Rare {
    fn is_nothing(&self) -> bool {
        self.label.is_none()
            && self.userfault.is_none()
            && self.policy.is_none()
            && self.device.is_none()
    }
}

impl PartialEq for Rare {
    fn eq(&self, other: &Self) -> bool {
        self.label == other.label
            && self.policy == other.policy
            && same_file(self.device.as_ref(), other.device.as_ref())
            && same_userfault(self.userfault.as_ref(), other.userfault.as_ref())
    }
}

/// The rare properties of a VMA: one word, which VMAs that were one share. Equal if VMAs with them
/// may merge.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::mm) struct Extras(
    /// `None` if there is none of them, and only then.
    Option<Arc<Rare>>,
);

impl Extras {
    /// Returns those of memory that is mapped through this device, or through none.
    #[inline]
    pub(in crate::mm) fn of_device(device: Option<Arc<File>>) -> Self {
        let mut extras = Self::default();
        if device.is_some() {
            extras.change(|rare| rare.device = device);
        }
        extras
    }
    /// Changes them, for this VMA alone.
    pub(in crate::mm) fn change(&mut self, change: impl FnOnce(&mut Rare)) {
        let mut rare = self.0.take().map(Arc::unwrap_or_clone).unwrap_or_default();
        change(&mut rare);
        self.0 = (!rare.is_nothing()).then(|| Arc::new(rare));
    }
    #[inline]
    pub(in crate::mm) fn label(&self) -> Option<&Arc<str>> {
        self.0.as_ref()?.label.as_ref()
    }
    #[inline]
    pub(in crate::mm) fn userfault(&self) -> Option<&Arc<Context>> {
        self.0.as_ref()?.userfault.as_ref()
    }
    #[inline]
    pub(in crate::mm) fn policy(&self) -> Option<MemPolicy> {
        self.0.as_ref()?.policy
    }
    #[inline]
    pub(in crate::mm) fn device(&self) -> Option<&Arc<File>> {
        self.0.as_ref()?.device.as_ref()
    }
}
