//! Positions of a page in the tables of the four levels.

use crate::addr::{PGD_PAGES, Vpn};

/// Entries of a table page.
pub(super) const ENTRIES: usize = 512;

/// Slot of the root that leads to `at`; `None` above the pages that four levels can hold.
#[inline]
pub(super) fn root_slot(at: Vpn) -> Option<usize> {
    let i = usize::try_from(at.0 / PGD_PAGES).ok()?;
    (i < ENTRIES).then_some(i)
}

/// Slot of a table below the root that leads to `at`; each of its 512 slots spans `span` pages.
#[inline]
#[allow(clippy::cast_possible_truncation)]
pub(super) const fn slot(at: Vpn, span: u64) -> usize {
    (at.0 / span) as usize & (ENTRIES - 1)
}

/// Entry of a leaf that maps `at`.
#[inline]
#[allow(clippy::cast_possible_truncation)]
pub(super) const fn index(at: Vpn) -> usize {
    at.0 as usize & (ENTRIES - 1)
}
