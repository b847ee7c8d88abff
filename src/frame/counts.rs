//! Reference count and map count of a frame in one word, so that mapping and unmapping take one
//! atomic operation each.
//!
//! Low half: references, those of mappings included. High half: mappings. A count that would go
//! wrong is a broken invariant of this crate and panics with the frame's number.

use crate::{
    addr::Pfn,
    sync::{AtomicU64, Ordering},
};

/// One reference.
const REF: u64 = 1;
/// One mapping, without its reference.
const MAP: u64 = 1 << 32;

/// Reference count and map count of one frame.
#[derive(Debug, Default)]
pub(super) struct Counts(AtomicU64);

/// Splits a word into references and mappings.
#[allow(clippy::cast_possible_truncation)]
const fn split(word: u64) -> (u32, u32) {
    (word as u32, (word >> 32) as u32)
}

impl Counts {
    /// Returns the number of references and of mappings.
    pub(super) fn get(&self) -> (u32, u32) {
        split(self.0.load(Ordering::SeqCst))
    }
    /// Gives a frame off the free list its first reference. No other thread changes counts that are
    /// zero, so a plain store does.
    pub(super) fn init_allocated(&self, pfn: Pfn) {
        self.begin(REF, pfn);
    }
    /// Gives a frame off the free list its first reference and a mapping that owns the reference.
    #[inline]
    pub(super) fn init_mapped(&self, pfn: Pfn) {
        self.begin(REF + MAP, pfn);
    }
    /// Sets counts that are zero. Release: a thread that takes a reference by the number
    /// (`try_get_ref`) finds the frame initialized.
    #[inline]
    fn begin(&self, with: u64, pfn: Pfn) {
        let old = self.0.load(Ordering::Relaxed);
        assert!(
            old == 0,
            "{pfn:?} is on the free list with counts {:?}",
            split(old)
        );
        self.0.store(with, Ordering::Release);
    }
    /// Takes one more reference on a frame that has one.
    pub(super) fn get_ref(&self, pfn: Pfn) {
        self.add(REF, pfn);
    }
    /// Takes one more reference unless the frame has none. Returns true if it did.
    pub(super) fn try_get_ref(&self) -> bool {
        let more = |word| (split(word).0 != 0).then(|| word + REF);
        self.0
            .fetch_update(Ordering::Acquire, Ordering::Relaxed, more)
            .is_ok()
    }
    /// Adds a mapping that takes over a reference of the caller.
    pub(super) fn map(&self, pfn: Pfn) {
        self.add(MAP, pfn);
    }
    /// Adds mappings, each with a reference of its own.
    #[inline]
    pub(super) fn share(&self, pfn: Pfn, more: u32) {
        self.add(u64::from(more) * (REF + MAP), pfn);
    }
    /// Adds to the counts. Relaxed: the caller has a reference already, or a lock that keeps one.
    #[inline]
    fn add(&self, delta: u64, pfn: Pfn) {
        let old = self.0.fetch_add(delta, Ordering::Relaxed);
        let (refs, maps) = split(old);
        // One more would carry into the map count.
        if refs == 0 || refs.checked_add(split(delta).0).is_none() {
            gained(pfn, refs, maps);
        }
    }
    /// Gives up a reference. Returns true if it was the last.
    pub(super) fn put_ref(&self, pfn: Pfn) -> bool {
        self.sub(REF, pfn)
    }
    /// Gives up a mapping with its reference. Returns true if it was the last reference.
    #[inline]
    pub(super) fn unshare(&self, pfn: Pfn) -> bool {
        self.sub(REF + MAP, pfn)
    }
    /// Subtracts from the counts. Returns true if the last reference is gone.
    #[inline]
    fn sub(&self, delta: u64, pfn: Pfn) -> bool {
        // Release: the accesses of this thread to the frame come before its retirement. Acquire: so
        // do those of all threads that gave up references before. SeqCst beyond that: one total
        // order with the flag of the swap cache, which the thread that drops the last mapping reads
        // afterwards (`PhysMem::in_swap_cache`).
        let old = self.0.fetch_sub(delta, Ordering::SeqCst);
        let (refs, maps) = split(old);
        let last = refs == 1;
        let (less_refs, less_maps) = split(delta);
        if refs < less_refs || maps < less_maps || last && maps != less_maps {
            lost(pfn, old, delta);
        }
        last
    }
}

/// Panics: a count would rise wrongly.
#[cold]
#[inline(never)]
fn gained(pfn: Pfn, refs: u32, maps: u32) -> ! {
    assert!(refs != 0, "{pfn:?} is free and gets a reference");
    panic!("{pfn:?} with {refs} references and {maps} mappings gets one too many")
}

/// Panics: a count would fall wrongly.
#[cold]
#[inline(never)]
fn lost(pfn: Pfn, old: u64, delta: u64) -> ! {
    let ((refs, maps), (less_refs, less_maps)) = (split(old), split(delta));
    assert!(
        refs < less_refs || maps < less_maps,
        "{pfn:?} is freed while mapped {maps} times"
    );
    panic!("{pfn:?} with {refs} references and {maps} mappings loses one too many")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(refs: u32) -> Counts {
        Counts(AtomicU64::new(u64::from(refs)))
    }

    #[test]
    fn the_last_reference_but_one_is_counted() {
        let counts = counts(u32::MAX - 1);
        counts.get_ref(Pfn(1));
        assert_eq!(counts.get(), (u32::MAX, 0));
    }

    #[test]
    #[should_panic(expected = "gets one too many")]
    fn references_do_not_carry_into_the_map_count() {
        counts(u32::MAX).get_ref(Pfn(1));
    }
}
