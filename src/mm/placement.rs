//! Where a mapping without a fixed address goes: `get_unmapped_area`, top-down.

use super::{flags::VmFlags, layout::Layout};
use crate::addr::{PAGE_SIZE, PMD_PAGES, TASK_PAGES, TASK_SIZE, Vpn, VpnRange};

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoPlace {
    /// Too long, or a fixed range beyond the top.
    TooHigh,
    /// A fixed address off a page boundary.
    Unaligned,
    /// No hole is large enough.
    NoHole,
}

/// Where the caller wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Want {
    /// Exactly there (`MAP_FIXED`).
    Fixed(u64),
    /// There if it is free; 0 is no wish.
    Hint(u64),
}

/// First page of the bottom-up area, tried when nothing fits below `mmap_base` (`TASK_UNMAPPED_BASE`).
const UNMAPPED_BASE: u64 = TASK_PAGES / 3;

impl Layout {
    /// A place for `pages` pages. `align_at`: place whole multiples of 2 MiB, found without a hint, so that this page
    /// offset falls on a 2-MiB boundary (`thp_get_unmapped_area`).
    pub(super) fn place(
        &self,
        want: Want,
        pages: u64,
        align_at: Option<u64>,
    ) -> Result<VpnRange, NoPlace> {
        if pages > TASK_PAGES {
            return Err(NoPlace::TooHigh);
        }
        match want {
            Want::Fixed(addr) if addr > TASK_SIZE - pages * PAGE_SIZE => Err(NoPlace::TooHigh),
            Want::Fixed(addr) if addr % PAGE_SIZE != 0 => Err(NoPlace::Unaligned),
            Want::Fixed(addr) => Ok(range_at(Vpn::containing(addr), pages)),
            Want::Hint(hint) => self
                .at_hint(hint, pages)
                .or_else(|| {
                    align_at
                        .filter(|_| hint == 0 && pages.is_multiple_of(PMD_PAGES))
                        .and_then(|off| self.aligned(off, pages))
                })
                .or_else(|| self.anywhere(pages).map(|at| range_at(at, pages)))
                .ok_or(NoPlace::NoHole),
        }
    }
    /// The hint itself, if it is free and keeps its distance from a stack above.
    fn at_hint(&self, hint: u64, pages: u64) -> Option<VpnRange> {
        let at = Vpn::containing(hint.checked_next_multiple_of(PAGE_SIZE)?);
        let min = self.machine.config().mmap_min_addr;
        if at.0 == 0 || at.addr() < min || at.0 > TASK_PAGES - pages {
            return None;
        }
        let end = at.plus(pages);
        let above_is_clear = self
            .vmas
            .find(at)
            .is_none_or(|next| self.start_with_gap(next.start(), next.flags) >= end);
        above_is_clear.then(|| range_at(at, pages))
    }
    /// Start of a VMA less the gap that a stack keeps below it (`vm_start_gap`).
    pub(super) fn start_with_gap(&self, start: Vpn, flags: VmFlags) -> Vpn {
        if flags.contains(VmFlags::GROWSDOWN) {
            Vpn(start
                .0
                .saturating_sub(self.machine.config().stack_guard_gap))
        } else {
            start
        }
    }
    /// A hole with 2 MiB to spare, and in it the place at the right offset from a boundary.
    fn aligned(&self, off: u64, pages: u64) -> Option<VpnRange> {
        let padded = pages.checked_add(PMD_PAGES)?;
        if padded > TASK_PAGES {
            return None;
        }
        let at = self.anywhere(padded)?;
        let shift = off.wrapping_sub(at.0) & (PMD_PAGES - 1);
        // Top-down, a hole that starts right is used at its upper end.
        let shift = if shift == 0 { PMD_PAGES } else { shift };
        Some(range_at(at.plus(shift), pages))
    }
    /// Highest hole below `mmap_base`, else the lowest above [`UNMAPPED_BASE`].
    fn anywhere(&self, pages: u64) -> Option<Vpn> {
        let min = self.machine.config().mmap_min_addr.max(PAGE_SIZE);
        let low = Vpn::containing(min.next_multiple_of(PAGE_SIZE));
        self.highest_hole(pages, low, self.mmap_base)
            .or_else(|| self.lowest_hole(pages, Vpn(UNMAPPED_BASE), Vpn(TASK_PAGES)))
    }
    /// `vm_unmapped_area` top-down: a hole's top is lowered by the gap of a stack above it.
    fn highest_hole(&self, pages: u64, low: Vpn, mut high: Vpn) -> Option<Vpn> {
        loop {
            let at = self.vmas.highest_gap(pages, low, high)?;
            let end = at.plus(pages);
            match self.vmas.find(end) {
                Some(next) if self.start_with_gap(next.start(), next.flags) < end => {
                    // Too near to a stack: whatever else fits lies below the gap, or below this hole.
                    high = self.start_with_gap(next.start(), next.flags);
                    if high <= low {
                        return None;
                    }
                }
                _ => return Some(at),
            }
        }
    }
    fn lowest_hole(&self, pages: u64, mut low: Vpn, high: Vpn) -> Option<Vpn> {
        loop {
            let at = self.vmas.lowest_gap(pages, low, high)?;
            let end = at.plus(pages);
            match self.vmas.find(end) {
                Some(next) if self.start_with_gap(next.start(), next.flags) < end => {
                    low = next.end();
                }
                _ => return Some(at),
            }
        }
    }
}

fn range_at(at: Vpn, pages: u64) -> VpnRange {
    VpnRange::new(at, at.plus(pages)).expect("a mapping has at least one page")
}
