//! Large pages of private memory on the lists of reclaim: one frame, the first that is left, stands
//! for the page.

use super::{
    flags::FrameFlags,
    large_page::Large,
    lists::{Lists, LruList},
    mem::{Frame, PhysMem},
};
use crate::addr::Pfn;

/// The flags of a page that decide about its place on the lists, or remember its use.
const OF_LISTS: FrameFlags = FrameFlags::ACTIVE.union(FrameFlags::REFERENCED);

impl PhysMem {
    /// Returns the large page of private memory that the frame is part of.
    #[inline]
    pub(crate) fn private_large(&self, pfn: Pfn) -> Option<Large> {
        let private = FrameFlags::LARGE | FrameFlags::ANON;
        match self.flags(pfn).contains(private) {
            true => self.large(pfn),
            false => None,
        }
    }
    /// Returns the frame that stands on a list for the page of this one: the first frame that is
    /// left of a large page of private memory, or the frame itself.
    pub(crate) fn stands_for(&self, pfn: Pfn) -> Pfn {
        let page = self.private_large(pfn);
        page.and_then(|page| self.parts_left(page).next())
            .unwrap_or(pfn)
    }
    /// Sets flags of a frame, and of all others of its large page of private memory.
    pub(crate) fn set_flags_of_page(&self, pfn: Pfn, flags: FrameFlags) {
        self.set_flags(pfn, flags);
        self.private_parts(pfn)
            .for_each(|part| self.set_flags(part, flags));
    }
    /// Clears flags of a frame, and of all others of its large page of private memory.
    pub(crate) fn clear_flags_of_page(&self, pfn: Pfn, flags: FrameFlags) {
        self.clear_flags(pfn, flags);
        self.private_parts(pfn)
            .for_each(|part| self.clear_flags(part, flags));
    }
    /// Returns the parts of the large page of private memory that the frame is part of, if any.
    fn private_parts(&self, pfn: Pfn) -> impl Iterator<Item = Pfn> {
        let page = self.private_large(pfn).into_iter();
        page.flat_map(|page| self.large_parts(page))
    }
    /// Leaves the place of a retired frame on a list to the next frame that is left of its large
    /// page.
    #[cold]
    pub(super) fn lru_pass_on(&self, pfn: Pfn) {
        let Some(page) = self.private_large(pfn) else {
            return;
        };
        // A page is split under this lock: the others have places of their own from then on.
        let mut lists = self.lru.0.lock();
        // The frames before it are gone: it was the first.
        let rest = page.all().skip(page.place(pfn) as usize + 1);
        let mut rest = rest.filter(|&part| self.large(part) == Some(page));
        // The reference keeps it from being retired at the same time.
        let next = rest.find_map(|part| self.try_get(part));
        if let Some(next) = &next {
            let pages = lists.link(pfn.0).pages;
            let moved = lists.push_next_to(pfn.0, next.pfn().0, pages);
            lists.remove(pfn.0);
            self.clear_flags(pfn, FrameFlags::LRU);
            if moved {
                self.set_flags(next.pfn(), self.flags(pfn) & OF_LISTS | FrameFlags::LRU);
            }
        }
        // Before the reference, which may be the last one by now.
        drop(lists);
    }
    /// Makes the frames of a large page of private memory single pages, if another thread has not.
    /// Each frame that is left gets a place of its own (`lru_add_split_folio`): if the page is on a
    /// list, beside it, so that the first page comes next and the others after it, from the last
    /// one on. Without the first page, the last one comes next. If it is on no list, they go to the
    /// heads of theirs.
    pub(crate) fn end_large(&self, page: Large) {
        if !self.has_lru() {
            self.forget_large(page);
            return;
        }
        // Several threads may split a page, each by another part: the first one that comes here
        // ends it. Under this lock a page is whole, or its parts have their places.
        let mut lists = self.lru.0.lock();
        let parts: Vec<Frame<'_>> = self
            .large_parts(page)
            .filter_map(|part| self.try_get(part))
            .collect();
        self.place_parts(&mut lists, page, &parts);
        self.forget_large(page);
        // Before the references, of which some may be the last ones by now.
        drop(lists);
    }
    /// Gives the frames that are left of a page their places.
    fn place_parts(&self, lists: &mut Lists, page: Large, parts: &[Frame<'_>]) {
        let Some((first, others)) = parts.split_first() else {
            return;
        };
        let kept = self.flags(first.pfn()) & OF_LISTS;
        lists.set_pages(first.pfn().0, 1);
        let mut last = None;
        for part in others {
            let pfn = part.pfn();
            self.set_flags(pfn, kept);
            // Locked memory has no place. Parts differ in this while another thread locks them.
            if self.flags(pfn).contains(FrameFlags::UNEVICTABLE) {
                continue;
            }
            if !lists.push_next_to(first.pfn().0, pfn.0, 1) {
                lists.push(LruList::of(self.flags(pfn)) as u8, pfn.0, 1);
            }
            self.set_flags(pfn, FrameFlags::LRU);
            last.get_or_insert(pfn);
        }
        if let Some(last) = last.filter(|_| first.pfn() != page.head())
            && lists.remove(first.pfn().0)
        {
            let beside = lists.push_next_to(last.0, first.pfn().0, 1);
            debug_assert!(beside, "it was beside the first");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{LargeFrame, MemConfig};

    fn memory() -> PhysMem {
        PhysMem::new(MemConfig {
            frames: 1023,
            swap: 8,
            ..MemConfig::default()
        })
    }
    fn folio(mem: &PhysMem) -> LargeFrame<'_> {
        let folio = mem.alloc_folio(16).unwrap();
        for pfn in folio.page().all() {
            mem.set_flags(pfn, FrameFlags::ANON | FrameFlags::SWAP_BACKED);
        }
        mem.lru_add(folio.head());
        folio
    }
    fn len(mem: &PhysMem) -> u64 {
        mem.lru_len(LruList::InactiveAnon)
    }
    #[test]
    fn the_first_frame_that_is_left_stands_for_all() {
        let mem = memory();
        let page = folio(&mem).into_raw();
        let page = mem.large(page).unwrap();
        assert_eq!(len(&mem), 16);
        for (nth, pfn) in page.all().enumerate() {
            assert_eq!(mem.stands_for(page.head().nth(15)), pfn);
            assert!(mem.flags(pfn).contains(FrameFlags::LRU), "{nth}");
            drop(mem.adopt(pfn));
            assert_eq!(len(&mem), if nth < 15 { 16 } else { 0 });
        }
        assert_eq!(mem.in_use(), 0);
    }

    #[test]
    fn parts_have_places_beside_it_once_it_is_split() {
        for gone in 0..3 {
            let mem = memory();
            let (older, page) = (folio(&mem), folio(&mem).into_raw());
            let page = mem.large(page).expect("it was not split");
            let younger = folio(&mem);
            let parts: Vec<Frame<'_>> = page.all().map(|pfn| mem.adopt(pfn)).collect();
            let kept = &parts[gone..];
            let gone = u32::try_from(gone).unwrap();
            (0..gone).for_each(|nth| drop(mem.adopt(page.head().nth(nth))));
            mem.end_large(page);
            assert_eq!(len(&mem), 32 + kept.len() as u64);
            let (taken, _) = mem.lru_isolate(LruList::InactiveAnon, u64::MAX);
            let taken: Vec<Pfn> = taken.iter().map(Frame::pfn).collect();
            let mut places: Vec<u32> = (gone..16).rev().collect();
            if gone == 0 {
                places.rotate_right(1);
            }
            let mut expected = vec![older.head()];
            expected.extend(places.iter().map(|&nth| page.head().nth(nth)));
            expected.push(younger.head());
            assert_eq!(taken, expected, "{gone} are gone");
            // The references of those that are gone were given up above.
            parts
                .into_iter()
                .take(gone as usize)
                .for_each(std::mem::forget);
        }
    }
}
