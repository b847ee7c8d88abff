//! Pages that leave a file of huge pages, and bytes of pages that stay
//! (`remove_inode_hugepages`).

use super::HugetlbFile;
use crate::{
    addr::{PAGE_SIZE, Pfn, chunks},
    ctx::{Below, Cx, Rank, Sleepable, rank},
    frame::FrameFlags,
    rmap::EvenCows,
    sync::Despite,
};
use std::ops::Range;

impl HugetlbFile {
    /// Takes the pages of `[from, to)` out of the file; those that a fault has mapped meanwhile are
    /// unmapped first (`remove_inode_hugepages`). Returns their indices. If a driver keeps a window
    /// from opening, the page is still mapped and stays.
    pub(super) fn remove<R: Rank + Below<rank::Rmap>>(
        &self,
        cx: &mut Cx<'_, R, Sleepable>,
        range: Range<u64>,
        despite: &mut Despite,
    ) -> Vec<u64> {
        let mut gone = Vec::new();
        let next = |at| {
            self.pages
                .lock()
                .range(at..range.end)
                .next()
                .map(|(&i, _)| i)
        };
        let mut at = range.start;
        while let Some(index) = next(at) {
            at = index + 1;
            let mut removed = self.remove_unmapped(index);
            if !removed {
                let first = index * self.huge.pages();
                let end = first + self.huge.pages();
                despite.call(|| self.mapping.unmap(cx, first, end, EvenCows::Yes));
                removed = self.remove_unmapped(index);
            }
            if removed {
                gone.push(index);
            }
        }
        gone
    }
    /// Takes page `index` out of the file unless it is mapped. Returns true if it did.
    fn remove_unmapped(&self, index: u64) -> bool {
        let mut pages = self.pages.lock();
        let unmapped = pages.get(&index).copied();
        let unmapped = unmapped.filter(|&head| self.host.mem.mapcount(head) == 0);
        let Some(head) = unmapped else {
            return false;
        };
        pages.remove(&index);
        drop(pages);
        self.give_up(head);
        true
    }
    /// Drops the file's reference on a page that it no longer has.
    pub(super) fn give_up(&self, head: Pfn) {
        let mem = &self.host.mem;
        for i in 0..self.huge.pages() {
            let pfn = self.part(head, i);
            mem.clear_flags(pfn, FrameFlags::DIRTY);
            mem.set_owner(pfn, None);
            drop(mem.adopt(pfn));
        }
    }
    /// Zeros bytes inside of one page, if the file has it (`hugetlbfs_zero_partial_page`).
    pub(super) fn zero(&self, bytes: Range<u64>) {
        let index = bytes.start / self.bytes();
        self.with_page(index, |page| {
            let Some(head) = page else {
                return;
            };
            let len = usize::try_from(bytes.end - bytes.start).expect("within a page");
            for (at, offset, len) in chunks(bytes.start, len) {
                let zeros = &[0; PAGE_SIZE as usize][..len];
                self.host.mem.write(self.part(head, at.0), offset, zeros);
            }
        });
    }
}
