//! Who merges pages: one pass over given pages, and the scanner that goes over all mergeable memory (`ksmd`).

use super::merge_same_pages::{MergeInto, is_merged};
use crate::ctx::CallCx;

use crate::mm::{entry::flags::VmFlags, machine::Machine, space::Mm};
use crate::{
    addr::{PAGE_SIZE, Vpn, VpnRange},
    frame::Frame,
};
use std::{
    collections::{BTreeMap, HashMap},
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

impl Machine {
    /// Merges the private pages at the byte addresses given, in this order: each with a merged page of the same bytes
    /// among them, else with the first page of the same bytes before it. Of two that are merged the *second* stays
    /// (`try_to_merge_two_pages`); a page without a twin is left alone, and sees no window. Returns how many mappings got
    /// another frame. Pages of another machine are passed over.
    ///
    /// # Panics
    ///
    /// If the token is of a thread that entered another machine.
    pub fn merge_same_pages(&self, cx: &mut CallCx<'_>, pages: &[(&Mm, u64)]) -> usize {
        self.check_token(cx);
        // A frame is known by its number, and each machine has one of that.
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

/// The page, if it is one that could be merged and was not yet.
fn unmerged<'m>(cx: &mut CallCx<'_>, mm: &'m Mm, at: Vpn) -> Option<Frame<'m>> {
    let frame = mm.private_frame(cx, at)?;
    (!is_merged(mm.machine().mem(), frame.pfn())).then_some(frame)
}

/// Of all bytes of a page. Equal pages have equal sums; whether the bytes are equal is looked at before anything is merged.
fn checksum(page: &Frame<'_>) -> u64 {
    let mut bytes = [0; PAGE_SIZE as usize];
    page.read(0, &mut bytes);
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

/// One pass: the pages that others can be merged with, by the sum of their bytes.
struct MergePass<'m> {
    /// Merged pages. They cannot change.
    stable: HashMap<u64, Vec<Frame<'m>>>,
    /// Where pages without a twin were seen. They may have changed since.
    unstable: HashMap<u64, Vec<(&'m Mm, Vpn)>>,
    /// Only VMAs with these flags are touched.
    of: VmFlags,
    replaced: usize,
}

impl<'m> MergePass<'m> {
    /// A pass over these pages: the merged ones among them are known.
    fn over(cx: &mut CallCx<'_>, pages: &[(&'m Mm, Vpn)], of: VmFlags) -> Self {
        let mut stable: HashMap<u64, Vec<Frame<'m>>> = HashMap::new();
        for &(mm, at) in pages {
            let page = mm.private_frame(cx, at);
            if let Some(page) = page.filter(|p| is_merged(mm.machine().mem(), p.pfn())) {
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
    /// The next page, not merged yet, and the sum of its bytes (`cmp_and_merge_page`).
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
            return; // The same page, shared by a fork.
        }
        let (other, there) = seen[nth];
        let Some(kept) = mm.merge_one(cx, at, page, (MergeInto::Itself, self.of)) else {
            return;
        };
        seen.swap_remove(nth);
        match other.merge_one(cx, there, twin, (MergeInto::Kept(&kept), self.of)) {
            Some(_) => {
                self.replaced += 1;
                self.stable.entry(sum).or_default().push(kept);
            }
            // One mapping of a merged page makes no sense: its process gets its own again.
            None => mm.unmerge(cx, VpnRange::single(at)),
        }
    }
}

/// The scanner. It remembers the bytes of every page that it saw, since a page that changes from scan to scan is not worth
/// merging.
#[derive(Debug)]
pub struct Merger {
    machine: Arc<Machine>,
    /// By the turn of the address space and the page: the sum of the bytes when it was last looked at unmerged.
    sums: BTreeMap<(u64, Vpn), u64>,
}

impl Merger {
    /// One that has seen nothing yet. Address spaces of other machines are none of its business.
    pub fn new(machine: &Arc<Machine>) -> Self {
        Self {
            machine: Arc::clone(machine),
            sums: BTreeMap::new(),
        }
    }
    /// Those that have memory to be merged, in the order in which they first had some (`__ksm_enter`).
    fn turns<'m>(&self, cx: &mut CallCx<'_>, spaces: &[&'m Mm]) -> BTreeMap<u64, &'m Mm> {
        let here = |mm: &&&Mm| std::ptr::eq(&raw const **mm.machine(), &raw const *self.machine);
        let turn = |mm: &&'m Mm| Some((mm.merge_turn(cx)?, *mm));
        spaces.iter().filter(here).filter_map(turn).collect()
    }
    /// Goes once over the mergeable memory of these address spaces (`ksm_do_scan`): one after the other in the order in which
    /// they first had some, from the lowest page of each to the highest. A page is merged if its bytes are those that it
    /// had at the last scan. Returns how many mappings got another frame.
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
                continue; // It was a part of a huge page that held only zeros.
            };
            if is_merged(mm.machine().mem(), page.pfn()) {
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
    /// Gives every process pages of its own again, and forgets what it saw (`unmerge_and_remove_all_rmap_items`). Memory is
    /// merged again where it is advised anew.
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
