//! Dropping every page of a range that an operation selects.

use super::{InvalidationWindow, Lease};
use crate::mm::{
    entry::{flags::VmFlags, pte::RawPte},
    machine::TableKind,
    page_table::{LeafAt, LockedLeaf, Pin},
};
use crate::{
    addr::{PMD_PAGES, Vpn, VpnRange},
    ctx::{Context, Sleepable, rank},
    frame::{FrameFlags, PhysMem},
    notifier::{Event, Flusher},
};
use smallvec::SmallVec;
use std::convert::Infallible;

/// The entries that a zap removes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::mm) enum Zap {
    /// All: the mapping goes.
    Mapping,
    /// All but guard markers (`MADV_DONTNEED`, a truncated file).
    Pages(Marks),
    /// Pages of the object alone, not private copies (a hole punched in a file).
    ObjectPages(Marks),
}

/// The write protection of userfaultfd over a page that is dropped, while its mapping stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::mm) enum Marks {
    /// The protection goes, with its markers: private memory.
    Go,
    /// Markers stay, and pages leave none: memory of an object.
    Stay,
    /// Markers stay, and a protected page leaves one: memory of an object that is registered for
    /// write protection (`pte_install_uffd_wp_if_needed`).
    Left,
}

impl Marks {
    /// Returns the fate in a VMA with these flags.
    pub(in crate::mm) fn of(anonymous: bool, flags: VmFlags) -> Self {
        match (anonymous, flags.contains(VmFlags::UFFD_WP)) {
            (true, _) => Self::Go,
            (false, false) => Self::Stay,
            (false, true) => Self::Left,
        }
    }
    /// Returns the entry that `pte` leaves when its page is dropped.
    pub(in crate::mm) fn after(self, pte: RawPte) -> RawPte {
        match self {
            Self::Left if pte.is_uffd_wp() => RawPte::WP_MARKER,
            _ => RawPte::NONE,
        }
    }
}

impl Zap {
    /// Returns the entry that takes the place of `pte`; `None` if that stays.
    // Always: the loop over a leaf is then made for each zap, and asks nothing for `Mapping`.
    #[inline(always)]
    fn leaves(self, pte: RawPte, mem: &PhysMem) -> Option<RawPte> {
        match self {
            Self::Mapping => Some(RawPte::NONE),
            Self::Pages(marks) => {
                let stays = pte.is_guard() || (pte.is_wp_marker() && marks != Marks::Go);
                (!stays).then(|| marks.after(pte))
            }
            // Migrating pages of the object too, which then arrive nowhere (`should_zap_folio`).
            Self::ObjectPages(marks) => {
                let page = pte.counted_or_migrating();
                let objects = page.is_some_and(|pfn| !mem.flags(pfn).contains(FrameFlags::ANON));
                // The zero page, which userfaultfd may put there, is no copy (`vm_normal_page`).
                (objects || pte.is_zero_page()).then(|| marks.after(pte))
            }
        }
    }
}

impl Lease<'_, rank::Mmap, Sleepable> {
    /// Gives up shared tables of a VMA that changes, in a window of its own, which opens whether
    /// there are any or not.
    pub(in crate::mm) fn close_tables(self, tables: VpnRange) {
        let mut window = self.into_window(tables, Event::Clear);
        window.change_tables(tables, |_| None);
        window.close();
    }
}

impl InvalidationWindow<'_, Sleepable> {
    /// Removes the entries of `range` that the zap selects and gives up their pages
    /// (`zap_page_range`).
    ///
    /// A huge page across an edge of the range is split first, also one that a fault maps
    /// meanwhile. A leaf that other address spaces share and that goes wholly is taken out of this
    /// table instead of being copied.
    pub(in crate::mm) fn zap(&mut self, range: VpnRange, what: Zap) {
        loop {
            self.split_edges(range);
            if self.zap_whole(range, what) {
                return;
            }
        }
    }
}

impl<C: Context> InvalidationWindow<'_, C> {
    /// Does as [`zap`](InvalidationWindow::zap) does, but returns false if a huge page lies across
    /// an edge of the range, which stays.
    pub(in crate::mm) fn zap_whole(&mut self, range: VpnRange, what: Zap) -> bool {
        let mut all = true;
        let mut huge: SmallVec<[VpnRange; 2]> = SmallVec::new();
        let mm = self.mm;
        let left = |part: VpnRange, leaf: LeafAt<'_>, _: Pin<'_>, flusher: Flusher<'_>| {
            let flush = || flusher.into_flushed(true, part);
            Ok(what == Zap::Mapping && mm.table.give_up_shared(part, leaf, flush))
        };
        let Ok(()) = self.leaves_or(range, left, |txn| {
            if txn.cuts_huge() {
                all = false;
                return Ok::<(), Infallible>(());
            }
            let (mem, part) = (txn.mem, txn.part);
            txn.remove(part, |pte| what.leaves(pte, mem));
            if txn.leaf.is_huge() && txn.leaf.is_empty() {
                txn.leaf.set_huge(false);
                huge.push(txn.range());
            }
            Ok(())
        });
        self.free_huge_leaves(huge);
        all
    }
    /// Removes the huge pages of a pool from `range`. The VMA that has the reservation of private
    /// pages, `is_owner`, gets it back (`__unmap_hugepage_range`).
    pub(in crate::mm) fn zap_hugetlb(&mut self, range: VpnRange, what: Zap, is_owner: bool) {
        self.unshare_tables(range);
        let mut huge: SmallVec<[VpnRange; 2]> = SmallVec::new();
        self.for_each_leaf_in(range, |txn| {
            if is_owner {
                restore_reserve(txn.mem, &txn.leaf, txn.part);
            }
            let (mem, part) = (txn.mem, txn.part);
            txn.remove(part, |pte| what.leaves(pte, mem));
            txn.leaf.set_huge(false);
            if txn.leaf.is_empty() {
                huge.push(part);
            }
        });
        self.free_huge_leaves(huge);
    }
    /// Gives up the tables in `range` that mappings of other address spaces share, with all of
    /// their entries (`huge_pmd_unshare`). The window covers these tables altogether.
    pub(in crate::mm) fn unshare_tables(&mut self, range: VpnRange) {
        let mm = self.mm;
        let left = mm.machine().shared_tables.leave(mm.number(), range);
        self.zap_tables(left);
    }
    /// Does the same for a VMA that changes. A table that stays gets the kind that `becomes`
    /// returns for its first page, if any.
    pub(in crate::mm) fn change_tables(
        &mut self,
        range: VpnRange,
        becomes: impl Fn(Vpn) -> Option<TableKind>,
    ) {
        let mm = self.mm;
        let tables = &mm.machine().shared_tables;
        let left = tables.change_kind(mm.number(), range, becomes);
        self.zap_tables(left);
    }
    fn zap_tables(&mut self, tables: Vec<VpnRange>) {
        for table in tables {
            self.zap_hugetlb(table, Zap::Mapping, false);
        }
    }
    /// Frees the leaves that lie wholly in `range` and have no entry left
    /// (`reclaim_pt_is_enabled`).
    pub(in crate::mm) fn free_empty_leaves(&mut self, range: VpnRange) {
        let mm = self.mm;
        let (_, mut cx) = self.core.split();
        let view = mm.table.view(&mut cx);
        view.for_each_leaf(range, |part, _| {
            if part.pages() == PMD_PAGES {
                mm.table.free_if_empty(part.start(), view.pin());
            }
        });
    }
    /// Frees emptied leaves of huge pages: on Linux a huge page has no table.
    fn free_huge_leaves(&mut self, huge: SmallVec<[VpnRange; 2]>) {
        for part in huge {
            self.free_empty_leaves(part);
        }
    }
}

/// Gives the reservation of the private huge page back that the leaf maps, if it does.
pub(in crate::mm) fn restore_reserve(mem: &PhysMem, leaf: &LockedLeaf<'_>, part: VpnRange) {
    let first = leaf.get(part.start()).counted();
    if let Some(head) = first.filter(|&pfn| mem.flags(pfn).contains(FrameFlags::ANON)) {
        mem.restore_huge(head);
    }
}
