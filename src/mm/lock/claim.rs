//! A claim: the pages that a writer keeps while it lets others in.

use crate::addr::VpnRange;
use smallvec::SmallVec;

/// A few ranges of pages.
pub(in crate::mm) type Ranges = SmallVec<[VpnRange; 3]>;

/// Returns true if a range of `these` overlaps one of `those`.
pub(super) fn overlap(these: &[VpnRange], those: &[VpnRange]) -> bool {
    these.iter().any(|a| those.iter().any(|b| a.overlaps(*b)))
}

/// The pages that a writer keeps while it lets others in.
#[derive(Clone, Debug, Default)]
pub(in crate::mm) struct Claim {
    /// Readers that want these pages wait.
    pub(in crate::mm) no_readers: Ranges,
    /// Writers whose extent overlaps these pages wait; includes `no_readers`.
    pub(in crate::mm) no_writers: Ranges,
}
