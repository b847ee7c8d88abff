//! Where a gate may have entries, so that a window elsewhere need not take it.
//!
//! Guarantee: if [`GateFilter::may_hold`], asked after a window was written on the board, says no, then nothing is in the store
//! of what the window covers, and nothing gets there before it has ended.
//!
//! How: a permit notes the bucket of its pages, the gate held, before its ticket is settled. That is done under the lock of
//! this bucket, as it was when the window was written there. So of both, whoever came second to the bucket knows of the
//! other: the window finds the note, or the ticket finds the window. A wide window is in no bucket, and takes the gate.

use super::blocks::buckets_of;
use crate::{
    addr::VpnRange,
    sync::{AtomicU64, Ordering},
};

/// The buckets of entries that there were since the store was last found empty.
#[derive(Debug, Default)]
pub(super) struct GateFilter(AtomicU64);

impl GateFilter {
    /// Entries of `range`, which lies in one block, may come. To be called with the gate held.
    #[inline]
    pub(super) fn note(&self, range: VpnRange) {
        let bit = buckets_of(range).expect("one block");
        // Bits go only with the gate held.
        if self.0.load(Ordering::Relaxed) & bit != bit {
            self.0.fetch_or(bit, Ordering::AcqRel);
        }
    }
    /// The store is empty. To be called with the gate held.
    #[inline]
    pub(super) fn clear(&self) {
        self.0.store(0, Ordering::Release);
    }
    /// Whether the store may have, or get, an entry of a window that is on the board.
    #[inline]
    pub(super) fn may_hold(&self, window: VpnRange) -> bool {
        buckets_of(window).is_none_or(|bits| self.0.load(Ordering::Acquire) & bits != 0)
    }
}
