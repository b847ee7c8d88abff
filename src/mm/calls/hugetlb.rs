//! `MAP_HUGETLB`: memory from a pool of huge pages that is set aside (`fs/hugetlbfs/inode.c`).
//!
//! The pool of every machine here is empty, so no page is ever mapped from it. Programs that try
//! huge pages first see the kernel's failure: the arguments are checked, the place is found, the
//! old mappings there are removed, and only then is the pool found empty. Linux accepts
//! `MAP_NORESERVE` and raises SIGBUS at the first access; here that fails like the rest.

use super::mmap::MmapArgs;
use crate::mm::{
    entry::flags::{MapFlags, VmFlags},
    guard::{AfterYield, MmapWriteGuard},
};
use crate::{
    addr::{PAGE_SHIFT, PMD_PAGES, VpnRange},
    error::MmapError,
    notifier::Event,
};
use std::convert::Infallible;

/// The bits that name a size of huge pages, as the exponent of a power of two.
const SIZE: u32 = 0x3f;
const SIZE_SHIFT: u32 = 26;

/// Pages in each huge page that the arguments ask for; `None` where they ask for none (`hstate_sizelog`).
pub(in crate::mm) fn size_of_pages(args: &MmapArgs) -> Result<Option<u64>, MmapError> {
    let flags = args.flags;
    if !flags.contains(MapFlags::HUGETLB) {
        return Ok(None);
    }
    match (flags.bits() >> SIZE_SHIFT) & SIZE {
        // An open file that is not of huge pages does not become one.
        _ if args.file.is_some() => Err(MmapError::Flags(flags.bits())),
        0 | 21 => Ok(Some(PMD_PAGES)),
        30 => Ok(Some(PMD_PAGES * PMD_PAGES)),
        _ => Err(MmapError::Flags(flags.bits())),
    }
}

impl MmapWriteGuard<'_> {
    /// Fails at the reservation of the pages (`hugetlbfs_file_mmap`): the old mappings are gone by
    /// then, and a window unmaps the range of the new one (`unmap_region`).
    pub(in crate::mm) fn refuse_huge(
        &mut self,
        range: VpnRange,
        flags: VmFlags,
        (args, size): (&MmapArgs, u64),
    ) -> Result<Infallible, MmapError> {
        let old = self.gather(range)?;
        self.layout.may_expand(flags, range.pages() - old.pages)?;
        self.detach(range, true, AfterYield::KeepsEditing);
        self.yield_while(0, AfterYield::OnlyPages, &[range], |lease| {
            lease.into_window(range, Event::Unmap).close();
        });
        if !(args.offset >> PAGE_SHIFT).is_multiple_of(size) {
            return Err(MmapError::Offset(args.offset));
        }
        Err(MmapError::NoHugePages(range.pages() << PAGE_SHIFT))
    }
}
