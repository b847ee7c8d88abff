//! Moving frames between the lists of reclaim, and the marks that decide about it.

use super::{
    flags::FrameFlags,
    large_page::Large,
    lists::{LruCost, LruList},
    mem::{Frame, PhysMem},
    owner::{MERGED_INDEX, Owner},
};
use crate::addr::Pfn;

/// Returns the number of pages for which the frame of a large page stands on its list.
fn weight(page: Large) -> u16 {
    u16::try_from(page.frames()).expect("at most a huge page")
}

impl PhysMem {
    /// Returns true if this machine has lists: if it has a swap device.
    pub(crate) fn has_lru(&self) -> bool {
        self.swap().capacity() > 0
    }
    /// Adds a frame to the head of the list that its flags choose (`folio_add_lru`); a frame of a
    /// device is on none.
    pub(crate) fn lru_add(&self, pfn: Pfn) {
        if !self.is_large(pfn) {
            self.collect_new(pfn);
        }
        self.put_on_list(pfn);
    }
    /// Adds a frame, or the one that stands for its page, to the head of the list that its flags
    /// choose.
    fn put_on_list(&self, pfn: Pfn) {
        if !self.has_lru() {
            return;
        }
        // Under the lock under which a large page is split.
        let mut lists = self.lru.0.lock();
        let pfn = self.stands_for(pfn);
        if self.is_device(pfn) || self.flags(pfn).contains(FrameFlags::UNEVICTABLE) {
            return;
        }
        let pages = self.private_large(pfn).map_or(1, weight);
        lists.remove(pfn.0);
        self.set_flags(pfn, FrameFlags::LRU);
        let list = LruList::of(self.flags(pfn));
        lists.push(list as u8, pfn.0, pages);
    }
    /// Removes a frame from its list (`folio_isolate_lru`). Returns true if it was on one.
    pub(crate) fn lru_remove(&self, pfn: Pfn) -> bool {
        if !self.flags(pfn).contains(FrameFlags::LRU) {
            return false;
        }
        let mut lists = self.lru.0.lock();
        let removed = lists.remove(pfn.0);
        // Cleared under the lock, as the flag is set under it.
        self.clear_flags(pfn, FrameFlags::LRU);
        removed
    }
    /// Changes the flags of a frame, and moves it to the head of the list that the new flags
    /// choose, if it is on a list.
    pub(crate) fn lru_move(&self, pfn: Pfn, set: FrameFlags, clear: FrameFlags) {
        let on = self.lru_remove(pfn);
        self.set_flags(pfn, set);
        self.clear_flags(pfn, clear);
        if on {
            self.put_on_list(pfn);
        }
    }
    /// Removes a page of locked memory from the lists (`mlock_folio`).
    pub(crate) fn lru_lock(&self, pfn: Pfn) {
        self.lru_move(pfn, FrameFlags::UNEVICTABLE, FrameFlags::ACTIVE);
    }
    /// Adds a page back that one piece of locked memory has given up (`munlock_folio`). If another
    /// piece still has it, the next look of reclaim finds that out. A merged page stays in memory.
    pub(crate) fn lru_unlock(&self, pfn: Pfn) {
        if self.flags(pfn).contains(FrameFlags::UNEVICTABLE) && !self.is_merged(pfn) {
            // A part of a large page unlocks all of it.
            self.clear_flags_of_page(pfn, FrameFlags::UNEVICTABLE);
            self.lru_add(pfn);
        }
    }
    /// Returns true if the frame is one that same-page merging shares (`folio_test_ksm`): it
    /// belongs to no one family of mappings, and its owner is a reverse map of its own.
    pub(crate) fn is_merged(&self, pfn: Pfn) -> bool {
        let is_merged = |owner: Owner| owner.index == MERGED_INDEX;
        self.flags(pfn).contains(FrameFlags::ANON) && self.owner(pfn).is_some_and(is_merged)
    }
    /// Takes frames from the tail of a list, oldest first, until they stand for `most` pages.
    /// Returns the number of these pages as well.
    pub(crate) fn lru_isolate(&self, list: LruList, most: u64) -> (Vec<Frame<'_>>, u64) {
        let (mut out, mut pages) = (Vec::new(), 0);
        let mut lists = self.lru.0.lock();
        let mut at = lists.ends[list as usize].tail;
        while at != 0 && pages < most {
            let next = lists.link(at).head;
            // A frame without a reference is being freed: its own retirement removes it.
            if let Some(frame) = self.try_get(Pfn(at)) {
                pages += u64::from(lists.link(at).pages);
                lists.remove(at);
                self.clear_flags(Pfn(at), FrameFlags::LRU);
                out.push(frame);
            }
            at = next;
        }
        (out, pages)
    }
    /// Notes that reclaim has written a private page to swap.
    pub(crate) fn lru_note_written(&self, pfn: Pfn) {
        self.set_flags(pfn, FrameFlags::RECLAIM);
        let mut lists = self.lru.0.lock();
        lists.written.note(pfn, |pfn| self.is_written(pfn));
    }
    /// Returns true if reclaim has written a private page to swap, and nothing uses it since.
    fn is_written(&self, pfn: Pfn) -> bool {
        let flags = self.flags(pfn);
        flags.contains(FrameFlags::SWAP_CACHE | FrameFlags::RECLAIM)
            && !flags.contains(FrameFlags::DIRTY)
            && self.mapcount(pfn) == 0
    }
    /// Takes the pages from the inactive list that reclaim has written to swap and that nothing
    /// uses since, in the order of their writing.
    pub(crate) fn lru_isolate_written(&self) -> Vec<Frame<'_>> {
        let mut out = Vec::new();
        let mut lists = self.lru.0.lock();
        for pfn in lists.written.take() {
            if !self.is_written(pfn) || !lists.is_on(LruList::InactiveAnon, pfn.0) {
                continue;
            }
            if let Some(frame) = self.try_get(pfn) {
                lists.remove(pfn.0);
                self.clear_flags(pfn, FrameFlags::LRU);
                out.push(frame);
            }
        }
        out
    }
    /// Returns the number of pages on a list.
    pub(crate) fn lru_len(&self, list: LruList) -> u64 {
        self.lru.0.lock().ends[list as usize].len
    }
    /// Returns the recent cost of work on the lists.
    pub(crate) fn lru_cost(&self) -> LruCost {
        self.lru.0.lock().cost
    }
    /// Records the cost of work on a list (`lru_note_cost`), and halves all that was recorded.
    ///
    /// Linux halves it when it exceeds a quarter of the pages that its statistics show; they show
    /// none here ([`crate::reclaim`]).
    pub(crate) fn lru_note_cost(&self, list: LruList, cost: u64) {
        if cost == 0 {
            return;
        }
        let noted = &mut self.lru.0.lock().cost;
        match list {
            LruList::InactiveAnon | LruList::ActiveAnon => noted.anon += cost,
            LruList::InactiveFile | LruList::ActiveFile => noted.file += cost,
        }
        noted.anon /= 2;
        noted.file /= 2;
    }
    /// Records a use of a page that left no mark in an entry: the first sets a mark, the second
    /// moves the page to the active list (`folio_mark_accessed`).
    pub(crate) fn mark_accessed(&self, pfn: Pfn) {
        if !self.has_lru() {
            return;
        }
        let pfn = self.stands_for(pfn);
        let flags = self.flags(pfn);
        if !flags.contains(FrameFlags::REFERENCED) {
            self.set_flags(pfn, FrameFlags::REFERENCED);
        } else if !flags.intersects(FrameFlags::ACTIVE | FrameFlags::UNEVICTABLE) {
            self.lru_move(pfn, FrameFlags::ACTIVE, FrameFlags::REFERENCED);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::MemConfig, LruList, PhysMem};
    use crate::frame::FrameFlags;

    #[test]
    fn first_come_first_taken_and_each_once() {
        let mem = PhysMem::new(MemConfig {
            frames: 8,
            swap: 8,
            ..MemConfig::default()
        });
        let frames: Vec<_> = (0..5).map(|_| mem.alloc().unwrap()).collect();
        for frame in &frames {
            mem.set_flags(frame.pfn(), FrameFlags::SWAP_BACKED);
            mem.lru_add(frame.pfn());
        }
        mem.lru_add(frames[0].pfn());
        assert!(mem.lru_remove(frames[2].pfn()) && !mem.lru_remove(frames[2].pfn()));
        mem.mark_accessed(frames[3].pfn());
        mem.mark_accessed(frames[3].pfn());
        let (taken, _) = mem.lru_isolate(LruList::InactiveAnon, 10);
        let order: Vec<_> = taken.iter().map(|f| f.pfn()).collect();
        assert_eq!(order, [frames[1].pfn(), frames[4].pfn(), frames[0].pfn()]);
        assert_eq!(mem.lru_len(LruList::ActiveAnon), 1);
        drop((taken, frames));
        assert!(LruList::ALL.iter().all(|&l| mem.lru_len(l) == 0));
    }

    #[test]
    fn what_was_written_is_taken_once_and_only_if_nothing_uses_it() {
        let mem = PhysMem::new(MemConfig {
            frames: 8,
            swap: 8,
            ..MemConfig::default()
        });
        let frames: Vec<_> = (0..5).map(|_| mem.alloc().unwrap()).collect();
        for frame in &frames {
            mem.set_flags(frame.pfn(), FrameFlags::SWAP_BACKED | FrameFlags::ANON);
            mem.swap_cache_add(frame).unwrap();
            mem.lru_add(frame.pfn());
        }
        for nth in [3, 0, 1, 2, 3] {
            mem.swap_write(frames[nth].pfn());
            mem.lru_note_written(frames[nth].pfn());
        }
        mem.set_flags(frames[1].pfn(), FrameFlags::DIRTY);
        mem.lru_move(frames[2].pfn(), FrameFlags::ACTIVE, FrameFlags::empty());
        let taken = mem.lru_isolate_written();
        let order: Vec<_> = taken.iter().map(|f| f.pfn()).collect();
        assert_eq!(order, [frames[3].pfn(), frames[0].pfn()]);
        assert_eq!(mem.lru_len(LruList::InactiveAnon), 2);
        assert!(mem.lru_isolate_written().is_empty());
    }
}
