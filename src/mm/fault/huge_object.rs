//! Faults that map huge pages of objects.
//!
//! Such a page is mapped under the lock of its first frame, which guards all of it
//! (`large/object.rs`).

use super::{entries::with_leaf, scope::FaultScope};
use crate::mm::{
    entry::{flags::VmFlags, pte::RawPte},
    page_table::LockedLeaf,
    vma::Vma,
};
use crate::{
    addr::{PMD_PAGES, Pfn, Vpn, VpnRange},
    error::NoMemory,
    file::{MemoryObject, sealed},
    frame::{HUGE, PhysMem},
    notifier::Access,
};

/// The time at which the object got a huge page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Came {
    /// The page existed before this fault.
    Before,
    /// This fault brought the page in.
    New,
}

/// The way in which all of a huge page is mapped.
#[derive(Clone, Copy)]
pub(in crate::mm) struct Whole {
    /// The first frame, which is locked.
    pub(in crate::mm) head: Pfn,
    /// The entry of the first frame.
    pub(in crate::mm) first: RawPte,
    /// Set if the page is mapped as one.
    pub(in crate::mm) as_one: bool,
    /// Set if the mapping is locked in memory.
    pub(in crate::mm) locked: bool,
}

impl Vma {
    /// Returns true if the 2 MiB around `at` can be mapped by a huge page of the object, should it
    /// have one (`thp_vma_suitable_order`): they lie inside, and addresses and page offsets are
    /// aligned alike.
    fn fits_huge(&self, at: Vpn) -> bool {
        let aligned = Vpn(self.start().0.wrapping_sub(self.pgoff)).is_aligned(PMD_PAGES);
        let linear = !self.flags.contains(VmFlags::NONLINEAR);
        // A page of a huge page must be able to fault alone (`userfaultfd_armed`).
        let alone = self.userfault().is_some();
        aligned && linear && !alone && self.range().covers(VpnRange::block_of(at))
    }
}

impl FaultScope<'_> {
    /// Maps the huge page that the object has for `at`, and returns true if it did.
    ///
    /// The page is mapped as one if no table is present (`do_set_pmd`), and by small entries
    /// otherwise: a read of a page that existed before fills the empty entries
    /// (`filemap_map_folio_range`), any other fault all entries or none (`finish_fault`).
    pub(super) fn fault_huge_object(
        &mut self,
        vma: &Vma,
        object: &dyn MemoryObject,
        at: Vpn,
        (access, came): (Access, Came),
    ) -> Result<bool, NoMemory> {
        let as_one = !self.has_leaf(at) && self.layout.allows_huge(vma.flags, false);
        let is_write = access == Access::Write;
        if !vma.fits_huge(at) || !self.reaches(vma, object, at, access) {
            return Ok(false);
        }
        let index = vma.pgoff_at(at);
        let mem = self.lease.mm.machine().mem();
        let found = object.huge_page(self.lease.cx.reborrow(), index, sealed::Ours);
        let Some(locked) = found else {
            return Ok(false);
        };
        let first = match is_write {
            true => RawPte::frame(locked.pfn(), vma.rights()).mkdirty(),
            false => RawPte::frame(locked.pfn(), vma.mapped_rights()),
        };
        let how = Whole {
            head: locked.pfn(),
            first,
            as_one,
            locked: vma.flags.contains(VmFlags::LOCKED),
        };
        let (mapped, new) = with_leaf(self.lease.mm, &mut self.lease.cx, at, |leaf| {
            if as_one || is_write || came == Came::New {
                let set = set_whole(mem, leaf, at, how);
                return (set, if set { u64::from(HUGE) } else { 0 });
            }
            let new = set_missing(mem, leaf, at, how);
            (!leaf.get(at).is_none(), new)
        })?;
        self.note_mapped(how.head, new);
        Ok(mapped)
    }
    /// Returns true if the object has the page, or for a read one of the pages that fault-around
    /// takes along: a huge page is mapped across the end of shared memory.
    fn reaches(&self, vma: &Vma, object: &dyn MemoryObject, at: Vpn, access: Access) -> bool {
        let around = self.lease.mm.machine().config().fault_around_pages();
        let from = match access {
            Access::Read => at.align_down(around).max(vma.start()),
            Access::Write => at,
        };
        vma.pgoff_at(from) < object.pages()
    }
}

/// Fills an empty leaf. Returns false if the leaf has entries already.
pub(in crate::mm) fn set_whole(mem: &PhysMem, leaf: &LockedLeaf<'_>, at: Vpn, how: Whole) -> bool {
    let is_empty = leaf.is_empty();
    if is_empty {
        let _all = set_missing(mem, leaf, at, how);
        leaf.set_huge(how.as_one);
    }
    is_empty
}

/// Fills the empty entries of a leaf; returns how many.
fn set_missing(mem: &PhysMem, leaf: &LockedLeaf<'_>, at: Vpn, how: Whole) -> u64 {
    let mut new = 0;
    for (i, page) in (0..HUGE).zip(VpnRange::block_of(at).iter()) {
        if !leaf.get(page).is_none() {
            continue;
        }
        let pfn = how.head.nth(i);
        new += 1;
        mem.share(pfn);
        leaf.set(page, how.first.with_pfn(pfn));
        if how.locked {
            mem.lru_lock(pfn);
        }
    }
    new
}
