//! The new place of a VMA that moves and keeps its records.

use super::tree::next_seq;
use crate::addr::Vpn;

/// The place to which the records of a VMA lead after it has moved.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewPlace {
    /// The first page of the VMA.
    pub(super) at: Vpn,
    /// A number behind all others, for the trees of its anonymous family.
    pub(super) seq: u64,
}

impl NewPlace {
    /// Makes the place of a VMA that will start at `at`.
    pub(crate) fn at(at: Vpn) -> Self {
        Self {
            at,
            seq: next_seq(),
        }
    }
}
