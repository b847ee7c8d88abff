//! A lane: the readers of a group of threads, and the ranges that they claim.

use super::claim::overlap;
use crate::{
    addr::VpnRange,
    sync::{AtomicUsize, Mutex, Ordering::SeqCst},
};

/// The part of the lock that the readers of some threads write to: cache lines of its own.
#[derive(Default)]
pub(super) struct Lane {
    /// How many readers are counted in.
    pub(super) readers: AtomicUsize,
    /// Length of `claims`, read without their lock.
    count: AtomicUsize,
    claims: Mutex<Vec<VpnRange>>,
}

impl Lane {
    /// Claims a range for a reader that is counted in.
    pub(super) fn claim(&self, range: VpnRange) {
        let mut claims = self.claims.lock();
        claims.push(range);
        self.count.fetch_add(1, SeqCst);
        drop(claims);
    }
    /// Removes a claim of `range`.
    pub(super) fn unclaim(&self, range: VpnRange) {
        let mut claims = self.claims.lock();
        let at = claims.iter().position(|claimed| *claimed == range);
        claims.swap_remove(at.expect("claimed until now"));
        self.count.fetch_sub(1, SeqCst);
        drop(claims);
    }
    /// Returns true if any range is claimed.
    #[inline]
    pub(super) fn has_claims(&self) -> bool {
        self.count.load(SeqCst) != 0
    }
    /// Returns true if a claimed range overlaps one of `pages`.
    pub(super) fn has_claim_in(&self, pages: &[VpnRange]) -> bool {
        self.has_claims() && overlap(self.claims.lock().as_slice(), pages)
    }
}
