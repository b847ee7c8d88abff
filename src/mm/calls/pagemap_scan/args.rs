//! Arguments and results of a scan.

use crate::mm::entry::uffd_flags::{PageCategories, ScanFlags};
use crate::{
    addr::{PAGE_SIZE, TASK_SIZE, Vpn, VpnRange},
    error::ScanError,
};

/// The arguments of a scan (`struct pm_scan_arg`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScanArgs {
    /// First byte; a multiple of the page size.
    pub start: u64,
    /// One past the last byte; rounded up to pages.
    pub end: u64,
    /// The effects beside the answer: protection of pages, a check of the memory.
    pub flags: ScanFlags,
    /// Most regions that are reported; with 0, pages are protected and none is reported.
    pub regions: usize,
    /// Most pages that are reported; 0 is no limit.
    pub pages: u64,
    /// Categories that are inverted before the masks are compared.
    pub inverted: PageCategories,
    /// Categories that a page must have, all of them.
    pub mask: PageCategories,
    /// Categories of which a page must have one, unless this is empty.
    pub any_of: PageCategories,
    /// Categories that are reported.
    pub reported: PageCategories,
}

/// Neighbouring pages of the same reported categories.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageRegion {
    /// First byte.
    pub start: u64,
    /// One past the last byte.
    pub end: u64,
    /// The reported categories that the pages have.
    pub categories: PageCategories,
}

/// The result of a scan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scan {
    /// The pages that were found, ascending.
    pub regions: Vec<PageRegion>,
    /// The byte at which the scan ended: the end of its range, or the first byte that is not
    /// reported because a limit was met.
    pub end: u64,
}

/// Checks the arguments (`pagemap_scan_get_args`); `None`: the range is empty.
pub(super) fn check(args: &ScanArgs) -> Result<Option<VpnRange>, ScanError> {
    let ScanArgs { start, end, .. } = *args;
    if !ScanFlags::all().contains(args.flags) {
        return Err(ScanError::Flags(args.flags.bits()));
    }
    let used = args.inverted | args.mask | args.any_of | args.reported;
    if !PageCategories::all().contains(used) {
        return Err(ScanError::Categories(used.bits()));
    }
    if !start.is_multiple_of(PAGE_SIZE) {
        return Err(ScanError::Unaligned(start));
    }
    if end < start || end > TASK_SIZE {
        return Err(ScanError::Range { start, end });
    }
    let end = end.next_multiple_of(PAGE_SIZE);
    Ok(VpnRange::new(Vpn::containing(start), Vpn::containing(end)))
}
