//! The windows that have opened: for each page the last one, by its number.
//!
//! A copy of a translation keeps the number of windows that had opened when its page was looked up.
//! Every driver had acknowledged a window when it opened. So a copy is stale if the last window
//! over its page has a higher number, and no other copy is: no driver gets a translation of a page
//! between the beginning and the end of a window over it.

use super::index::SpaceKey;
use crate::{
    addr::{Vpn, VpnRange},
    sync::{AtomicU64, Mutex, Ordering},
};
use std::collections::BTreeMap;

/// The most pieces that are kept. If there are more, the half that is older is forgotten, and a
/// copy from before these windows is not found any more.
const MAX_PIECES: usize = 1 << 14;

/// Pages, from the one in the key on, over which the same window was the last one to open.
#[derive(Clone, Copy, Debug)]
struct Piece {
    end: Vpn,
    /// The number of the window, from 1.
    nth: u64,
    window: VpnRange,
}

/// The last window over each page, of all address spaces of a machine.
#[derive(Debug, Default)]
pub(super) struct OpenedWindows {
    count: AtomicU64,
    pieces: Mutex<BTreeMap<(SpaceKey, Vpn), Piece>>,
}

impl OpenedWindows {
    /// Returns the number of windows that have opened.
    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }
    /// Notes that a window is open: every driver has acknowledged it.
    pub(super) fn note(&self, space: SpaceKey, window: VpnRange) {
        let (start, end) = (window.start(), window.end());
        let mut pieces = self.pieces.lock();
        let before = pieces.range_mut((space, Vpn(0))..(space, start));
        if let Some((_, before)) = before.last()
            && before.end > start
        {
            let whole = *before;
            before.end = start;
            pieces.insert((space, start), whole);
        }
        let covered = pieces.range((space, start)..(space, end));
        let covered: Vec<_> = covered.map(|(key, piece)| (*key, *piece)).collect();
        for (key, piece) in covered {
            pieces.remove(&key);
            if piece.end > end {
                pieces.insert((space, end), piece);
            }
        }
        let nth = self.count.fetch_add(1, Ordering::AcqRel) + 1;
        pieces.insert((space, start), Piece { end, nth, window });
        if pieces.len() > MAX_PIECES {
            forget_older_half(&mut pieces);
        }
    }
    /// Returns the last window over a page, if it opened after `since` others.
    pub(super) fn last(&self, space: SpaceKey, at: Vpn, since: u64) -> Option<VpnRange> {
        let pieces = self.pieces.lock();
        let (_, piece) = pieces.range((space, Vpn(0))..=(space, at)).next_back()?;
        (piece.end > at && piece.nth > since).then_some(piece.window)
    }
    /// Forgets the windows of an address space.
    pub(super) fn forget(&self, space: SpaceKey) {
        let mut pieces = self.pieces.lock();
        pieces.retain(|(other, _), _| *other != space);
    }
}

fn forget_older_half(pieces: &mut BTreeMap<(SpaceKey, Vpn), Piece>) {
    let mut ages: Vec<u64> = pieces.values().map(|piece| piece.nth).collect();
    let middle = ages.len() / 2;
    let (_, median, _) = ages.select_nth_unstable(middle);
    let median = *median;
    pieces.retain(|_, piece| piece.nth >= median);
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::{MAX_PIECES, OpenedWindows};
    use crate::addr::{Vpn, VpnRange};

    fn pages(start: u64, end: u64) -> VpnRange {
        VpnRange::new(Vpn(start), Vpn(end)).unwrap()
    }

    #[test]
    fn the_last_window_over_each_page_is_known() {
        let opened = OpenedWindows::default();
        let windows = [
            (1, 0, 100),
            (1, 10, 20),
            (1, 15, 30),
            (2, 12, 13),
            (1, 5, 12),
            (1, 25, 26),
            (1, 200, 300),
            (1, 250, 400),
            (1, 26, 27),
            (1, 27, 29),
        ];
        for (nth, (space, start, end)) in (0..).zip(windows) {
            assert_eq!(opened.count(), nth);
            opened.note(space, pages(start, end));
            for page in 0..500 {
                let over = |&(s, start, end): &(_, u64, u64)| s == 1 && start <= page && page < end;
                let so_far = &windows[..=usize::try_from(nth).unwrap()];
                let wanted = so_far.iter().rposition(over);
                let window = wanted.map(|n| pages(windows[n].1, windows[n].2));
                let number = wanted.map_or(0, |n| n as u64 + 1);
                assert_eq!(opened.last(1, Vpn(page), 0), window, "page {page}");
                assert_eq!(opened.last(1, Vpn(page), number), None, "page {page}");
            }
        }
        opened.forget(1);
        assert_eq!(opened.last(1, Vpn(12), 0), None);
        assert_eq!(opened.last(2, Vpn(12), 3), Some(pages(12, 13)));
    }

    #[test]
    fn the_older_half_is_forgotten_when_there_are_too_many() {
        let opened = OpenedWindows::default();
        for n in 0..=MAX_PIECES as u64 {
            opened.note(1, pages(2 * n, 2 * n + 1));
        }
        let last = MAX_PIECES as u64 * 2;
        assert!(opened.pieces.lock().len() <= MAX_PIECES / 2 + 1);
        assert_eq!(opened.last(1, Vpn(0), 0), None);
        assert_eq!(opened.last(1, Vpn(last), 0), Some(pages(last, last + 1)));
        opened.note(1, VpnRange::ALL);
        assert_eq!(opened.pieces.lock().len(), 1);
    }
}
