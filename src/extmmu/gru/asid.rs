//! Address space identifiers: 24 bits, the low three for the region of the address
//! (`gru_assign_asid`).

/// The first identifier, and the distance between two.
pub(super) const STEP: u32 = 8;
/// The highest identifier.
pub(super) const MAX: u32 = 0x00ff_fff0;

/// The identifiers of one GRU.
///
/// An identifier in use is never given out again. When all have been given out, the generation
/// advances, and the TLB must be flushed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asids {
    next: u32,
    max: u32,
    generation: u32,
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
            max: max.clamp(4 * STEP, MAX),
            generation: 1,
        }
    }
    /// Returns how often the identifiers began anew, plus one.
    pub(super) fn generation(self) -> u32 {
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
                before = Before::FlushAll;
            }
            let asid = self.next;
            self.next += STEP;
            if !in_use.contains(&asid) {
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
        let mut asids = Asids::new(4 * STEP);
        let given: Vec<_> = (0..4).map(|_| asids.next(&[]).0).collect();
        assert_eq!(given, [8, 16, 24, 32]);
        assert_eq!(asids.generation(), 1);
        assert_eq!(asids.next(&[8, 16]), (24, Before::FlushAll));
        assert_eq!(asids.generation(), 2);
        assert_eq!(effective(8, 3 << 61), 11);
    }
}
