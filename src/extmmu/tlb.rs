//! A translation lookaside buffer: few entries, found by page and address space. When a set is
//! full, its oldest entry makes room.

/// The key of an entry in one word, so that a set is compared at once: address space, page, size,
/// and a bit that an empty slot does not have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tag(u64);

const VALID: u64 = 1;
const HUGE: u64 = 2;
const PAGE_AT: u32 = 2;
const ASID_AT: u32 = 38;
const HUGE_SHIFT: u32 = 9;
/// The number of pages that a tag can name.
const PAGES: u64 = 1 << (ASID_AT - PAGE_AT);

/// Returns true if a tag has the bits for this address space and page.
#[inline]
const fn can_name(asid: u32, page: u64) -> bool {
    page < PAGES && asid >> (64 - ASID_AT) == 0
}

impl Tag {
    /// The tag of one page.
    #[inline]
    fn small(asid: u32, page: u64) -> Self {
        debug_assert!(can_name(asid, page));
        Self(u64::from(asid) << ASID_AT | page << PAGE_AT | VALID)
    }
    /// The tag of the 512 pages around a page.
    #[inline]
    fn huge(asid: u32, page: u64) -> Self {
        Self(Self::small(asid, page >> HUGE_SHIFT << HUGE_SHIFT).0 | HUGE)
    }
    fn is_huge(self) -> bool {
        self.0 & HUGE != 0
    }
    #[allow(clippy::cast_possible_truncation)]
    fn asid(self) -> u32 {
        (self.0 >> ASID_AT) as u32
    }
    /// Returns the first page.
    #[inline]
    fn page(self) -> u64 {
        self.0 << (64 - ASID_AT) >> (64 - ASID_AT + PAGE_AT)
    }
    /// Returns true if the entry translates a page of `[first, end)` of the address space.
    fn translates(self, asid: u32, first: u64, end: u64) -> bool {
        let pages = if self.is_huge() { 1 << HUGE_SHIFT } else { 1 };
        self.asid() == asid && self.page() < end && self.page() + pages > first
    }
}

fn small(n: usize) -> u32 {
    u32::try_from(n).expect("a TLB is small")
}

const WAYS: usize = 4;
/// The entries of the largest TLB.
const MOST: usize = 1 << 20;

/// A set-associative TLB of 4 ways with round-robin replacement, for pages and huge pages.
///
/// A huge page has 512 pages. The number of an address space has 26 bits, that of a page 36; an
/// entry with a larger number is not cached.
#[derive(Debug)]
pub struct Tlb<T> {
    /// The tags, set by set.
    tags: Vec<[Tag; WAYS]>,
    /// The values of the slots: those of the first ways of all sets, then those of the second ones.
    /// Most sets have few entries, and so these lie together.
    values: Vec<Option<T>>,
    /// For each set, the way that is replaced next.
    next: Vec<u8>,
    /// The slots in use, in no order.
    used: Vec<u32>,
    /// For each slot in use, its index in `used`.
    place: Vec<u32>,
    huge: usize,
}

impl<T> Tlb<T> {
    /// Creates an empty TLB with at least `entries` entries: a power of two from 4 to 2^20.
    pub fn new(entries: usize) -> Self {
        let sets = entries.min(MOST).div_ceil(WAYS).max(1).next_power_of_two();
        Self {
            tags: vec![[Tag::default(); WAYS]; sets],
            values: (0..sets * WAYS).map(|_| None).collect(),
            next: vec![0; sets],
            used: Vec::with_capacity(sets * WAYS),
            place: vec![0; sets * WAYS],
            huge: 0,
        }
    }
    /// Returns the number of entries that have room.
    pub fn capacity(&self) -> usize {
        self.values.len()
    }
    /// Returns the number of entries.
    pub fn len(&self) -> usize {
        self.used.len()
    }
    /// Returns true if the TLB has no entries.
    pub fn is_empty(&self) -> bool {
        self.used.is_empty()
    }
    /// Returns the slot of a way of a set.
    #[inline(always)]
    fn slot(&self, set: usize, way: usize) -> usize {
        way * self.tags.len() + set
    }
    /// Returns the set and the way of a slot.
    #[inline]
    fn place_of(&self, at: usize) -> (usize, usize) {
        let sets = self.tags.len();
        // A power of two: a shift, where a division would cost more than all else here.
        (at & (sets - 1), at >> sets.trailing_zeros())
    }
    #[inline]
    fn tag_mut(&mut self, at: usize) -> &mut Tag {
        let (set, way) = self.place_of(at);
        &mut self.tags[set][way]
    }
    fn tag_at(&self, at: usize) -> Tag {
        let (set, way) = self.place_of(at);
        self.tags[set][way]
    }
    #[inline]
    #[allow(clippy::cast_possible_truncation)]
    fn set_of(&self, tag: Tag) -> usize {
        let page = if tag.is_huge() {
            tag.page() >> HUGE_SHIFT
        } else {
            tag.page()
        };
        (page ^ u64::from(tag.asid())) as usize & (self.tags.len() - 1)
    }
    #[inline(always)]
    fn find(&self, tag: Tag) -> Option<usize> {
        let set = self.set_of(tag);
        let way = self.tags[set].iter().position(|t| *t == tag)?;
        Some(self.slot(set, way))
    }
    /// Returns the entry that translates a page.
    #[inline(always)]
    pub fn get(&self, asid: u32, page: u64) -> Option<&T> {
        if !can_name(asid, page) {
            return None;
        }
        let at = self.find(Tag::small(asid, page));
        let huge = || self.find(Tag::huge(asid, page));
        let at = at.or_else(|| (self.huge > 0).then(huge).flatten())?;
        self.values[at].as_ref()
    }
    /// Enters a translation of one page, or of the 512 pages around it, and returns the value that
    /// had to make room.
    ///
    /// A huge entry removes the entries of single pages among its 512: these would be found first,
    /// and may allow less. An address space or a page whose number is too large is not entered: the
    /// value comes back.
    pub fn insert(&mut self, asid: u32, page: u64, size: PageSize, value: T) -> Option<T> {
        if !can_name(asid, page) {
            return Some(value);
        }
        let tag = match size {
            PageSize::Small => Tag::small(asid, page),
            PageSize::Huge => {
                let tag = Tag::huge(asid, page);
                let (first, end) = (tag.page(), tag.page() + (1 << HUGE_SHIFT));
                self.take_if(|old, _| !old.is_huge() && old.translates(asid, first, end));
                tag
            }
        };
        let set = self.set_of(tag);
        let way_of = |wanted: Tag| self.tags[set].iter().position(|t| *t == wanted);
        let way = way_of(tag).or_else(|| way_of(Tag::default()));
        let way = way.unwrap_or_else(|| {
            let way = usize::from(self.next[set]);
            self.next[set] = u8::try_from((way + 1) % WAYS).expect("few");
            way
        });
        let at = self.slot(set, way);
        let old = std::mem::replace(&mut self.tags[set][way], tag);
        self.huge += usize::from(tag.is_huge());
        self.huge -= usize::from(old.is_huge());
        if old == Tag::default() {
            self.place[at] = small(self.used.len());
            self.used.push(small(at));
        }
        self.values[at].replace(value)
    }
    fn take(&mut self, at: usize) {
        self.values[at] = None;
        let tag = std::mem::take(self.tag_mut(at));
        self.huge -= usize::from(tag.is_huge());
        let place = self.place[at];
        self.used.swap_remove(place as usize);
        if let Some(&moved) = self.used.get(place as usize) {
            self.place[moved as usize] = place;
        }
    }
    /// Removes every entry for which `keep`, given its address space and value, returns false.
    /// Returns the number of entries removed.
    pub fn retain(&mut self, mut keep: impl FnMut(u32, &T) -> bool) -> usize {
        self.take_if(|tag, value| !keep(tag.asid(), value))
    }
    fn take_if(&mut self, mut goes: impl FnMut(Tag, &T) -> bool) -> usize {
        let before = self.used.len();
        // From the end: `swap_remove` fills a gap with an entry that was looked at already.
        for nth in (0..before).rev() {
            let at = self.used[nth] as usize;
            let tag = self.tag_at(at);
            if self.values[at].as_ref().is_none_or(|v| goes(tag, v)) {
                self.take(at);
            }
        }
        before - self.used.len()
    }
    /// Removes the entries of an address space that translate a page of `[first, end)`.
    ///
    /// The cost is bounded by the number of entries as well as by the number of pages.
    pub fn remove_in(&mut self, asid: u32, first: u64, end: u64) {
        if end.saturating_sub(first) > self.used.len() as u64 {
            self.take_if(|tag, _| tag.translates(asid, first, end));
            return;
        }
        if !can_name(asid, 0) {
            return;
        }
        for page in first..end.min(PAGES) {
            if let Some(at) = self.find(Tag::small(asid, page)) {
                self.take(at);
            }
            if self.huge > 0
                && let Some(at) = self.find(Tag::huge(asid, page))
            {
                self.take(at);
            }
        }
    }
    /// Removes every entry, and returns their number.
    pub fn clear(&mut self) -> usize {
        self.retain(|_, _| false)
    }
    /// Iterates over the entries, each with its address space.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        self.used.iter().filter_map(|&at| {
            let value = self.values[at as usize].as_ref()?;
            Some((self.tag_at(at as usize).asid(), value))
        })
    }
    /// Calls `visit` with the entries of an address space that translate a page of `[first, end)`.
    ///
    /// The cost is bounded by the number of entries as well as by the number of pages.
    pub fn for_each_in(&self, asid: u32, first: u64, end: u64, visit: &mut dyn FnMut(&T)) {
        if end.saturating_sub(first) > self.used.len() as u64 {
            let slots = self.used.iter().map(|&at| at as usize);
            let mine = slots.filter(|&at| self.tag_at(at).translates(asid, first, end));
            return mine
                .filter_map(|at| self.values[at].as_ref())
                .for_each(visit);
        }
        if !can_name(asid, 0) {
            return;
        }
        for page in first..end.min(PAGES) {
            let huge = Tag::huge(asid, page);
            // A huge entry is shown once: at the first of its pages that the range has.
            let met = self.huge > 0 && (page == first || page == huge.page());
            let tags = [Some(Tag::small(asid, page)), met.then_some(huge)];
            let found = tags.into_iter().flatten().filter_map(|tag| self.find(tag));
            found
                .filter_map(|at| self.values[at].as_ref())
                .for_each(&mut *visit);
        }
    }
}

/// The size of a page that a TLB entry translates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageSize {
    /// One page of 4 KiB.
    Small,
    /// 512 pages, 2 MiB.
    Huge,
}

impl PageSize {
    /// Returns the size of an entry that translates so many pages.
    pub fn of(pages: u64) -> Self {
        if pages == 1 { Self::Small } else { Self::Huge }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        PageSize::{Huge, Small},
        Tlb,
    };

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

    /// A number that is too large would, with its highest bits lost, be found as another one.
    #[test]
    fn what_a_tag_cannot_name_is_not_entered() {
        let mut tlb = Tlb::new(usize::MAX);
        assert_eq!(tlb.capacity(), 1 << 20);
        for (asid, page) in [
            (1, 1 << 36),
            (1, u64::MAX),
            (1 << 26, 5),
            (u32::MAX, u64::MAX),
        ] {
            for size in [Small, Huge] {
                assert_eq!(tlb.insert(asid, page, size, 'x'), Some('x'));
            }
            assert_eq!(tlb.get(asid, page), None);
            tlb.remove_in(asid, page, u64::MAX);
            tlb.for_each_in(asid, 0, 1, &mut |_| ());
        }
        assert!(tlb.is_empty());
    }

    #[test]
    fn a_huge_entry_takes_the_place_of_small_ones() {
        let mut tlb = Tlb::new(64);
        for (asid, page) in [(1, 511), (1, 512), (1, 1023), (1, 1024), (2, 600)] {
            tlb.insert(asid, page, Small, 's');
        }
        tlb.insert(1, 700, Huge, 'h');
        let found = [511, 512, 1023, 1024].map(|page| tlb.get(1, page).copied());
        assert_eq!(found, [Some('s'), Some('h'), Some('h'), Some('s')]);
        assert_eq!((tlb.get(2, 600), tlb.len()), (Some(&'s'), 4));
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
