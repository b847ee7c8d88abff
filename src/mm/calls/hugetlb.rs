//! `MAP_HUGETLB`: memory from a pool of huge pages that is set aside (`fs/hugetlbfs/inode.c`).
//!
//! The pool of every machine here is empty, so no page is ever mapped from it. Programs that try
//! huge pages first see the kernel's failure: the arguments are checked, the place is found, the
//! old mappings there are removed, and only then is the pool found empty. Linux accepts
//! `MAP_NORESERVE` and raises SIGBUS at the first access; here that fails like the rest.

use crate::mm::{
    entry::{args::MmapArgs, flags::VmFlags},
    guard::{AfterYield, MmapWriteGuard},
};
use crate::{
    addr::{PAGE_SHIFT, VpnRange},
    error::MmapError,
    notifier::Event,
};
use std::convert::Infallible;

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
        self.complete_unmap(range, true, AfterYield::KeepsEditing);
        self.yield_while(0, AfterYield::OnlyPages, &[range], |lease| {
            lease.into_window(range, Event::Unmap).close();
        });
        if !(args.offset >> PAGE_SHIFT).is_multiple_of(size) {
            return Err(MmapError::Offset(args.offset));
        }
        Err(MmapError::NoHugePages(range.pages() << PAGE_SHIFT))
    }
}
