//! `MADV_COLLAPSE` of an object's memory: its small pages become a huge one in the object, and this address space maps that as one;
//! others will when they fault. `mm/khugepaged.c`.

use super::collapse::{Fail, may_collapse};
use crate::ctx::CallCx;

use crate::mm::{
    entry::{flags::VmFlags, pte::RawPte},
    fault::{huge::block, with_leaf},
    guard::{Lease, MmapPin, MmapReadGuard},
    large::object::{Whole, set_whole},
    page_table::LockedLeaf,
    space::Mm,
    vma::{Vma, WRITTEN},
    window::InvalidationWindow,
};
use crate::{
    addr::{Pfn, Vpn},
    ctx::{Sleepable, rank},
    error::ObjectError,
    file::{MemoryObject, sealed},
    frame::HUGE,
    notifier::Event,
    rmap::{MappedAt, RmapCx},
};
use std::sync::Arc;

/// VMAs whose tables stay: those that private pages were written in, and those with guard markers.
const KEEPS_TABLES: VmFlags = WRITTEN.union(VmFlags::MAYBE_GUARD);

impl MmapReadGuard<'_> {
    /// The VMA of a block that may be mapped by a huge page of its object, and the object
    /// (`hugepage_vma_revalidate`).
    fn of_object(&self, at: Vpn) -> Result<(&Vma, &Arc<dyn MemoryObject>), Fail> {
        let vma = self.layout.vmas.get(at).ok_or(Fail::Never)?;
        let object = vma.object().ok_or(Fail::Never)?;
        match may_collapse(vma) && vma.range().covers(block(at)) {
            true => Ok((vma, object)),
            false => Err(Fail::Never),
        }
    }
}

impl Mm {
    /// One block; nobody's mmap lock is held while the object works.
    pub(in crate::mm) fn collapse_object(&self, cx: &mut CallCx<'_>, at: Vpn) -> Result<(), Fail> {
        let (object, first) = {
            let g = self.lock_shared_over(cx, Some(block(at)));
            let (vma, object) = g.of_object(at)?;
            (Arc::clone(object), vma.pgoff_at(at))
        };
        let done = object.collapse(cx.reborrow(), first, sealed::Ours);
        done.map_err(|why| match why {
            ObjectError::Again => Fail::Busy,
            ObjectError::NoMemory(_) => Fail::NoMemory,
            _ => Fail::Never,
        })?;
        self.map_collapsed(cx, at)
    }
    /// Maps what has become a huge page as one (`collapse_pte_mapped_thp`).
    fn map_collapsed(&self, cx: &mut CallCx<'_>, at: Vpn) -> Result<(), Fail> {
        let mut g = self.lock_shared_over(cx, Some(block(at)));
        if self.is_huge(&mut g.cx, at) {
            return Ok(());
        }
        let (vma, object) = g.of_object(at)?;
        let object = Arc::clone(object);
        let (index, rights) = (vma.pgoff_at(at), vma.mapped_rights());
        let locked = vma.flags.contains(VmFlags::LOCKED);
        // A driver may sleep in the window.
        let pin = MmapPin::new(self, &g, block(at));
        drop(g);
        let mut lease = pin.lease(cx);
        let found = object.huge_page(lease.cx.reborrow(), index, sealed::Ours);
        let Some(whole) = found else {
            return Err(Fail::Skip); // Split again meanwhile.
        };
        lease.map_whole(
            at,
            Whole {
                head: whole.pfn(),
                first: RawPte::frame(whole.pfn(), rights),
                as_one: true,
                locked,
            },
        )
    }
    /// See [`RmapTarget::retract`](crate::rmap::RmapTarget::retract).
    pub(in crate::mm) fn retract_at(&self, mut cx: RmapCx<'_>, spot: &MappedAt<'_>, head: Pfn) {
        let flags = VmFlags::from_bits_retain(spot.flags);
        if flags.intersects(KEEPS_TABLES) {
            return;
        }
        let has_small = self.with_leaf_of(&mut cx, spot.at, |leaf| !leaf.is_huge());
        if has_small == Some(true) {
            let window = Lease { mm: self, cx }.into_window(block(spot.at), Event::Clear);
            let _kept = window.drop_table(spot.at, head);
        }
    }
}

impl Lease<'_, rank::Mmap, Sleepable> {
    fn map_whole(&mut self, at: Vpn, how: Whole) -> Result<(), Fail> {
        let mm = self.mm;
        let small = mm.with_leaf_of(&mut self.cx, at, |leaf| only_parts(leaf, at, how.head));
        if let Some(only_parts) = small {
            only_parts?;
            let window = self.window(block(at), Event::Clear);
            window.drop_table(at, how.head)?;
        }
        let mem = mm.machine().mem();
        let set = with_leaf(mm, &mut self.cx, at, |leaf| set_whole(mem, leaf, at, how));
        match set {
            Ok(true) => Ok(()),
            Ok(false) | Err(_) => Err(Fail::Never),
        }
    }
}

/// Whether the leaf maps nothing but pages of the huge page that begins with `head`, each in its place.
fn only_parts(leaf: &LockedLeaf<'_>, at: Vpn, head: Pfn) -> Result<(), Fail> {
    for (i, page) in (0..HUGE).zip(block(at).iter()) {
        let pte = leaf.get(page);
        if pte.is_other() {
            return Err(Fail::Skip);
        }
        if !pte.is_none() && pte.counted() != Some(head.nth(i)) {
            return Err(Fail::Never);
        }
    }
    Ok(())
}

impl InvalidationWindow<'_, Sleepable> {
    /// The table of a block goes, if it maps nothing but pages of the huge page that begins with `head`.
    fn drop_table(mut self, at: Vpn, head: Pfn) -> Result<(), Fail> {
        let dropped = self.lock_ptes(at, |txn| {
            let leaf = txn.leaf();
            if leaf.is_huge() {
                return Err(Fail::Never); // Somebody was first.
            }
            only_parts(leaf, at, head)?;
            let mut retired = txn.mem().retired();
            leaf.take_if(
                block(at),
                |_| true,
                |pte| crate::mm::entry::release::drop_entry_to(&mut retired, pte),
            );
            Ok(())
        });
        self.free_empty_leaves(block(at));
        self.close();
        dropped.unwrap_or(Ok(()))
    }
}
