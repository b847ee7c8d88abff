//! Read-ahead of a file: the pages that a read brings in beside the pages that it wants.
//!
//! Linux reads on where a program seems to go through the file: from the beginning, from where the
//! last read of the open file ended, or behind pages that are in memory already
//! (`page_cache_sync_ra`). Any other read brings in the wanted pages alone. Not modelled: the read
//! that begins when a program reaches the marked page of such a stretch (`page_cache_async_ra`),
//! which depends on the device. The mark itself is: no fault on a neighbour maps such a page.

use super::PageCache;
use crate::addr::PAGE_SIZE;
use std::ops::Range;

/// The most pages of a stretch (`ra_pages`: 128 KiB).
pub(super) const STRETCH: u64 = 32;

/// Pages to read together.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stretch {
    pub(super) pages: Range<u64>,
    /// The page to mark (`folio_set_readahead`); none if it is the end.
    pub(super) mark: u64,
}

/// Returns the stretch to read for pages `wanted`, of which the first is missing.
///
/// `before` is the byte where the last read ended; `behind` is the number of pages in memory
/// directly before, [`STRETCH`] at most.
pub(super) fn stretch(wanted: Range<u64>, before: u64, behind: u64) -> Stretch {
    let (index, count) = (wanted.start, wanted.end - wanted.start);
    let goes_on = index.wrapping_sub(before / PAGE_SIZE) <= 1;
    let (size, mark) = if index == 0 || count > STRETCH || goes_on {
        let size = first_size(count);
        (size, if size > count { count } else { size / 2 })
    } else if behind <= count {
        (count, count)
    } else {
        // Twice as much if the file is in memory from its beginning.
        let behind = if behind == index { 2 * behind } else { behind };
        let size = (behind + count).min(STRETCH);
        (size, size - 1)
    };
    Stretch {
        pages: index..index.saturating_add(size),
        mark: index.saturating_add(mark),
    }
}

/// Returns the first size of a stretch: `get_init_ra_size`.
fn first_size(count: u64) -> u64 {
    let size = count.checked_next_power_of_two().unwrap_or(STRETCH);
    match size {
        _ if size <= STRETCH / 32 => size * 4,
        _ if size <= STRETCH / 4 => size * 2,
        _ => STRETCH,
    }
}

impl PageCache {
    /// Counts the pages in a row before `index` that are in memory, up to `most`
    /// (`page_cache_prev_miss`).
    pub(super) fn in_a_row_before(&self, index: u64, most: u64) -> u64 {
        let there = |at: &u64| self.next(*at, *at + 1).is_some();
        let before = (index.saturating_sub(most)..index).rev();
        before.take_while(there).count() as u64
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    const NEVER: u64 = u64::MAX;

    fn stretch(wanted: Range<u64>, before: u64, behind: u64) -> Range<u64> {
        super::stretch(wanted, before, behind).pages
    }

    #[test]
    fn a_stretch_that_is_longer_than_wanted_has_a_mark() {
        let mark = |wanted, behind| super::stretch(wanted, NEVER, behind).mark;
        assert_eq!((mark(0..1, 0), mark(0..3, 0), mark(0..40, 0)), (1, 3, 16));
        assert_eq!(mark(7..9, 0), 9, "the end: none");
        assert_eq!((mark(7..8, 2), mark(7..8, 7)), (9, 21));
    }

    #[test]
    fn a_read_somewhere_brings_in_what_it_wants() {
        assert_eq!(stretch(7..8, NEVER, 0), 7..8);
        assert_eq!(stretch(7..9, NEVER, 2), 7..9);
    }

    #[test]
    fn a_read_at_the_beginning_or_where_the_last_one_ended_brings_in_more() {
        assert_eq!(stretch(0..1, NEVER, 0), 0..4);
        assert_eq!(stretch(0..3, NEVER, 0), 0..8);
        assert_eq!(stretch(0..40, NEVER, 0), 0..32);
        for before in [6 * 4096, 7 * 4096 + 5] {
            assert_eq!(stretch(7..8, before, 0), 7..11);
        }
        assert_eq!(stretch(7..8, 5 * 4096 + 4095, 0), 7..8);
    }

    #[test]
    fn a_read_behind_pages_that_are_there_goes_on_as_far() {
        assert_eq!(stretch(7..8, NEVER, 2), 7..10);
        assert_eq!(stretch(7..8, NEVER, 7), 7..22);
        assert_eq!(stretch(70..71, NEVER, 32), 70..102);
    }
}
