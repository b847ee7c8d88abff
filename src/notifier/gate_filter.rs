//! The filter of a gate: the blocks in which its store may have entries. A window over other blocks
//! need not lock the gate.
//!
//! Guarantee: if [`GateFilter::may_hold`], called after a window was written on the board, returns
//! false, then the store has no entry in the range of the window, and gets none before the window
//! has ended.
//!
//! How: a permit, with the gate locked, notes the bucket of its pages before its ticket is checked.
//! The check is an operation on that bucket, and a window comes into the bucket before it or after
//! it. So the second of the two finds the first: the window finds the note, or the ticket finds the
//! window. A wide window is in no bucket, and locks the gate.

use super::{blocks::buckets_of, reason::Terms};
use crate::{
    addr::VpnRange,
    sync::{AtomicU64, Ordering},
};

/// One bit for each bucket that had entries since the store was last found empty.
#[derive(Debug, Default)]
pub(super) struct GateFilter(AtomicU64);

impl GateFilter {
    /// Notes that entries of `range`, which lies in one block, may be made. The caller holds the
    /// gate.
    #[inline]
    pub(super) fn note(&self, range: VpnRange) {
        let bit = buckets_of(range).expect("one block");
        // Relaxed: bits are cleared only with the gate locked, and this thread has locked it.
        if self.0.load(Ordering::Relaxed) & bit != bit {
            self.0.fetch_or(bit, Ordering::AcqRel);
        }
    }
    /// Notes that the store is empty. The caller holds the gate.
    #[inline]
    pub(super) fn clear(&self) {
        self.0.store(0, Ordering::Release);
    }
    /// Returns true if the store may have, or get, an entry in a window that is on the board.
    #[inline]
    pub(super) fn may_hold(&self, window: &Terms) -> bool {
        let buckets = window.buckets();
        buckets.is_none_or(|bits| self.0.load(Ordering::Acquire) & bits != 0)
    }
}
