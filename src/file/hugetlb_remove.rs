//! Pages of a pool that leave their file.

use super::hugetlb::HugetlbFile;
use crate::{
    ctx::{Below, Cx, Rank, Sleepable, rank},
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
}
