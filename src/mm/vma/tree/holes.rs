//! The holes of a node, known well enough that a change seldom looks at more than its own.

/// The widest hole of a node, and a bound for the others.
///
/// Ranges come and go in turn: an operation removes one and puts another into its place. The hole
/// that it made is then the widest one and goes again, and the bound says which is the widest one
/// without it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Holes {
    /// Pages of the widest hole.
    widest: u64,
    /// No hole but that one has more pages than this.
    others: u64,
}

impl Holes {
    pub(super) const NONE: Self = Self {
        widest: 0,
        others: 0,
    };

    /// Pages of the widest hole.
    #[inline]
    pub(super) const fn widest(self) -> u64 {
        self.widest
    }

    /// Pages that no hole but a widest one exceeds.
    #[cfg(any(test, debug_assertions))]
    pub(super) const fn others(self) -> u64 {
        self.others
    }

    /// Notes a hole that was not there before.
    #[inline]
    pub(super) fn add(&mut self, hole: u64) {
        if hole >= self.widest {
            self.others = self.widest;
            self.widest = hole;
        } else {
            self.others = self.others.max(hole);
        }
    }

    /// Notes that some holes went, the widest of which had `gone` pages, and that those of `made`
    /// came. Returns false if the widest one is not known any more, but only a bound for it: then
    /// the holes must be looked at.
    #[inline]
    pub(super) fn replace<const N: usize>(&mut self, gone: u64, made: [u64; N]) -> bool {
        let lost = gone >= self.widest;
        if lost {
            // The holes that are left have at most so many.
            self.widest = self.others;
        }
        let bound = self.widest;
        let known = !lost || made.iter().any(|&hole| hole >= bound);
        made.into_iter().for_each(|hole| self.add(hole));
        known
    }

    /// Looks at the holes of a node, of which none has more than `bound` pages, until one has as
    /// many.
    pub(super) fn among(holes: impl Iterator<Item = u64>, bound: u64) -> Self {
        let mut all = Self::NONE;
        for hole in holes {
            all.add(hole);
            if hole >= bound {
                // The rest has at most so many.
                all.others = bound;
                break;
            }
        }
        all
    }
}
