//! How many neighbours of a page are read from the swap device with it: `swapin_nr_pages`.
//!
//! As Linux does it for a device with heads to move: what was written together is read together, and the more as long as
//! that turns out right.

use std::ops::Range;

/// The most that is read at once (`vm.page-cluster` 3).
const MOST: u32 = 8;

/// What reading ahead has come to. Linux starts with four hits when it boots; a machine here is one that has run a while,
/// with none.
#[derive(Debug, Default)]
pub(super) struct ReadAhead {
    /// Pages read ahead that were asked for, since the last look.
    hits: u32,
    /// The page wanted when last there was no hit.
    before: Option<u32>,
    /// Pages read the last time.
    last: u32,
}

impl ReadAhead {
    /// A page that was read ahead is asked for.
    pub(super) fn hit(&mut self) {
        self.hits += 1;
    }
    /// The aligned block to read when `wanted` is.
    pub(super) fn window(&mut self, wanted: u32) -> Range<u32> {
        let hits = std::mem::take(&mut self.hits);
        let guess = match hits {
            // Nothing to go by: only who goes through the device step by step is likely to go on.
            0 if self.before.is_some_and(|b| wanted.abs_diff(b) == 1) => 2,
            0 => 1,
            hits => (hits + 2).max(4).next_power_of_two(),
        };
        if hits == 0 {
            self.before = Some(wanted);
        }
        // Shrinks by half at most.
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
