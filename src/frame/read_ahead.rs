//! Read-ahead of swap: the number of neighbours that are read with a page (`swapin_nr_pages`).
//!
//! As on Linux for a rotating device: pages that were written together are read together, and the
//! more, the more of them turn out to be wanted.

use std::ops::Range;

/// The most pages that are read at once (`vm.page-cluster` 3).
const MOST: u32 = 8;

/// The history of read-ahead. Linux begins with four hits at boot; a machine here is one that has
/// run a while, and begins with none.
#[derive(Debug, Default)]
pub(super) struct ReadAhead {
    /// Pages read ahead that were then wanted, since the last read.
    hits: u32,
    /// The page wanted at the last read without a hit.
    before: Option<u32>,
    /// The number of pages of the last read.
    last: u32,
}

impl ReadAhead {
    /// Records that a page which was read ahead is wanted.
    pub(super) fn hit(&mut self) {
        self.hits += 1;
    }
    /// Returns the aligned block of pages to read when `wanted` is.
    pub(super) fn window(&mut self, wanted: u32) -> Range<u32> {
        let hits = std::mem::take(&mut self.hits);
        let guess = match hits {
            // No hits: only a program that goes through the device page by page is likely to go on.
            0 if self.before.is_some_and(|b| wanted.abs_diff(b) == 1) => 2,
            0 => 1,
            hits => (hits + 2).max(4).next_power_of_two(),
        };
        if hits == 0 {
            self.before = Some(wanted);
        }
        // The window shrinks by half at most.
        let pages = guess.min(MOST).max(self.last / 2);
        self.last = pages;
        let start = wanted & !(pages - 1);
        start..start + pages
    }
}

#[cfg(test)]
mod tests {
    use super::ReadAhead;

    #[test]
    fn windows_grow_with_hits_and_shrink_by_half() {
        let mut ahead = ReadAhead::default();
        assert_eq!(ahead.window(13), 13..14);
        assert_eq!(ahead.window(14), 14..16);
        assert_eq!(ahead.window(16), 16..17);
        ahead.hit();
        assert_eq!(ahead.window(6), 4..8);
        (0..3).for_each(|_| ahead.hit());
        assert_eq!(ahead.window(6), 0..8);
        assert_eq!(ahead.window(30), 28..32);
        assert_eq!(ahead.window(40), 40..42);
        assert_eq!(ahead.window(60), 60..61);
    }
}
