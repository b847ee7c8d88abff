//! The passes of same-page merging: over given pages, and over all mergeable memory (`ksmd`).
//!
//! A pass knows pages by a checksum: merged pages, which cannot change (the kernel's stable tree),
//! and pages without a twin so far, which may (the unstable tree).
//! [`merge_same_pages`](super::merge_same_pages) merges the single page.

use super::merge_same_pages::MergeInto;
use crate::mm::{entry::flags::VmFlags, machine::Machine, space::Mm};
use crate::{
    addr::{PAGE_SIZE, Pfn, Vpn, VpnRange},
    ctx::CallCx,
    frame::{Frame, OwnerId, PhysMem},
};
use std::{
    collections::{BTreeMap, HashMap},
    hash::{DefaultHasher, Hash, Hasher},
    ops::Bound,
    sync::Arc,
};

impl Machine {
    /// Merges the private pages at the given byte addresses, in this order: each with a merged page
    /// of equal bytes among them, else with the first page of equal bytes before it. Returns the
    /// number of mappings that got another frame.
    ///
    /// Of two pages that are merged the *second* stays (`try_to_merge_two_pages`). A page without a
    /// twin is left alone, and no window opens over it. Pages of other machines are passed over.
    ///
    /// # Panics
    ///
    /// If the token is of a thread that entered another machine.
    ///
    /// # Examples
    ///
    /// ```
    /// use emmu::{PAGE_SIZE, mm::MmapArgs};
    /// # let machine = emmu::Machine::new(Default::default());
    /// # let mut thread = machine.enter()?;
    /// # let mut cx = thread.cx();
    /// # let mm = emmu::Mm::new(&machine);
    ///
    /// let at = mm.mmap(&mut cx, &MmapArgs::anonymous(2 * PAGE_SIZE))?;
    /// for page in [at, at + PAGE_SIZE] {
    ///     mm.store(&mut cx, page, 7)?;
    /// }
    /// assert_eq!(machine.merge_same_pages(&mut cx, &[(&mm, at), (&mm, at + PAGE_SIZE)]), 1);
    /// assert_eq!(machine.mem().in_use(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn merge_same_pages(&self, cx: &mut CallCx<'_>, pages: &[(&Mm, u64)]) -> usize {
        self.check_token(cx);
        self.mem().drain_batches();
        // A frame is known by its number, which is unique only within a machine.
        let mine = |(mm, _): &&(&Mm, u64)| std::ptr::eq(&**mm.machine(), self);
        let pages: Vec<_> = pages
            .iter()
            .filter(mine)
            .map(|&(mm, addr)| (mm, Vpn::containing(addr)))
            .collect();
        let mut pass = MergePass::over(cx, &pages, VmFlags::empty());
        for (mm, at) in pages {
            if let Some(page) = unmerged(cx, mm, at) {
                let sum = checksum(&page);
                let place = Place { mm, at, turn: 0 };
                pass.page(cx, place, page, sum);
            }
        }
        pass.replaced
    }
}

/// Returns the page if it can be merged and has not been yet.
fn unmerged<'m>(cx: &mut CallCx<'_>, mm: &'m Mm, at: Vpn) -> Option<Frame<'m>> {
    let frame = mm.private_frame(cx, at)?;
    (!mm.machine().mem().is_merged(frame.pfn())).then_some(frame)
}

/// Returns the checksum of all bytes of a page. Equal pages have equal sums; a merge compares the
/// bytes themselves.
fn checksum(page: &Frame<'_>) -> u64 {
    let mut bytes = [0; PAGE_SIZE as usize];
    page.read(0, &mut bytes);
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

/// A page of an address space, with the turn of that.
#[derive(Clone, Copy)]
struct Place<'m> {
    mm: &'m Mm,
    at: Vpn,
    turn: u64,
}

/// The turn of an address space, and a page of it.
type Key = (u64, Vpn);

/// The merged page that each page was at the last scan (`struct ksm_rmap_item` in the stable tree),
/// by the turn of its address space.
#[derive(Debug, Default)]
struct Items {
    of: BTreeMap<Key, OwnerId>,
    counts: HashMap<OwnerId, usize>,
}

impl Items {
    fn insert(&mut self, key: Key, id: OwnerId) {
        self.remove(key);
        self.of.insert(key, id);
        *self.counts.entry(id).or_default() += 1;
    }
    fn remove(&mut self, key: Key) {
        if let Some(id) = self.of.remove(&key)
            && let Some(count) = self.counts.get_mut(&id)
        {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&id);
            }
        }
    }
    /// Removes the items of address spaces that have ended: a scan comes to these first
    /// (`__ksm_exit`).
    fn keep_spaces(&mut self, lives: impl Fn(u64) -> bool) {
        let ended = |key: &Key| !lives(key.0);
        self.remove_all(self.of.keys().copied().filter(ended).collect());
    }
    /// Removes the items between two keys, that a scan has passed over.
    fn pass_over(&mut self, between: (Bound<Key>, Bound<Key>)) {
        self.remove_all(self.of.range(between).map(|(&key, _)| key).collect());
    }
    fn remove_all(&mut self, keys: Vec<Key>) {
        keys.into_iter().for_each(|key| self.remove(key));
    }
}

/// One pass: the pages with which others can be merged, by their checksum.
struct MergePass<'m> {
    /// Merged pages, which cannot change.
    stable: HashMap<u64, Vec<Frame<'m>>>,
    /// Places of pages without a twin so far, which may have changed since.
    unstable: HashMap<u64, Vec<Place<'m>>>,
    /// The items of the scanner: a page is merged into a merged page only if that has one
    /// (`is_page_sharing_candidate`). `None`: it is in any case.
    items: Option<Items>,
    /// The pass touches only VMAs with these flags.
    of: VmFlags,
    replaced: usize,
}

impl<'m> MergePass<'m> {
    /// Begins a pass over these pages; knows the merged pages among them.
    fn over(cx: &mut CallCx<'_>, pages: &[(&'m Mm, Vpn)], of: VmFlags) -> Self {
        if let Some((mm, _)) = pages.first() {
            mm.machine().merged.prune(mm.machine().mem());
        }
        let mut stable: HashMap<u64, Vec<Frame<'m>>> = HashMap::new();
        for &(mm, at) in pages {
            let page = mm.private_frame(cx, at);
            if let Some(page) = page.filter(|p| mm.machine().mem().is_merged(p.pfn())) {
                let known = stable.entry(checksum(&page)).or_default();
                if known.iter().all(|k| k.pfn() != page.pfn()) {
                    known.push(page);
                }
            }
        }
        Self {
            stable,
            unstable: HashMap::new(),
            items: None,
            of,
            replaced: 0,
        }
    }
    /// Merges the next page, which is not merged yet, if a page of equal bytes is known; else
    /// remembers it (`cmp_and_merge_page`).
    fn page(&mut self, cx: &mut CallCx<'_>, place: Place<'m>, page: Frame<'m>, sum: u64) {
        let Place { mm, at, .. } = place;
        let mem = mm.machine().mem();
        let pfn = page.pfn();
        let mut known = self.stable.get(&sum).into_iter().flatten();
        let takes = |kept: Pfn| mem.equal(kept, pfn) && self.takes(mem, kept);
        if let Some(kept) = known.find(|kept| takes(kept.pfn())) {
            let merged = mm.merge_one(cx, at, page, (MergeInto::Kept(kept), self.of));
            let kept = kept.pfn();
            if merged.is_some() {
                self.note(place, kept);
                self.replaced += 1;
            }
            return;
        }
        let seen = self.unstable.entry(sum).or_default();
        let twin = seen.iter().enumerate().find_map(|(nth, seen)| {
            let twin = unmerged(cx, seen.mm, seen.at)?;
            mem.equal(twin.pfn(), pfn).then_some((nth, twin))
        });
        let Some((nth, twin)) = twin else {
            seen.push(place);
            return;
        };
        if twin.pfn() == pfn {
            return; // A fork shares the page: both are one.
        }
        // Each reference keeps the page of the other from being split for a merge.
        let large = mem.large(pfn);
        if large.is_some() && large == mem.large(twin.pfn()) {
            drop((page, twin));
            mm.machine().reclaimer().split(cx, pfn);
            return;
        }
        let other = seen[nth];
        let Some(kept) = mm.merge_one(cx, at, page, (MergeInto::Itself, self.of)) else {
            return;
        };
        seen.swap_remove(nth);
        let how = (MergeInto::Kept(&kept), self.of);
        match other.mm.merge_one(cx, other.at, twin, how) {
            Some(_) => {
                mm.note_merged_itself(cx, at, &kept);
                self.replaced += 1;
                self.note(place, kept.pfn());
                self.note(other, kept.pfn());
                self.stable.entry(sum).or_default().push(kept);
            }
            // A merged page with one mapping saves nothing: its process gets a page of its own
            // again.
            None => mm.unmerge(cx, VpnRange::single(at)),
        }
    }
    /// Returns true if pages may be merged into this merged page.
    fn takes(&self, mem: &PhysMem, kept: Pfn) -> bool {
        let has_item = |items: &Items| {
            let owner = mem.owner(kept);
            owner.is_some_and(|owner| items.counts.contains_key(&owner.id))
        };
        self.items.as_ref().is_none_or(has_item)
    }
    /// Notes that the page at a place is this merged page.
    fn note(&mut self, Place { mm, at, turn }: Place<'m>, kept: Pfn) {
        let owner = mm.machine().mem().owner(kept);
        if let (Some(items), Some(owner)) = (&mut self.items, owner) {
            items.insert((turn, at), owner.id);
        }
    }
    /// Notes that the scanner comes to a page, `last` being the one before: items between them have
    /// lost their pages, and one of a page that is not merged leaves its merged page
    /// (`scan_get_next_rmap_item`, `remove_rmap_item_from_tree`).
    fn come_to(&mut self, last: Bound<(u64, Vpn)>, place: Place<'m>, page: Pfn) {
        let key = (place.turn, place.at);
        if let Some(items) = &mut self.items {
            items.pass_over((last, Bound::Excluded(key)));
            items.remove(key);
        }
        if place.mm.machine().mem().is_merged(page) {
            self.note(place, page);
        }
    }
}

/// The scanner of mergeable memory. A page is merged only if its bytes did not change from one scan
/// to the next.
#[derive(Debug)]
pub struct Merger {
    machine: Arc<Machine>,
    /// The checksum of each page at the last scan that found it unmerged, by the turn of its
    /// address space.
    sums: BTreeMap<(u64, Vpn), u64>,
    items: Items,
}

impl Merger {
    /// Makes a scanner that has seen no page. Address spaces of other machines are passed over.
    pub fn new(machine: &Arc<Machine>) -> Self {
        Self {
            machine: Arc::clone(machine),
            sums: BTreeMap::new(),
            items: Items::default(),
        }
    }
    /// Returns the address spaces with mergeable memory, in the order in which they first had some
    /// (`__ksm_enter`).
    fn turns<'m>(&self, cx: &mut CallCx<'_>, spaces: &[&'m Mm]) -> BTreeMap<u64, &'m Mm> {
        let here = |mm: &&&Mm| std::ptr::eq(&raw const **mm.machine(), &raw const *self.machine);
        let turn = |mm: &&'m Mm| Some((mm.merge_turn(cx)?, *mm));
        spaces.iter().filter(here).filter_map(turn).collect()
    }
    /// Scans the mergeable memory of these address spaces once (`ksm_do_scan`), one after the other
    /// in the order in which they first had some, each from its lowest page to its highest. Merges
    /// a page if its bytes are those of the last scan. Returns the number of mappings that got
    /// another frame.
    pub fn scan(&mut self, cx: &mut CallCx<'_>, spaces: &[&Mm]) -> usize {
        let mut places = Vec::new();
        if let Some(mm) = spaces.first() {
            mm.machine().mem().drain_batches();
        }
        let turns = self.turns(cx, spaces);
        self.items.keep_spaces(|turn| turns.contains_key(&turn));
        for (turn, mm) in turns {
            let pages = mm.mergeable_pages(cx).into_iter();
            places.extend(pages.map(|at| Place { mm, at, turn }));
        }
        let pages: Vec<_> = places.iter().map(|place| (place.mm, place.at)).collect();
        let mut pass = MergePass::over(cx, &pages, VmFlags::MERGEABLE);
        pass.items = Some(std::mem::take(&mut self.items));
        let (mut sums, mut last) = (BTreeMap::new(), Bound::Unbounded);
        for place in places {
            let key = (place.turn, place.at);
            let before = self.sums.get(&key).copied();
            let Some(page) = place.mm.private_frame(cx, place.at) else {
                continue; // Was a part of a huge page that held only zeros.
            };
            pass.come_to(last, place, page.pfn());
            last = Bound::Excluded(key);
            if place.mm.machine().mem().is_merged(page.pfn()) {
                sums.extend(before.map(|sum| (key, sum)));
                continue;
            }
            let sum = checksum(&page);
            sums.insert(key, sum);
            if before == Some(sum) {
                pass.page(cx, place, page, sum);
            }
        }
        self.sums = sums;
        self.items = pass.items.take().unwrap_or_default();
        self.items.pass_over((last, Bound::Unbounded));
        pass.replaced
    }
    /// Gives every process pages of its own again, and forgets all checksums
    /// (`unmerge_and_remove_all_rmap_items`). Memory is merged again when it is advised anew.
    pub fn unmerge_all(&mut self, cx: &mut CallCx<'_>, spaces: &[&Mm]) {
        for mm in self.turns(cx, spaces).into_values() {
            for range in mm.mergeable_ranges(cx) {
                mm.unmerge(cx, range);
            }
            mm.leave_merging(cx);
        }
        self.sums.clear();
        self.items = Items::default();
    }
}
