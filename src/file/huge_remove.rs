//! Pages that leave a file of huge pages, and bytes of pages that stay
//! (`remove_inode_hugepages`).

use super::HugetlbFile;
use crate::{
    addr::{PAGE_SIZE, Pfn, chunks},
    ctx::{Below, Cx, Rank, Sleepable, rank},
    frame::{Frame, FrameFlags, FrameLock},
    rmap::{EvenCows, PageKeeper},
    sync::Despite,
};
use std::ops::Range;

impl HugetlbFile {
    /// Takes the pages of `[from, to)` out of the file, with their reservations, and unmaps those
    /// that a fault has mapped meanwhile (`remove_inode_hugepages`). If a driver keeps a window
    /// from opening, the page is still mapped and stays.
    pub(super) fn remove<R: Rank + Below<rank::Rmap>>(
        &self,
        cx: &mut Cx<'_, R, Sleepable>,
        range: Range<u64>,
        despite: &mut Despite,
    ) {
        let mut at = range.start;
        while let Some((index, first)) = self.first_page(at..range.end) {
            // A page that moves has no mappings for a while, and gets them back (`folio_lock`).
            let locked = self.host.mem.lock(cx, first);
            let head = locked.pfn();
            if !self.take_out(index, head) {
                continue; // It moved, or left the file: look again.
            }
            at = index + 1;
            if self.host.mem.mapcount(head) > 0 {
                let first = index * self.huge.pages();
                let end = first + self.huge.pages();
                despite.call(|| self.mapping.unmap(cx, first, end, EvenCows::Yes));
            }
            let stays = self.host.mem.mapcount(head) > 0 && self.put_back(index, head);
            if !stays {
                self.give_up(head);
            }
        }
    }
    /// Returns the first page of the range, and its first frame.
    fn first_page(&self, range: Range<u64>) -> Option<(u64, Frame<'_>)> {
        let pages = self.pages.lock();
        let (&index, &head) = pages.range(range).next()?;
        Some((index, self.host.mem.get(head)))
    }
    /// Takes a page out of the file, and the reservation that it used up. No fault finds one of
    /// them without the other, and none maps the page again. Returns false if the file has another
    /// page there, or none.
    fn take_out(&self, index: u64, head: Pfn) -> bool {
        let _serial = self.serialize();
        let mut pages = self.pages.lock();
        if pages.get(&index) != Some(&head) {
            return false;
        }
        pages.remove(&index);
        self.reserved.remove(index..index + 1);
        true
    }
    /// Makes a page the file's again, unless a fault has filled the hole.
    fn put_back(&self, index: u64, head: Pfn) -> bool {
        let _serial = self.serialize();
        let mut pages = self.pages.lock();
        if pages.contains_key(&index) {
            return false;
        }
        pages.insert(index, head);
        let promised = self.reserved.remove(index..index + 1);
        self.host.mem.unreserve_huge(self.huge, promised);
        self.reserved.add(index..index + 1);
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

/// A page of a file moves to another page of the pool (`hugetlbfs_migrate_folio`).
impl PageKeeper for HugetlbFile {
    fn replace(&self, locked: &[FrameLock<'_>], first: u64, new: Pfn) -> bool {
        let mem = &self.host.mem;
        let index = first / self.huge.pages();
        let Some(head) = locked.first().map(FrameLock::pfn) else {
            return false;
        };
        // A fault maps a page of the file under this lock.
        let mut pages = self.pages.lock();
        let is_free = |old: &FrameLock<'_>| mem.is_only_cached(old.pfn());
        if pages.get(&index) != Some(&head) || !locked.iter().all(is_free) {
            return false;
        }
        for i in 0..self.huge.pages() {
            let frame = mem.get(self.part(new, i));
            mem.set_owner(frame.pfn(), Some(self.mapping.owner(first + i)));
            let _kept = frame.into_raw();
        }
        pages.insert(index, new);
        drop(pages);
        self.give_up(head);
        true
    }
}
