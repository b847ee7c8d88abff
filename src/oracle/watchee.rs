//! The two kinds of external MMU that an oracle watches: drivers of windows, and devices that walk
//! the page table.

use crate::{
    addr::VpnRange,
    notifier::{ExternalMmu, SecondaryTlb, Translation},
};
use std::sync::{Arc, Weak};

/// An external MMU that is watched.
#[derive(Clone)]
pub(crate) enum Watchee {
    /// A driver of windows.
    Driver(Arc<dyn ExternalMmu>),
    /// A device that gets flushes. Inside of a window it may have what the page table says.
    Walker(Arc<dyn SecondaryTlb>),
}

/// An external MMU that is watched as long as it exists.
#[derive(Clone)]
pub(super) enum WeakWatchee {
    Driver(Weak<dyn ExternalMmu>),
    Walker(Weak<dyn SecondaryTlb>),
}

impl WeakWatchee {
    pub(super) fn upgrade(&self) -> Option<Watchee> {
        match self {
            Self::Driver(ext) => ext.upgrade().map(Watchee::Driver),
            Self::Walker(tlb) => tlb.upgrade().map(Watchee::Walker),
        }
    }
}

impl Watchee {
    pub(super) fn downgrade(&self) -> WeakWatchee {
        match self {
            Self::Driver(ext) => WeakWatchee::Driver(Arc::downgrade(ext)),
            Self::Walker(tlb) => WeakWatchee::Walker(Arc::downgrade(tlb)),
        }
    }
    /// Returns true if both are one MMU.
    pub(super) fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Driver(a), Self::Driver(b)) => std::ptr::addr_eq(Arc::as_ptr(a), Arc::as_ptr(b)),
            (Self::Walker(a), Self::Walker(b)) => std::ptr::addr_eq(Arc::as_ptr(a), Arc::as_ptr(b)),
            _ => false,
        }
    }
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Driver(ext) => ext.name(),
            Self::Walker(tlb) => tlb.name(),
        }
    }
    /// Returns true if a window asks it for its pages.
    pub(super) fn gets_windows(&self) -> bool {
        matches!(self, Self::Driver(_))
    }
    pub(crate) fn translations(&self, visit: &mut dyn FnMut(Translation)) -> bool {
        match self {
            Self::Driver(ext) => ext.translations(visit),
            Self::Walker(tlb) => tlb.translations(visit),
        }
    }
    pub(super) fn translations_in(
        &self,
        range: VpnRange,
        visit: &mut dyn FnMut(Translation),
    ) -> bool {
        match self {
            Self::Driver(ext) => ext.translations_in(range, visit),
            Self::Walker(tlb) => tlb.translations(&mut |t| {
                if t.range().overlaps(range) {
                    visit(t);
                }
            }),
        }
    }
    /// Returns the number of windows that it counts as open.
    pub(super) fn windows(&self) -> u64 {
        match self {
            Self::Driver(ext) => ext.windows(),
            Self::Walker(_) => 0,
        }
    }
}
