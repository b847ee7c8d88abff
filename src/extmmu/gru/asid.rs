//! Address space identifiers: 24 bits, the low three for the region of the address
//! (`gru_assign_asid`).

use smallvec::SmallVec;

/// The number of contexts that can be loaded at a time, each of which may have an identifier.
pub(super) const CONTEXTS: usize = 16;
/// The first identifier, and the distance between two.
pub(super) const STEP: u32 = 8;
/// The highest identifier.
pub(super) const MAX: u32 = 0x00ff_fff0;
/// The least of highest identifiers: as many as contexts can be loaded, and one more for the next.
#[allow(clippy::cast_possible_truncation)]
const FEWEST: u32 = (CONTEXTS as u32 + 1) * STEP;

/// The identifiers of one GRU.
///
/// An identifier in use is never given out again. When all have been given out, the generation
/// advances, and the TLB must be flushed. The identifiers that are in use then are not given out in
/// the new generation either, though they may be in use no more: the TLB has got entries under them
/// after its flush.
#[derive(Clone, Debug)]
pub(super) struct Asids {
    next: u32,
    max: u32,
    generation: u32,
    /// Those that were in use when the generation began.
    older: SmallVec<[u32; CONTEXTS]>,
}

/// The duty of the TLB before a new identifier is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Before {
    /// None.
    Nothing,
    /// Removes every entry: the identifiers begin anew.
    FlushAll,
}

impl Asids {
    /// Gives out identifiers up to `max`. A test sets fewer than the hardware has, to see them
    /// begin anew.
    pub(super) fn new(max: u32) -> Self {
        Self {
            next: STEP,
            max: max.clamp(FEWEST, MAX),
            generation: 1,
            older: SmallVec::new(),
        }
    }
    /// Returns how often the identifiers began anew, plus one.
    pub(super) fn generation(&self) -> u32 {
        self.generation
    }
    /// Returns a new identifier that is none of those in use, and the duty of the TLB before its
    /// first use.
    pub(super) fn next(&mut self, in_use: &[u32]) -> (u32, Before) {
        let mut before = Before::Nothing;
        loop {
            if self.next > self.max {
                self.next = STEP;
                self.generation += 1;
                self.older = in_use.into();
                before = Before::FlushAll;
            }
            let asid = self.next;
            self.next += STEP;
            if !in_use.contains(&asid) && !self.older.contains(&asid) {
                return (asid, before);
            }
        }
    }
}

/// Returns the identifier of an entry for the address: the region is in bits 61 and 62.
#[allow(clippy::cast_possible_truncation)]
pub(super) const fn effective(asid: u32, addr: u64) -> u32 {
    asid + ((addr >> 61) & 3) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_begin_anew_with_another_generation_and_pass_over_those_in_use() {
        let mut asids = Asids::new(FEWEST);
        let given: Vec<_> = (0..=CONTEXTS).map(|_| asids.next(&[]).0).collect();
        assert_eq!((given[0], given[CONTEXTS]), (8, FEWEST));
        assert_eq!(asids.generation(), 1);
        assert_eq!(asids.next(&[8, 16]), (24, Before::FlushAll));
        assert_eq!(asids.generation(), 2);
        assert_eq!(effective(8, 3 << 61), 11);
    }

    /// The TLB has entries under them from after the flush.
    #[test]
    fn identifiers_of_an_earlier_generation_are_not_given_out_in_this_one() {
        let mut asids = Asids::new(0);
        let all = |asids: &mut Asids, in_use: &[u32]| loop {
            let given = asids.next(in_use);
            if given.1 == Before::FlushAll {
                return given.0;
            }
        };
        assert_eq!(all(&mut asids, &[8, 40]), 16);
        // Nothing is in use from here on.
        let rest: Vec<u32> = (0..FEWEST / STEP - 3).map(|_| asids.next(&[]).0).collect();
        assert!(!rest.contains(&8) && !rest.contains(&40), "{rest:?}");
        assert_eq!(asids.next(&[]), (8, Before::FlushAll));
    }
}
