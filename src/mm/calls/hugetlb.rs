//! Mappings of huge pages from a pool: `MAP_HUGETLB`, and files of such pages
//! (`hugetlbfs_file_mmap`).
//!
//! Pages are promised when the mapping is made, unless it has `MAP_NORESERVE`. The promise comes
//! late: the arguments are checked, the place is found, and the old mappings there are removed
//! before the pool is asked.

use crate::mm::{
    entry::flags::VmFlags,
    guard::{AfterYield, MmapWriteGuard},
    vma::Vma,
};
use crate::{
    addr::{PAGE_SHIFT, PAGE_SIZE, VpnRange},
    error::{MmapError, VmaError},
    file::{File, FileMode, HugetlbFile, VmaReserve},
    frame::HugeSize,
    notifier::Event,
};
use std::sync::Arc;

impl MmapWriteGuard<'_> {
    /// Maps a checked range of huge pages, from page offset `pgoff` on; without a file, of a
    /// nameless one.
    ///
    /// # Errors
    ///
    /// If the pool is too small, or the offset is inside of a huge page, the old mappings are gone,
    /// and a window has unmapped the range of the new one (`unmap_region`).
    pub(in crate::mm) fn map_hugetlb(
        &mut self,
        range: VpnRange,
        flags: VmFlags,
        (huge, pgoff): (HugeSize, u64),
        file: Option<Arc<File>>,
    ) -> Result<(), MmapError> {
        let file = match file {
            Some(file) => file,
            None => self.nameless(range, huge)?,
        };
        let old = self.gather(range)?;
        self.layout.may_expand(flags, range.pages() - old.pages)?;
        // Files that only the old mappings have live until the call has ended (`delayed_fput`), and
        // so do the promises to them; those to private mappings end at once.
        let replaced = self.layout.vmas.range(range);
        let _files: Vec<_> = replaced.filter_map(|vma| vma.file.clone()).collect();
        let told = self.watchers(range, &old);
        self.complete_unmap(range, true, AfterYield::KeepsEditing);
        if let Some(told) = told {
            told.send();
        }
        self.layout.alloc_vma()?;
        let reserve = match self.reserve(range, flags, pgoff, &file) {
            Ok(reserve) => reserve,
            Err(why) => {
                self.yield_while(0, AfterYield::OnlyPages, &[range], |lease| {
                    lease.into_window(range, Event::Unmap).close();
                });
                return Err(why);
            }
        };
        let flags = flags | VmFlags::HUGETLB | VmFlags::DONTEXPAND;
        let mut vma = Vma::new(range, pgoff, flags, Some(file));
        vma.reserve = reserve.map(Box::new);
        self.layout.insert(vma);
        self.layout.account(flags, range.pages());
        if flags.contains(VmFlags::LOCKED) {
            self.lock_new(range.start(), range.pages());
        }
        Ok(())
    }
    /// Makes the file of a mapping with `MAP_HUGETLB` (`hugetlb_file_setup`).
    fn nameless(&self, range: VpnRange, huge: HugeSize) -> Result<Arc<File>, VmaError> {
        let host = self.layout.machine.host();
        let object = HugetlbFile::nameless(host, range.pages() * PAGE_SIZE, huge)?;
        Ok(File::open(object, FileMode::ReadWrite))
    }
    /// Reserves the pages of a mapping (`hugetlb_reserve_pages`), and makes the file as long as a
    /// writable one reaches. A shared mapping reserves for its file, a private one for itself.
    fn reserve(
        &self,
        range: VpnRange,
        flags: VmFlags,
        pgoff: u64,
        file: &File,
    ) -> Result<Option<VmaReserve>, MmapError> {
        let object = HugetlbFile::of(&**file.object());
        let object = object.expect("the caller has a file of huge pages");
        let grain = object.huge_size().pages();
        if !pgoff.is_multiple_of(grain) {
            return Err(MmapError::Offset(pgoff << PAGE_SHIFT));
        }
        let end = pgoff + range.pages();
        let pages = pgoff / grain..end / grain;
        let refused = MmapError::NoHugePages(range.pages() << PAGE_SHIFT);
        let mut reserve = None;
        if flags.contains(VmFlags::NORESERVE) || object.is_segment() {
        } else if flags.contains(VmFlags::MAYSHARE) {
            if !object.reserve_shared(pages) {
                return Err(refused);
            }
        } else {
            reserve = Some(object.reserve_private(pages).ok_or(refused)?);
        }
        if flags.contains(VmFlags::WRITE) {
            object.grow_to(end * PAGE_SIZE);
        }
        Ok(reserve)
    }
}
