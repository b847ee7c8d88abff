//! `MAP_HUGETLB`: memory of a pool of huge pages that is set aside. `fs/hugetlbfs/inode.c`.
//!
//! The pool of every machine here is empty, so nothing is ever mapped from it. How that fails is what programs see who
//! try huge pages first: the arguments are checked, the place is found, what was mapped there is gone, and only then there
//! are no pages. Linux lets `MAP_NORESERVE` through and raises SIGBUS at the first access; here it fails the same way.

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
    /// The mapping fails when the pages are to be reserved (`hugetlbfs_file_mmap`): the old mappings are gone by then, and
    /// a window takes out what may have been mapped (`unmap_region`).
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
