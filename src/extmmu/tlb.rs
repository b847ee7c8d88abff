//! A translation lookaside buffer: few entries, found by page and address space, the oldest of a set going for the next.

/// What an entry is found by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tag {
    asid: u32,
    /// First page; for a huge one the first of its 512.
    page: u64,
    huge: bool,
}

impl Tag {
    /// Whether it is of a page of `[first, end)`.
    fn translates(&self, asid: u32, first: u64, end: u64) -> bool {
        let pages = if self.huge { 1 << HUGE_SHIFT } else { 1 };
        self.asid == asid && self.page < end && self.page + pages > first
    }
}

fn small(n: usize) -> u32 {
    u32::try_from(n).expect("a TLB is small")
}

const WAYS: usize = 4;
const HUGE_SHIFT: u32 = 9;

/// A set-associative TLB of 4 ways with round-robin replacement, for pages and huge pages (512 pages).
#[derive(Debug)]
pub struct Tlb<T> {
    slots: Vec<Option<(Tag, T)>>,
    /// For each set, the way to go next.
    next: Vec<u8>,
    /// The slots with an entry, in no order.
    used: Vec<u32>,
    /// For each slot with an entry, where it is among those.
    place: Vec<u32>,
    huge: usize,
}

impl<T> Tlb<T> {
    /// An empty TLB with at least that many entries; at least 4, a power of two.
    pub fn new(entries: usize) -> Self {
        let sets = entries.div_ceil(WAYS).max(1).next_power_of_two();
        Self {
            slots: (0..sets * WAYS).map(|_| None).collect(),
            next: vec![0; sets],
            used: Vec::new(),
            place: vec![0; sets * WAYS],
            huge: 0,
        }
    }
    /// Entries there is room for.
    pub fn capacity(&self) -> usize {
        self.slots.len()
    }
    /// Entries in it.
    pub fn len(&self) -> usize {
        self.used.len()
    }
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.used.is_empty()
    }
    #[allow(clippy::cast_possible_truncation)]
    fn set_of(&self, tag: Tag) -> usize {
        let page = if tag.huge {
            tag.page >> HUGE_SHIFT
        } else {
            tag.page
        };
        (page ^ u64::from(tag.asid)) as usize & (self.next.len() - 1)
    }
    fn find(&self, tag: Tag) -> Option<usize> {
        let first = self.set_of(tag) * WAYS;
        (first..first + WAYS).find(|&i| self.slots[i].as_ref().is_some_and(|(t, _)| *t == tag))
    }
    fn tags(asid: u32, page: u64) -> [Tag; 2] {
        let head = page >> HUGE_SHIFT << HUGE_SHIFT;
        [(page, false), (head, true)].map(|(page, huge)| Tag { asid, page, huge })
    }
    /// The entry that translates a page, if it is there.
    pub fn get(&self, asid: u32, page: u64) -> Option<&T> {
        let [small, huge] = Self::tags(asid, page);
        let at = self.find(small);
        let at = at.or_else(|| (self.huge > 0).then(|| self.find(huge)).flatten())?;
        self.slots[at].as_ref().map(|(_, value)| value)
    }
    /// Enters a translation of one page, or of the 512 around it; returns what had to go.
    pub fn insert(&mut self, asid: u32, page: u64, is_huge: IsHuge, value: T) -> Option<T> {
        let tag = Self::tags(asid, page)[usize::from(is_huge == IsHuge::Huge)];
        let set = self.set_of(tag);
        let first = set * WAYS;
        let free = || (first..first + WAYS).find(|&i| self.slots[i].is_none());
        let at = self.find(tag).or_else(free).unwrap_or_else(|| {
            let way = usize::from(self.next[set]);
            self.next[set] = u8::try_from((way + 1) % WAYS).expect("few");
            first + way
        });
        let old = self.slots[at].replace((tag, value));
        if old.is_none() {
            self.place[at] = small(self.used.len());
            self.used.push(small(at));
        }
        self.huge += usize::from(tag.huge);
        self.huge -= usize::from(old.as_ref().is_some_and(|(t, _)| t.huge));
        old.map(|(_, value)| value)
    }
    fn take(&mut self, at: usize) {
        let Some((tag, _)) = self.slots[at].take() else {
            return;
        };
        self.huge -= usize::from(tag.huge);
        let place = self.place[at];
        self.used.swap_remove(place as usize);
        if let Some(&moved) = self.used.get(place as usize) {
            self.place[moved as usize] = place;
        }
    }
    /// Drops every entry for which `keep` says no, given its address space and itself; how many went.
    pub fn retain(&mut self, mut keep: impl FnMut(u32, &T) -> bool) -> usize {
        let before = self.used.len();
        // From the end: an entry that goes is replaced by one that was asked for.
        for nth in (0..before).rev() {
            let at = self.used[nth] as usize;
            let kept = |(tag, value): &(Tag, T)| keep(tag.asid, value);
            if !self.slots[at].as_ref().is_some_and(kept) {
                self.take(at);
            }
        }
        before - self.used.len()
    }
    /// Drops the entries of an address space that translate a page of `[first, end)`. Looks at no more of them than there
    /// are, nor than can be of these pages.
    pub fn remove_in(&mut self, asid: u32, first: u64, end: u64) {
        if end.saturating_sub(first) > self.used.len() as u64 {
            for nth in (0..self.used.len()).rev() {
                let at = self.used[nth] as usize;
                if let Some((tag, _)) = &self.slots[at]
                    && tag.translates(asid, first, end)
                {
                    self.take(at);
                }
            }
            return;
        }
        for page in first..end {
            let [small, huge] = Self::tags(asid, page);
            let huge = (self.huge > 0).then_some(huge);
            for tag in [Some(small), huge].into_iter().flatten() {
                if let Some(at) = self.find(tag) {
                    self.take(at);
                }
            }
        }
    }
    /// Drops everything; how many went.
    pub fn clear(&mut self) -> usize {
        self.retain(|_, _| false)
    }
    /// Every entry, with its address space.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        let slots = self.used.iter().map(|&at| &self.slots[at as usize]);
        slots.flatten().map(|(tag, value)| (tag.asid, value))
    }
    /// Shows the entries of an address space that translate a page of `[first, end)`. Looks at no more of them than there
    /// are, nor than can be of these pages.
    pub fn for_each_in(&self, asid: u32, first: u64, end: u64, visit: &mut dyn FnMut(&T)) {
        let pages = end.saturating_sub(first);
        if pages > self.used.len() as u64 {
            let of = |tag: &Tag| tag.translates(asid, first, end);
            let slots = self.used.iter().map(|&at| &self.slots[at as usize]);
            let mine = slots.flatten().filter(|(tag, _)| of(tag));
            return mine.for_each(|(_, value)| visit(value));
        }
        for page in first..end {
            let [small, huge] = Self::tags(asid, page);
            // A huge entry is met at the first of its pages that is asked for.
            let met = self.huge > 0 && (page == first || page == huge.page);
            let at = [Some(small), met.then_some(huge)];
            let found = at.into_iter().flatten().filter_map(|tag| self.find(tag));
            found
                .filter_map(|at| self.slots[at].as_ref())
                .for_each(|(_, value)| visit(value));
        }
    }
}

/// The size of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IsHuge {
    /// One page of 4 KiB.
    Small,
    /// 512 of them, 2 MiB.
    Huge,
}

impl IsHuge {
    /// By the number of pages.
    pub fn of(pages: u64) -> Self {
        if pages == 1 { Self::Small } else { Self::Huge }
    }
}

#[cfg(test)]
mod tests {
    use super::{IsHuge::*, Tlb};

    #[test]
    fn entries_are_found_by_page_space_and_size() {
        let mut tlb = Tlb::new(64);
        assert_eq!(tlb.capacity(), 64);
        tlb.insert(1, 5, Small, 'a');
        tlb.insert(1, 1024 + 7, Huge, 'h');
        assert_eq!(tlb.get(1, 5), Some(&'a'));
        assert_eq!(tlb.get(2, 5), None);
        assert_eq!(tlb.get(1, 1024), Some(&'h'));
        assert_eq!(tlb.get(1, 1024 + 511), Some(&'h'));
        assert_eq!(tlb.get(1, 1024 + 512), None);
        assert_eq!(tlb.insert(1, 5, Small, 'b'), Some('a'));
        assert_eq!(tlb.len(), 2);
        for (range, expected) in [((0, 1024), "b"), ((1500, 1501), "h"), ((0, 9999), "bh")] {
            let mut seen = String::new();
            tlb.for_each_in(1, range.0, range.1, &mut |v| seen.push(*v));
            assert_eq!(seen, expected, "{range:?}");
        }
        tlb.for_each_in(2, 0, 9999, &mut |v| panic!("{v} is of another"));
        for (first, end) in [(0, 5), (6, 9), (1536, 9999)] {
            tlb.remove_in(1, first, end);
            tlb.remove_in(2, 0, 9999);
            assert_eq!(tlb.len(), 2, "{first}..{end}");
        }
        tlb.insert(1, 6, Small, 'c');
        for (first, end) in [(6, 7), (1535, 1536)] {
            tlb.remove_in(1, first, end);
        }
        assert_eq!((tlb.get(1, 6), tlb.get(1, 1024)), (None, None));
        tlb.insert(1, 1024, Huge, 'h');
        tlb.remove_in(1, 6, 9999);
        assert_eq!(tlb.get(1, 5), Some(&'b'));
        tlb.insert(1, 1024, Huge, 'h');
        assert_eq!(tlb.retain(|_, v| *v == 'b'), 1);
        assert_eq!(tlb.get(1, 1024), None);
        assert_eq!(tlb.clear(), 1);
        assert!(tlb.is_empty());
    }

    #[test]
    fn the_fifth_entry_of_a_set_replaces_the_first() {
        let mut tlb = Tlb::new(16);
        for n in 0..4 {
            assert_eq!(tlb.insert(0, n * 4, Small, n), None);
        }
        assert_eq!(tlb.insert(0, 16, Small, 4), Some(0));
        assert_eq!(tlb.insert(0, 20, Small, 5), Some(1));
        assert_eq!(tlb.len(), 4);
    }
}
