//! Verdicts are exact, and no ticket or window is left behind.

use super::{Board, TicketVerdict};
use crate::{
    addr::{PMD_PAGES, Vpn, VpnRange},
    notifier::blocks::NARROW,
};
use proptest::prelude::*;

fn range(a: u64, b: u64) -> VpnRange {
    VpnRange::new(Vpn(a), Vpn(b)).unwrap()
}
fn at(n: u64) -> VpnRange {
    VpnRange::single(Vpn(n))
}
/// The number of tickets on the board.
fn tickets(board: &Board) -> usize {
    let each = board.buckets.iter().map(|b| b.0.lock().tickets());
    each.sum()
}

#[test]
fn open_is_busy_closed_is_stale_elsewhere_is_current() {
    for wide in [0, PMD_PAGES * NARROW] {
        let board = Board::default();
        let drawn = [9, 10, 19, 20, 20 + wide].map(|n| board.draw(at(n)));
        let busy = board.draw(at(19));
        let window = range(10, 20 + wide);
        board.begin(window);
        assert_eq!(busy.verdict(at(19)), TicketVerdict::Busy);
        assert_eq!(
            board.draw(at(20 + wide)).verdict(at(20 + wide)),
            TicketVerdict::Current
        );
        board.end(window);
        let inside = if wide > 0 {
            TicketVerdict::Stale
        } else {
            TicketVerdict::Current
        };
        let want = [
            TicketVerdict::Current,
            TicketVerdict::Stale,
            TicketVerdict::Stale,
            inside,
            TicketVerdict::Current,
        ];
        assert_eq!(
            drawn
                .map(|d| (d.drawn.pages.start().0, d))
                .map(|(n, d)| d.verdict(at(n))),
            want
        );
        assert_eq!(board.draw(at(19)).verdict(at(19)), TicketVerdict::Current);
        assert_eq!(tickets(&board), 0);
    }
}

#[test]
fn windows_elsewhere_make_nobody_try_again_however_many() {
    let board = Board::default();
    let (page, block, hit) = (board.draw(at(5)), board.draw(at(5)), board.draw(at(100)));
    let windows = if cfg!(miri) { 100 } else { 1000 };
    for n in 0..windows {
        board.begin(at(100 + n));
        board.end(at(100 + n));
    }
    assert_eq!(page.verdict(at(5)), TicketVerdict::Current);
    // A verdict on all pages of a huge page is another one.
    assert_eq!(block.verdict(range(0, PMD_PAGES)), TicketVerdict::Stale);
    assert_eq!(hit.verdict(at(100)), TicketVerdict::Stale);
}

#[test]
fn nested_windows_end_in_any_order() {
    let board = Board::default();
    let (a, b) = (range(0, 9), range(3, 4));
    board.begin(a);
    board.begin(b);
    board.end(a);
    assert_eq!(board.draw(at(3)).verdict(at(3)), TicketVerdict::Busy);
    board.end(b);
    assert_eq!(board.open(), 0);
    board.wait_idle(a);
}

#[test]
fn a_ticket_that_is_dropped_leaves_nothing() {
    let board = Board::default();
    drop((board.draw(at(1)), board.draw(at(1))));
    assert_eq!(tickets(&board), 0);
}

#[test]
fn a_waiter_sleeps_until_the_range_is_idle() {
    for window in [range(0, 1), range(0, 1 << 20)] {
        let board = Board::default();
        board.begin(window);
        std::thread::scope(|s| {
            let waiter = s.spawn(|| {
                board.wait_idle(range(0, 4));
                board.open()
            });
            board.end(window);
            assert_eq!(waiter.join().unwrap(), 0);
        });
    }
}

/// A board that remembers every window.
#[derive(Default)]
struct Plain {
    open: Vec<VpnRange>,
    closed: Vec<VpnRange>,
}

proptest! {
    #![proptest_config(crate::drawn::config(256))]
    /// Windows of all sizes and tickets of a few blocks, compared with a board that remembers every
    /// window.
    #[test]
    // One thread, and no unsafe code.
    #[cfg(not(miri))]
    fn verdicts_are_exact(steps in prop::collection::vec((0..6_u32, 0..4000_u64, 1..6000_u64), 1..60)) {
        let board = Board::default();
        let mut plain = Plain::default();
        let mut out = Vec::new();
        for (what, a, len) in steps {
            match what {
                0 | 1 => {
                    board.begin(range(a, a + len));
                    plain.open.push(range(a, a + len));
                }
                2 if !plain.open.is_empty() => {
                    let n = usize::try_from(len).unwrap() % plain.open.len();
                    let gone = plain.open.swap_remove(n);
                    board.end(gone);
                    plain.closed.push(gone);
                }
                3 | 4 => {
                    // One page, or pages up to the end of the block at most.
                    let left = PMD_PAGES - a % PMD_PAGES;
                    let pages = range(a, a + 1 + if what == 3 { 0 } else { len % left });
                    out.push((board.draw(pages), pages, plain.closed.len()));
                }
                5 if !out.is_empty() => {
                    let n = usize::try_from(len).unwrap() % out.len();
                    let (drawn, pages, since) = out.swap_remove(n);
                    let asked = if len % 2 == 0 { pages } else { VpnRange::block_of(pages.start()) };
                    let want = if plain.open.iter().any(|o| o.overlaps(asked)) {
                        TicketVerdict::Busy
                    } else if plain.closed[since..].iter().any(|c| c.overlaps(asked)) {
                        TicketVerdict::Stale
                    } else {
                        TicketVerdict::Current
                    };
                    prop_assert_eq!(drawn.look(asked), want);
                    prop_assert_eq!(drawn.verdict(asked), want);
                }
                _ => {}
            }
            prop_assert_eq!(board.open(), plain.open.len());
        }
    }
}
