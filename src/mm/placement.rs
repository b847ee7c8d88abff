//! Where a mapping without a fixed address goes: `get_unmapped_area`, top-down.

use super::{
    Mm, MmapArgs, MmapWriteGuard,
    flags::{MapFlags, VmFlags},
    layout::Layout,
    mmap::{TYPE, check_args},
};
use crate::{
    addr::{PAGE_SHIFT, PAGE_SIZE, PMD_PAGES, TASK_PAGES, TASK_SIZE, Vpn, VpnRange},
    ctx::{Cx, Sleepable, rank},
    error::MmapError,
    file::File,
};
use std::sync::Arc;

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

/// Whether a place found by the address space itself is aligned for huge pages (`thp_get_unmapped_area`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Huge {
    /// Any page will do: shared memory, small machines.
    No,
    /// Private anonymous memory: whole multiples of 2 MiB, where no hint is given.
    Anonymous,
    /// A file, from this page on: whatever holds a whole 2-MiB stretch of the file. The stretch, not the start, is
    /// put at a boundary.
    File(u64),
}

/// Above this an address is an error with its sign changed (`IS_ERR_VALUE`).
const LAST_POINTER: u64 = u64::MAX - 4095;

/// First page of the bottom-up area, tried when nothing fits below `mmap_base` (`TASK_UNMAPPED_BASE`).
const UNMAPPED_BASE: u64 = TASK_PAGES / 3;

impl Mm {
    /// Where `mmap` with these arguments would put the mapping now.
    ///
    /// # Errors
    ///
    /// [`MmapError`] of the arguments and of the place; other checks are not made.
    pub fn would_map_at(
        &self,
        cx: &mut Cx<'_, rank::Idle, Sleepable>,
        args: &MmapArgs,
    ) -> Result<u64, MmapError> {
        let pages = check_args(args)?;
        let range = self.write(cx).find_place(args, pages)?;
        Ok(range.start().addr())
    }
}

impl MmapWriteGuard<'_> {
    pub(super) fn find_place(&self, args: &MmapArgs, pages: u64) -> Result<VpnRange, MmapError> {
        let fixed = args
            .flags
            .intersects(MapFlags::FIXED | MapFlags::FIXED_NOREPLACE);
        let len = pages * PAGE_SIZE;
        let want = if fixed {
            Want::Fixed(args.addr)
        } else {
            Want::Hint(self.hint(args.addr))
        };
        let anonymous = args.flags & TYPE == MapFlags::PRIVATE;
        let pgoff = args.offset >> PAGE_SHIFT;
        let huge = self.layout.huge(args.file.as_ref(), anonymous, pgoff);
        let range = self.layout.place(want, pages, huge).map_err(|e| match e {
            NoPlace::TooHigh if fixed && args.addr > LAST_POINTER && pages <= TASK_PAGES => {
                MmapError::ErrorAddress(args.addr)
            }
            NoPlace::TooHigh => MmapError::TooHigh {
                addr: args.addr,
                len,
            },
            NoPlace::Unaligned => MmapError::Unaligned(args.addr),
            NoPlace::NoHole => MmapError::NoHole(len),
        })?;
        if args.flags.contains(MapFlags::FIXED_NOREPLACE) && self.layout.occupied(range) {
            return Err(MmapError::Exists {
                addr: args.addr,
                len,
            });
        }
        Ok(range)
    }
    /// `round_hint_to_min`: a hint is rounded down to a page and raised to the lowest address allowed.
    fn hint(&self, addr: u64) -> u64 {
        let at = addr & !(PAGE_SIZE - 1);
        let min = self.layout.machine.config().mmap_min_addr;
        if at != 0 && at < min {
            Vpn(min.div_ceil(PAGE_SIZE)).addr()
        } else {
            at
        }
    }
}

impl Layout {
    /// Whose alignment a mapping gets: that of its object, or that of private anonymous memory.
    pub(super) fn huge(&self, file: Option<&Arc<File>>, private: bool, pgoff: u64) -> Huge {
        match file {
            _ if !self.machine.config().align_huge => Huge::No,
            Some(file) if file.object().huge_aligned() => Huge::File(pgoff),
            None if private => Huge::Anonymous,
            _ => Huge::No,
        }
    }
    /// A place for `pages` pages.
    pub(super) fn place(&self, want: Want, pages: u64, huge: Huge) -> Result<VpnRange, NoPlace> {
        if pages > TASK_PAGES {
            return Err(NoPlace::TooHigh);
        }
        match want {
            Want::Fixed(addr) if addr > TASK_SIZE - pages * PAGE_SIZE => Err(NoPlace::TooHigh),
            Want::Fixed(addr) if addr % PAGE_SIZE != 0 => Err(NoPlace::Unaligned),
            Want::Fixed(addr) => Ok(range_at(Vpn::containing(addr), pages)),
            Want::Hint(hint) => {
                let aligned = match huge {
                    Huge::Anonymous if hint == 0 && pages.is_multiple_of(PMD_PAGES) => {
                        self.aligned(hint, 0, pages)
                    }
                    Huge::File(off) => self.aligned(hint, off, pages),
                    Huge::No | Huge::Anonymous => None,
                };
                aligned
                    .or_else(|| self.near(hint, pages))
                    .ok_or(NoPlace::NoHole)
            }
        }
    }
    /// At the hint, or else anywhere (`arch_get_unmapped_area_topdown`).
    fn near(&self, hint: u64, pages: u64) -> Option<VpnRange> {
        self.at_hint(hint, pages)
            .or_else(|| self.anywhere(pages).map(|at| range_at(at, pages)))
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
    /// A hole with 2 MiB to spare, and in it the place where page `off` is at the right distance from a boundary;
    /// none for what holds no whole stretch of 2 MiB (`__thp_get_unmapped_area`).
    fn aligned(&self, hint: u64, off: u64, pages: u64) -> Option<VpnRange> {
        let boundary = off.checked_next_multiple_of(PMD_PAGES)?;
        let stretch = off.checked_add(pages)?.checked_sub(boundary)?;
        let padded = pages.checked_add(PMD_PAGES)?;
        if stretch < PMD_PAGES || padded > TASK_PAGES {
            return None;
        }
        let at = self.near(hint, padded)?.start();
        if at.addr() == hint {
            // A hint with so much room behind it is respected.
            return Some(range_at(at, pages));
        }
        let shift = off.wrapping_sub(at.0) & (PMD_PAGES - 1);
        // Top-down, a hole that starts right is used at its upper end.
        let shift = if shift == 0 { PMD_PAGES } else { shift };
        Some(range_at(at.plus(shift), pages))
    }
    /// Highest hole below `mmap_base`, else the lowest above [`UNMAPPED_BASE`].
    fn anywhere(&self, pages: u64) -> Option<Vpn> {
        let min = self.machine.config().mmap_min_addr.max(PAGE_SIZE);
        let low = Vpn(min.div_ceil(PAGE_SIZE));
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
