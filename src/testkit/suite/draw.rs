//! A draw: the few numbers that become one operation of a random script.

use super::arena::any;
use crate::addr::PAGE_SIZE;
use proptest::prelude::*;

/// The numbers that become one operation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Draw {
    pub(super) kind: u32,
    pub(super) who: u32,
    pub(super) page: u64,
    pub(super) n: u64,
    pub(super) other: u64,
    pub(super) byte: u8,
}

/// Returns the strategy of a draw; smaller numbers are simpler operations on lower pages.
pub(super) fn draw() -> impl Strategy<Value = Draw> {
    (
        0..100_u32,
        0..6_u32,
        0..64_u64,
        1..9_u64,
        0..64_u64,
        1..=250_u8,
    )
        .prop_map(|(kind, who, page, n, other, byte)| Draw {
            kind,
            who,
            page,
            n,
            other,
            byte,
        })
}

/// Returns an offset in a page; the bytes around the written one show a copy of the page.
pub(super) fn byte_in(d: Draw) -> u64 {
    any(&[0, 0, 7, PAGE_SIZE - 1], d.n)
}
