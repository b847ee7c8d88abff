//! 2-MiB blocks of pages, hashed to a few buckets.
//!
//! Guarantee: neighbouring blocks have different hashes, and so, mostly, have blocks at equal
//! places of different tables. So threads that work on different blocks seldom meet at one lock.

use crate::addr::{PMD_PAGES, Vpn, VpnRange};

/// Buckets of the board, one for each bit of a word. A model checker has enough with fewer.
pub(super) const BUCKETS: usize = if cfg!(loom) { 2 } else { 64 };
/// A range over more blocks than this is wide, and lies in no bucket.
pub(super) const NARROW: u64 = 8;

/// The number of the block that holds a page.
#[inline]
pub(crate) fn block_of(at: Vpn) -> u64 {
    at.0 / PMD_PAGES
}

/// The numbers of the first and the last block of a range.
#[inline]
pub(super) fn blocks_of(range: VpnRange) -> (u64, u64) {
    (block_of(range.start()), block_of(Vpn(range.end().0 - 1)))
}

/// Hashes the number of a block to a number below 64.
#[inline]
pub(crate) fn hash_of(block: u64) -> usize {
    let hash = block.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58;
    usize::try_from(hash).expect("six bits")
}

/// The bucket of a block.
#[inline]
pub(super) fn bucket_of(block: u64) -> usize {
    hash_of(block) % BUCKETS
}

/// The buckets of a range, one bit each; `None` if the range is wide.
#[inline]
pub(super) fn buckets_of(range: VpnRange) -> Option<u64> {
    let (first, last) = blocks_of(range);
    if first == last {
        return Some(1 << bucket_of(first));
    }
    (last - first < NARROW).then(|| (first..=last).fold(0, |bits, b| bits | 1 << bucket_of(b)))
}

/// Returns true if a page of `range` lies in the block of `at`.
pub(super) fn overlaps_block(range: VpnRange, at: Vpn) -> bool {
    let (first, last) = blocks_of(range);
    (first..=last).contains(&block_of(at))
}

/// Iterates over the indices of the bits that are set, in ascending order.
#[inline]
pub(super) fn indices(mut bits: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let lowest = bits.trailing_zeros() as usize;
        // Clears the lowest bit.
        bits &= bits.wrapping_sub(1);
        (lowest < 64).then_some(lowest)
    })
}
