//! The place of a mapping: the address asked for, or the highest hole that is large enough
//! (`get_unmapped_area`).

use crate::mm::{
    entry::{
        args::{MmapArgs, TYPE, check_args, size_of_pages},
        flags::{MapFlags, VmFlags},
    },
    guard::MmapWriteGuard,
    space::Mm,
    vma::layout::Layout,
};
use crate::{
    addr::{PAGE_SHIFT, PAGE_SIZE, PMD_PAGES, TASK_PAGES, TASK_SIZE, Vpn, VpnRange},
    ctx::CallCx,
    error::{ByteRange, MmapError},
    file::File,
};
use std::sync::Arc;

/// The reasons why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::mm) enum PlaceError {
    /// Too long, or a fixed range beyond the top.
    TooHigh,
    /// A fixed address off a page boundary.
    Unaligned,
    /// No hole is large enough.
    NoHole,
}

/// The address that the caller asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::mm) enum AddrRequest {
    /// Exactly this byte address (`MAP_FIXED`).
    Fixed(u64),
    /// This byte address if it is free; 0 asks for none.
    Hint(u64),
}

/// The alignment of a place that the address space chooses, for huge pages
/// (`thp_get_unmapped_area`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::mm) enum Huge {
    /// None: shared memory, small machines.
    No,
    /// Private anonymous memory: whole multiples of 2 MiB are aligned, where no hint is given.
    Anonymous,
    /// A file, from this page on: a mapping that holds a whole 2-MiB stretch of the file has that
    /// stretch, not its own start, at a boundary.
    File(u64),
    /// Memory of huge pages: always a multiple of this many pages.
    Whole(u64),
}

/// The part of the address space where a mapping without a fixed address may be placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::mm) enum Area {
    /// All of it, the highest hole first.
    All,
    /// The second GiB (`MAP_32BIT`), the lowest hole first (`find_start_end`). A hint may lie
    /// anywhere below its end.
    SecondGib,
}

impl Area {
    /// The pages of the second GiB, half-open.
    const SECOND: (Vpn, Vpn) = (
        Vpn(0x4000_0000 >> PAGE_SHIFT),
        Vpn(0x8000_0000 >> PAGE_SHIFT),
    );

    fn of(flags: MapFlags) -> Self {
        if flags.contains(MapFlags::MAP_32BIT) {
            Self::SecondGib
        } else {
            Self::All
        }
    }
    /// The end of the pages that a hint may ask for.
    fn end(self) -> u64 {
        match self {
            Self::All => TASK_PAGES,
            Self::SecondGib => Self::SECOND.1.0,
        }
    }
}

/// A mapping to be placed.
#[derive(Clone, Copy, Debug)]
pub(in crate::mm) struct Place {
    pub(in crate::mm) request: AddrRequest,
    pub(in crate::mm) pages: u64,
    pub(in crate::mm) huge: Huge,
    pub(in crate::mm) area: Area,
}

/// The kernel takes an address above this for a negated errno (`IS_ERR_VALUE`).
const LAST_POINTER: u64 = u64::MAX - 4095;

/// The first page of the bottom-up area, tried when nothing fits below `mmap_base`
/// (`TASK_UNMAPPED_BASE`).
const UNMAPPED_BASE: u64 = TASK_PAGES / 3;

impl Mm {
    /// Returns the address at which `mmap` with these arguments would place the mapping now.
    ///
    /// # Errors
    ///
    /// [`MmapError`] of the arguments and of the place; makes no other checks.
    pub fn would_map_at(&self, cx: &mut CallCx<'_>, args: &MmapArgs) -> Result<u64, MmapError> {
        let pages = check_args(args)?;
        let range = self.lock_exclusive(cx).find_place(args, pages)?;
        Ok(range.start().addr())
    }
}

impl MmapWriteGuard<'_> {
    #[inline]
    pub(in crate::mm) fn find_place(
        &self,
        args: &MmapArgs,
        pages: u64,
    ) -> Result<VpnRange, MmapError> {
        let fixed = args
            .flags
            .intersects(MapFlags::FIXED | MapFlags::FIXED_NOREPLACE);
        let len = pages * PAGE_SIZE;
        let request = if fixed {
            AddrRequest::Fixed(args.addr)
        } else {
            AddrRequest::Hint(self.hint(args.addr))
        };
        let anonymous = args.flags & TYPE == MapFlags::PRIVATE;
        let pgoff = args.offset >> PAGE_SHIFT;
        let huge = match size_of_pages(args)? {
            Some(size) => Huge::Whole(size.pages()),
            None => self.layout.huge(args.file.as_ref(), anonymous, pgoff),
        };
        let place = Place {
            request,
            pages,
            huge,
            area: Area::of(args.flags),
        };
        let asked = ByteRange {
            addr: args.addr,
            len,
        };
        let range = self.layout.place(place).map_err(|e| match e {
            PlaceError::TooHigh if fixed && args.addr > LAST_POINTER && pages <= TASK_PAGES => {
                MmapError::ErrorAddress(args.addr)
            }
            PlaceError::TooHigh => MmapError::TooHigh(asked),
            PlaceError::Unaligned => MmapError::Unaligned(args.addr),
            PlaceError::NoHole => MmapError::NoHole(len),
        })?;
        if args.flags.contains(MapFlags::FIXED_NOREPLACE) && self.layout.occupied(range) {
            return Err(MmapError::Exists(asked));
        }
        Ok(range)
    }
    /// Rounds a hint down to a page, and raises it to the lowest address allowed
    /// (`round_hint_to_min`).
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
    /// Returns the alignment of a mapping: that of its object, or of private anonymous memory.
    #[inline]
    pub(in crate::mm) fn huge(&self, file: Option<&Arc<File>>, private: bool, pgoff: u64) -> Huge {
        match file {
            _ if !self.machine.config().align_huge => Huge::No,
            Some(file) if file.object().huge_aligned() => Huge::File(pgoff),
            None if private => Huge::Anonymous,
            _ => Huge::No,
        }
    }
    /// Finds the place of a mapping.
    #[inline]
    pub(in crate::mm) fn place(&self, place: Place) -> Result<VpnRange, PlaceError> {
        let Place { pages, huge, .. } = place;
        if pages > TASK_PAGES {
            return Err(PlaceError::TooHigh);
        }
        let grain = match huge {
            Huge::Whole(grain) => grain * PAGE_SIZE,
            _ => PAGE_SIZE,
        };
        match place.request {
            // Huge pages of a pool are checked first (`hugetlb_get_unmapped_area`).
            AddrRequest::Fixed(addr) if grain > PAGE_SIZE && addr % grain != 0 => {
                Err(PlaceError::Unaligned)
            }
            AddrRequest::Fixed(addr) if addr > TASK_SIZE - pages * PAGE_SIZE => {
                Err(PlaceError::TooHigh)
            }
            AddrRequest::Fixed(addr) if addr % PAGE_SIZE != 0 => Err(PlaceError::Unaligned),
            AddrRequest::Fixed(addr) => Ok(range_at(Vpn::containing(addr), pages)),
            AddrRequest::Hint(hint) => self.choose(hint, place),
        }
    }
    /// Finds the place of a mapping that may lie anywhere.
    fn choose(&self, hint: u64, place: Place) -> Result<VpnRange, PlaceError> {
        let Place { pages, huge, .. } = place;
        let aligned = match huge {
            Huge::Anonymous if hint == 0 && pages.is_multiple_of(PMD_PAGES) => {
                self.aligned(hint, 0, place)
            }
            Huge::File(off) => self.aligned(hint, off, place),
            Huge::Whole(grain) => {
                return self.whole(hint, grain, place).ok_or(PlaceError::NoHole);
            }
            Huge::No | Huge::Anonymous => None,
        };
        aligned
            .or_else(|| self.near(hint, pages, place.area))
            .ok_or(PlaceError::NoHole)
    }
    /// Returns the hint's place, or else a hole anywhere (`arch_get_unmapped_area_topdown`).
    fn near(&self, hint: u64, pages: u64, area: Area) -> Option<VpnRange> {
        self.at_hint(hint, pages, area)
            .or_else(|| self.anywhere(pages, area).map(|at| range_at(at, pages)))
    }
    /// Returns the hint's own place, if it is free and keeps its distance from a stack above. The
    /// caller decides how low it may be: `mmap` raises it to `mmap_min_addr`, `mremap` does not.
    fn at_hint(&self, hint: u64, pages: u64, area: Area) -> Option<VpnRange> {
        let at = Vpn::containing(hint.checked_next_multiple_of(PAGE_SIZE)?);
        if at.0 == 0 || at.0 > area.end().checked_sub(pages)? {
            return None;
        }
        let end = at.plus(pages);
        let above_is_clear = self
            .vmas
            .find(at)
            .is_none_or(|next| self.start_with_gap(next.start(), next.flags) >= end);
        above_is_clear.then(|| range_at(at, pages))
    }
    /// Returns the start of a VMA less the gap that a stack keeps below it (`vm_start_gap`).
    pub(in crate::mm) fn start_with_gap(&self, start: Vpn, flags: VmFlags) -> Vpn {
        if flags.contains(VmFlags::GROWSDOWN) {
            Vpn(start
                .0
                .saturating_sub(self.machine.config().stack_guard_gap))
        } else {
            start
        }
    }
    /// Finds a hole with 2 MiB to spare, and in it the place where page `off` has the right
    /// distance from a boundary; `None` if the mapping holds no whole stretch of 2 MiB
    /// (`__thp_get_unmapped_area`).
    fn aligned(&self, hint: u64, off: u64, place: Place) -> Option<VpnRange> {
        let pages = place.pages;
        let boundary = off.checked_next_multiple_of(PMD_PAGES)?;
        let stretch = off.checked_add(pages)?.checked_sub(boundary)?;
        let padded = pages.checked_add(PMD_PAGES)?;
        if stretch < PMD_PAGES || padded > TASK_PAGES {
            return None;
        }
        let at = self.near(hint, padded, place.area)?.start();
        if at.addr() == hint {
            // The hint has so much room behind it: it is taken.
            return Some(range_at(at, pages));
        }
        let shift = off.wrapping_sub(at.0) & (PMD_PAGES - 1);
        // Top-down, a hole that starts at the right distance is used at its upper end.
        let shift = if shift == 0 { PMD_PAGES } else { shift };
        Some(range_at(at.plus(shift), pages))
    }
    /// Finds a multiple of `grain` pages: the hint rounded up to one, else a hole with room to
    /// spare, used at its far end (`hugetlb_get_unmapped_area`, `align_mask`).
    fn whole(&self, hint: u64, grain: u64, place: Place) -> Option<VpnRange> {
        let Place { pages, area, .. } = place;
        let hint = hint.checked_next_multiple_of(grain * PAGE_SIZE)?;
        self.at_hint(hint, pages, area).or_else(|| {
            let padded = pages.checked_add(grain - 1).filter(|&p| p <= TASK_PAGES)?;
            let hole = self.anywhere(padded, area)?;
            let at = match area {
                Area::All => hole.plus(grain - 1).align_down(grain),
                Area::SecondGib => hole.align_up(grain),
            };
            Some(range_at(at, pages))
        })
    }
    /// Finds the highest hole below `mmap_base`, else the lowest above [`UNMAPPED_BASE`]; in the
    /// second GiB the lowest.
    fn anywhere(&self, pages: u64, area: Area) -> Option<Vpn> {
        if area == Area::SecondGib {
            let (low, high) = Area::SECOND;
            return self.lowest_hole(pages, low, high);
        }
        let min = self.machine.config().mmap_min_addr.max(PAGE_SIZE);
        let low = Vpn(min.div_ceil(PAGE_SIZE));
        self.highest_hole(pages, low, self.mmap_base)
            .or_else(|| self.lowest_hole(pages, Vpn(UNMAPPED_BASE), Vpn(TASK_PAGES)))
    }
    /// Finds the highest hole (`vm_unmapped_area`, top-down). A stack above a hole lowers the
    /// hole's top by its gap.
    fn highest_hole(&self, pages: u64, low: Vpn, mut high: Vpn) -> Option<Vpn> {
        loop {
            let at = self.vmas.highest_gap(pages, low, high)?;
            let end = at.plus(pages);
            match self.vmas.find(end) {
                Some(next) if self.start_with_gap(next.start(), next.flags) < end => {
                    // Too near to a stack: any other place lies below the gap, or below this hole.
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
