//! Huge pages of objects: mapped by faults, and dropped, as a whole.
//!
//! Guarantee: what maps such a page as one maps it while the lock of its first frame is held, and saw then that it is whole.
//! Who splits or gives up the page has that lock as well, and drops its mappings before; so a fault that comes too late
//! finds small pages, or none.

use crate::mm::{
    entry::{flags::VmFlags, pte::RawPte},
    fault::{huge::block, with_leaf},
    guard::{FaultScope, Lease},
    page_table::LockedLeaf,
    space::Mm,
    vma::Vma,
    window::Zap,
};
use crate::{
    addr::{PMD_PAGES, Pfn, Vpn, VpnRange},
    ctx::{Below, Rank, Sleepable, rank},
    error::NoMemory,
    file::{MemoryObject, sealed},
    frame::{FrameLock, HUGE, PhysMem},
    notifier::{Access, Event},
    rmap::RmapCx,
};
use std::convert::Infallible;

/// When the object got a huge page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::mm) enum Came {
    /// It was there.
    Before,
    /// This fault brought it in.
    New,
}

/// How all of a huge page is mapped.
#[derive(Clone, Copy)]
pub(in crate::mm) struct Whole {
    /// Its first frame, which is locked.
    pub(in crate::mm) head: Pfn,
    /// The entry of that.
    pub(in crate::mm) first: RawPte,
    /// Whether it is mapped as one.
    pub(in crate::mm) as_one: bool,
    /// Whether it is locked in memory.
    pub(in crate::mm) locked: bool,
}

impl Vma {
    /// Whether the 2 MiB around `at` can be mapped by a huge page of the object, if it has one there
    /// (`thp_vma_suitable_order`): they lie inside, and addresses and page offsets are aligned alike.
    pub(in crate::mm) fn fits_huge(&self, at: Vpn) -> bool {
        let aligned = Vpn(self.start().0.wrapping_sub(self.pgoff)).is_aligned(PMD_PAGES);
        aligned && !self.flags.contains(VmFlags::NONLINEAR) && self.range().covers(block(at))
    }
}

impl FaultScope<'_> {
    /// Maps the huge page that the object has for `at`: as one, if no table is there yet (`do_set_pmd`). Otherwise by small
    /// entries: a read of one that was there those that are missing (`filemap_map_folio_range`), else all or none of them
    /// (`finish_fault`). Says whether it did.
    pub(in crate::mm) fn fault_huge_object(
        &mut self,
        vma: &Vma,
        object: &dyn MemoryObject,
        at: Vpn,
        (access, came): (Access, Came),
    ) -> Result<bool, NoMemory> {
        let as_one = !self.has_leaf(at) && !vma.flags.contains(VmFlags::NOHUGEPAGE);
        let is_write = access == Access::Write;
        if !vma.fits_huge(at) || !self.reaches(vma, object, at, access) {
            return Ok(false);
        }
        let index = vma.pgoff_at(at);
        let mem = self.lease.mm.machine().mem();
        let found = object.huge_page(self.lease.cx.reborrow(), index, sealed::Ours);
        let Some(whole) = found else {
            return Ok(false);
        };
        let first = match is_write {
            true => RawPte::frame(whole.pfn(), vma.rights()).mkdirty(),
            false => RawPte::frame(whole.pfn(), vma.mapped_rights()),
        };
        let how = vma.whole(&whole, first, as_one);
        with_leaf(self.lease.mm, &mut self.lease.cx, at, |leaf| {
            if as_one || is_write || came == Came::New {
                return set_whole(mem, leaf, at, how);
            }
            set_missing(mem, leaf, at, how);
            !leaf.get(at).is_none()
        })
    }
    /// Whether the object has the page, or for a read one of those that come with it: a huge page is mapped across the end of
    /// shared memory.
    fn reaches(&self, vma: &Vma, object: &dyn MemoryObject, at: Vpn, access: Access) -> bool {
        let around = self.lease.mm.machine().config().fault_around_pages();
        let from = match access {
            Access::Read => at.align_down(around).max(vma.start()),
            Access::Write => at,
        };
        vma.pgoff_at(from) < object.pages()
    }
}

impl Vma {
    pub(in crate::mm) fn whole(
        &self,
        locked: &FrameLock<'_>,
        first: RawPte,
        as_one: bool,
    ) -> Whole {
        Whole {
            head: locked.pfn(),
            first,
            as_one,
            locked: self.flags.contains(VmFlags::LOCKED),
        }
    }
}

/// Fills a leaf that is empty; says whether it was.
pub(in crate::mm) fn set_whole(mem: &PhysMem, leaf: &LockedLeaf<'_>, at: Vpn, how: Whole) -> bool {
    let is_empty = leaf.is_empty();
    if is_empty {
        set_missing(mem, leaf, at, how);
        leaf.set_huge(how.as_one);
    }
    is_empty
}

fn set_missing(mem: &PhysMem, leaf: &LockedLeaf<'_>, at: Vpn, how: Whole) {
    for (i, page) in (0..HUGE).zip(block(at).iter()) {
        if !leaf.get(page).is_none() {
            continue;
        }
        let pfn = how.head.nth(i);
        mem.share(pfn);
        leaf.set(page, how.first.with_pfn(pfn));
        if how.locked {
            mem.lru_lock(pfn);
        }
    }
}

impl<R: Rank + Below<rank::Window>> Lease<'_, R, Sleepable> {
    /// Drops what is mapped in the 2 MiB of `at`, and their table, in a window over them.
    pub(in crate::mm) fn drop_block(&mut self, at: Vpn) {
        let mut window = self.window(block(at), Event::Clear);
        window.zap(block(at), Zap::Pages);
        window.free_empty_leaves(block(at));
        window.close();
    }
}

impl Mm {
    /// Drops what `part` maps of a huge page of an object that begins with `head`, in a window over `part`
    /// (`try_to_unmap_one`).
    pub(in crate::mm) fn drop_parts(&self, cx: RmapCx<'_>, part: VpnRange, head: Pfn) {
        let mut window = Lease { mm: self, cx }.into_window(part, Event::Clear);
        let mut was_one = false;
        let is_part = |pte: RawPte| pte.counted().is_some_and(|pfn| pfn.head() == head);
        window
            .leaves_in(part, |txn| {
                let mut retired = txn.mem().retired();
                let drop_entry = |pte| crate::mm::entry::release::drop_entry_to(&mut retired, pte);
                txn.leaf().take_if(txn.range(), is_part, drop_entry);
                if txn.leaf().is_huge() && txn.leaf().is_empty() {
                    txn.leaf().set_huge(false);
                    was_one = true;
                }
                Ok::<(), Infallible>(())
            })
            .unwrap_or_else(|e| match e {});
        if was_one {
            window.free_empty_leaves(part);
        }
        window.close();
    }
}
