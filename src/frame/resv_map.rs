//! Which huge pages of a mapping or of a file have a mark, by index (`struct resv_map`).
//!
//! For a file the marked pages have a reservation, used or not. For a private mapping it is the
//! other way round: the marked pages have used up theirs.

use crate::sync::Mutex;
use std::{collections::BTreeMap, ops::Range};

/// A set of page indices, as ranges that neither overlap nor touch: end by start.
#[derive(Debug, Default)]
pub(crate) struct ResvMap(Mutex<BTreeMap<u64, u64>>);

impl ResvMap {
    /// Returns how many indices of the range are in the set (`region_count`).
    pub(crate) fn count(&self, range: Range<u64>) -> u64 {
        overlaps(&self.0.lock(), &range)
            .map(|(start, end)| end.min(range.end) - start.max(range.start))
            .sum()
    }
    /// Returns true if the index is in the set.
    pub(crate) fn has(&self, index: u64) -> bool {
        self.count(index..index + 1) == 1
    }
    /// Adds the indices of the range (`region_add`).
    pub(crate) fn add(&self, range: Range<u64>) {
        let mut set = self.0.lock();
        let touched = range.start.saturating_sub(1)..range.end.saturating_add(1);
        let joined: Vec<_> = overlaps(&set, &touched).collect();
        let mut all = range;
        for (start, end) in joined {
            set.remove(&start);
            all = all.start.min(start)..all.end.max(end);
        }
        set.insert(all.start, all.end);
    }
    /// Removes the indices of the range, and returns how many were in the set (`region_del`).
    pub(crate) fn remove(&self, range: Range<u64>) -> u64 {
        let mut set = self.0.lock();
        let cut: Vec<_> = overlaps(&set, &range).collect();
        let mut removed = 0;
        for (start, end) in cut {
            set.remove(&start);
            if start < range.start {
                set.insert(start, range.start);
            }
            if range.end < end {
                set.insert(range.end, end);
            }
            removed += end.min(range.end) - start.max(range.start);
        }
        removed
    }
}

/// Returns the ranges of the set that overlap this one, ascending.
fn overlaps(set: &BTreeMap<u64, u64>, range: &Range<u64>) -> impl Iterator<Item = (u64, u64)> {
    let below = set.range(..range.start).next_back();
    let below = below.filter(|&(_, &end)| end > range.start);
    let inside = set.range(range.start..range.end.max(range.start));
    below.into_iter().chain(inside).map(|(&s, &e)| (s, e))
}

#[cfg(test)]
mod tests {
    use super::ResvMap;
    use std::collections::BTreeSet;

    #[test]
    fn it_is_a_set_of_numbers() {
        let map = ResvMap::default();
        let mut model = BTreeSet::new();
        let mut x = 1_u64;
        for _ in 0..4000 {
            x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let from = (x >> 33) % 50;
            let to = from + (x >> 45) % 6;
            let inside = model.range(from..to).count() as u64;
            assert_eq!(map.count(from..to), inside, "{from}..{to}");
            if x >> 62 == 0 {
                assert_eq!(map.remove(from..to), inside);
                (from..to).for_each(|n| _ = model.remove(&n));
            } else if from < to {
                map.add(from..to);
                model.extend(from..to);
            }
            assert_eq!(map.has(from), model.contains(&from));
            assert_eq!(map.count(0..u64::MAX), model.len() as u64);
        }
    }
}
