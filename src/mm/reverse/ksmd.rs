//! The passes of same-page merging: over given pages, and over all mergeable memory (`ksmd`).
//!
//! A pass knows pages by a checksum: merged pages, which cannot change (the kernel's stable tree),
//! and pages without a twin so far, which may (the unstable tree).
//! [`merge_same_pages`](super::merge_same_pages) merges the single page.

use super::merge_same_pages::MergeInto;
use crate::mm::{entry::flags::VmFlags, machine::Machine, space::Mm};
use crate::{
    addr::{PAGE_SIZE, Vpn, VpnRange},
    ctx::CallCx,
    frame::Frame,
};
use std::{
    collections::{BTreeMap, HashMap},
    hash::{DefaultHasher, Hash, Hasher},
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
                pass.page(cx, (mm, at), page, sum);
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

/// One pass: the pages with which others can be merged, by their checksum.
struct MergePass<'m> {
    /// Merged pages, which cannot change.
    stable: HashMap<u64, Vec<Frame<'m>>>,
    /// Places of pages without a twin so far, which may have changed since.
    unstable: HashMap<u64, Vec<(&'m Mm, Vpn)>>,
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
            of,
            replaced: 0,
        }
    }
    /// Merges the next page, which is not merged yet, if a page of equal bytes is known; else
    /// remembers it (`cmp_and_merge_page`).
    fn page(&mut self, cx: &mut CallCx<'_>, (mm, at): (&'m Mm, Vpn), page: Frame<'m>, sum: u64) {
        let mem = mm.machine().mem();
        let pfn = page.pfn();
        let mut known = self.stable.get(&sum).into_iter().flatten();
        if let Some(kept) = known.find(|kept| mem.equal(kept.pfn(), pfn)) {
            let merged = mm.merge_one(cx, at, page, (MergeInto::Kept(kept), self.of));
            self.replaced += usize::from(merged.is_some());
            return;
        }
        let seen = self.unstable.entry(sum).or_default();
        let twin = seen.iter().enumerate().find_map(|(nth, &(mm, at))| {
            let twin = unmerged(cx, mm, at)?;
            mem.equal(twin.pfn(), pfn).then_some((nth, twin))
        });
        let Some((nth, twin)) = twin else {
            seen.push((mm, at));
            return;
        };
        if twin.pfn() == pfn {
            return; // A fork shares the page: both are one.
        }
        let (other, there) = seen[nth];
        let Some(kept) = mm.merge_one(cx, at, page, (MergeInto::Itself, self.of)) else {
            return;
        };
        seen.swap_remove(nth);
        match other.merge_one(cx, there, twin, (MergeInto::Kept(&kept), self.of)) {
            Some(_) => {
                mm.note_merged_itself(cx, at, &kept);
                self.replaced += 1;
                self.stable.entry(sum).or_default().push(kept);
            }
            // A merged page with one mapping saves nothing: its process gets a page of its own
            // again.
            None => mm.unmerge(cx, VpnRange::single(at)),
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
}

impl Merger {
    /// Makes a scanner that has seen no page. Address spaces of other machines are passed over.
    pub fn new(machine: &Arc<Machine>) -> Self {
        Self {
            machine: Arc::clone(machine),
            sums: BTreeMap::new(),
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
        let mut pages = Vec::new();
        let mut of_turn = Vec::new();
        for (turn, mm) in self.turns(cx, spaces) {
            for at in mm.mergeable_pages(cx) {
                pages.push((mm, at));
                of_turn.push(turn);
            }
        }
        let mut pass = MergePass::over(cx, &pages, VmFlags::MERGEABLE);
        let mut sums = BTreeMap::new();
        for ((mm, at), turn) in pages.into_iter().zip(of_turn) {
            let before = self.sums.get(&(turn, at)).copied();
            let Some(page) = mm.private_frame(cx, at) else {
                continue; // Was a part of a huge page that held only zeros.
            };
            if mm.machine().mem().is_merged(page.pfn()) {
                sums.extend(before.map(|sum| ((turn, at), sum)));
                continue;
            }
            let sum = checksum(&page);
            sums.insert((turn, at), sum);
            if before == Some(sum) {
                pass.page(cx, (mm, at), page, sum);
            }
        }
        self.sums = sums;
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
    }
}
