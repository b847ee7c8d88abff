//! Reference count and map count of a frame in one word, so that mapping and unmapping take one atomic each.
//!
//! Low half: references, mappings included. High half: mappings. A count that would go wrong is a broken invariant of
//! this crate and panics with the frame's number.

use crate::{
    addr::Pfn,
    sync::{AtomicU64, Ordering},
};

const REF: u64 = 1;
const MAP: u64 = 1 << 32;

/// Both counts of one frame.
#[derive(Debug, Default)]
pub(super) struct Counts(AtomicU64);

#[allow(clippy::cast_possible_truncation)]
const fn split(word: u64) -> (u32, u32) {
    (word as u32, (word >> 32) as u32)
}

impl Counts {
    /// References and mappings.
    pub(super) fn get(&self) -> (u32, u32) {
        split(self.0.load(Ordering::SeqCst))
    }
    /// A frame off the free list: one reference. Nobody else changes counts that are zero.
    pub(super) fn init_allocated(&self, pfn: Pfn) {
        self.begin(REF, pfn);
    }
    /// The same with a mapping that has the reference.
    #[inline]
    pub(super) fn init_mapped(&self, pfn: Pfn) {
        self.begin(REF + MAP, pfn);
    }
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
    pub(super) fn get_ref(&self, pfn: Pfn) {
        self.add(REF, pfn);
    }
    /// One more reference, unless there is none; says whether.
    pub(super) fn try_get_ref(&self) -> bool {
        let more = |word| (split(word).0 != 0).then(|| word + REF);
        self.0
            .fetch_update(Ordering::Acquire, Ordering::Relaxed, more)
            .is_ok()
    }
    /// A mapping takes over a reference that its maker holds.
    pub(super) fn map(&self, pfn: Pfn) {
        self.add(MAP, pfn);
    }
    /// More mappings, each with a reference of its own.
    #[inline]
    pub(super) fn share(&self, pfn: Pfn, more: u32) {
        self.add(u64::from(more) * (REF + MAP), pfn);
    }
    #[inline]
    fn add(&self, what: u64, pfn: Pfn) {
        let old = self.0.fetch_add(what, Ordering::Relaxed);
        let (refs, maps) = split(old);
        // More would carry into the map count.
        if refs == 0 || refs.checked_add(split(what).0).is_none() {
            gained(pfn, refs, maps);
        }
    }
    /// Gives up a reference; `true` if it was the last.
    pub(super) fn put_ref(&self, pfn: Pfn) -> bool {
        self.sub(REF, pfn)
    }
    /// Gives up a mapping with its reference; `true` if it was the last reference.
    #[inline]
    pub(super) fn unshare(&self, pfn: Pfn) -> bool {
        self.sub(REF + MAP, pfn)
    }
    #[inline]
    fn sub(&self, what: u64, pfn: Pfn) -> bool {
        // Release: what this thread did to the frame comes before its retirement; acquire: so does everybody's. And one
        // order with the mark of the swap cache (`PhysMem::in_swap_cache`).
        let old = self.0.fetch_sub(what, Ordering::SeqCst);
        let (refs, maps) = split(old);
        let last = refs == 1;
        let (less_refs, less_maps) = split(what);
        if refs < less_refs || maps < less_maps || last && maps != less_maps {
            lost(pfn, old, what);
        }
        last
    }
}

#[cold]
#[inline(never)]
fn gained(pfn: Pfn, refs: u32, maps: u32) -> ! {
    assert!(refs != 0, "{pfn:?} is free and gets a reference");
    panic!("{pfn:?} with {refs} references and {maps} mappings gets one too many")
}

#[cold]
#[inline(never)]
fn lost(pfn: Pfn, old: u64, what: u64) -> ! {
    let ((refs, maps), (less_refs, less_maps)) = (split(old), split(what));
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
