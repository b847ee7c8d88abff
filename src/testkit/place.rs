//! The pages of a check, numbered from the first one of its process.

use crate::addr::{PAGE_SIZE, Vpn, VpnRange};

/// The address of page 0 of the process.
pub(super) const BASE: u64 = 1 << 30;
/// Pages of the first mapping.
pub(super) const PAGES: u64 = 16;

pub(super) const fn at(page: u64) -> u64 {
    BASE + page * PAGE_SIZE
}
pub(super) fn pages(from: u64, to: u64) -> VpnRange {
    let page = |n| Vpn::containing(at(n));
    VpnRange::new(page(from), page(to)).expect("not empty")
}

/// Returns an address in the form of the steps.
pub(super) fn place(addr: u64) -> String {
    match addr.checked_sub(BASE) {
        Some(offset) if offset < (PAGES << 12) * 256 => match offset % PAGE_SIZE {
            0 => format!("page {}", offset / PAGE_SIZE),
            byte => format!("page {}, byte {byte}", offset / PAGE_SIZE),
        },
        _ => format!("{addr:#x}"),
    }
}
