//! [`FaultScope`]: the locked layout, the right to open windows, and the postponed work of one
//! fault.

use super::{deferral::Deferral, lease::Lease};
use crate::ctx::{Sleepable, rank};
use crate::mm::vma::layout::Layout;

/// Everything that a fault works with, from a guard of either kind.
pub(in crate::mm) struct FaultScope<'h> {
    /// The VMAs, which nothing changes while the scope lives.
    pub(in crate::mm) layout: &'h Layout,
    pub(in crate::mm) lease: Lease<'h, rank::Mmap, Sleepable>,
    /// Postponed work for a window; [`Deferral::Never`] at first, so that work is done at once.
    pub(in crate::mm) deferral: Deferral,
    /// The byte of the access, if one byte is accessed.
    pub(in crate::mm) byte: Option<u64>,
}

impl<'h> FaultScope<'h> {
    pub(super) fn new(layout: &'h Layout, lease: Lease<'h, rank::Mmap, Sleepable>) -> Self {
        let deferral = Deferral::Never;
        Self {
            layout,
            lease,
            deferral,
            byte: None,
        }
    }
}
