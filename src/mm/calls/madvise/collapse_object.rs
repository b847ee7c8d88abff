//! `MADV_COLLAPSE` of an object's memory (`mm/khugepaged.c`).
//!
//! The object makes a huge page of its small pages, and this address space maps it as one. Other
//! address spaces do so when they fault.

use super::collapse::{By, Fail, vma_of_block};
use crate::mm::{
    entry::{flags::VmFlags, pte::RawPte},
    fault::{
        entries::with_leaf,
        huge_object::{Whole, set_whole},
    },
    guard::{MmapReadGuard, MmapSharedClaim},
    large::object::{TableStays, check_parts},
    space::Mm,
    vma::Vma,
    window::Lease,
};
use crate::{
    addr::{PMD_PAGES, Vpn, VpnRange},
    ctx::{CallCx, Sleepable, rank},
    error::ObjectError,
    file::{ByDaemon, MemoryObject, sealed},
    frame::HUGE,
    notifier::Event,
};
use std::sync::Arc;

impl From<TableStays> for Fail {
    fn from(why: TableStays) -> Self {
        match why {
            TableStays::NotPresent => Self::Skip,
            TableStays::OtherPage => Self::Never,
        }
    }
}

impl MmapReadGuard<'_> {
    /// Returns the VMA of a block that may be mapped by a huge page of its object, and the object.
    fn of_object(&self, at: Vpn) -> Result<(&Vma, &Arc<dyn MemoryObject>), Fail> {
        let vma = vma_of_block(&self.layout, at)?;
        Ok((vma, vma.object().ok_or(Fail::Never)?))
    }
}

impl Mm {
    /// Collapses one block. No mmap lock is held while the object works. The daemon does not map
    /// the new page, and leaves one that was there before.
    pub(super) fn collapse_object(
        &self,
        cx: &mut CallCx<'_>,
        at: Vpn,
        by: By<'_>,
    ) -> Result<(), Fail> {
        let (object, first, daemon) = {
            let g = self.lock_shared_over(cx, Some(VpnRange::block_of(at)));
            let (vma, object) = g.of_object(at)?;
            let daemon = by.limits().map(|limits| ByDaemon {
                none: limits.none,
                swap: limits.swap,
                mapped: vma.pgoff,
                advised: vma.flags.contains(VmFlags::HUGEPAGE),
            });
            (Arc::clone(object), vma.pgoff_at(at), daemon)
        };
        if daemon.is_some() && object.together(first, sealed::Ours).end - first == PMD_PAGES {
            return Err(Fail::Skip);
        }
        let done = object.collapse(cx.reborrow(), first, daemon, sealed::Ours);
        done.map_err(|why| match why {
            ObjectError::Again => Fail::Busy,
            ObjectError::NoMemory(_) => Fail::NoMemory,
            _ => Fail::Never,
        })?;
        match daemon {
            Some(_) => Ok(()),
            None => self.map_collapsed(cx, at),
        }
    }
    /// Maps the new huge page as one (`collapse_pte_mapped_thp`).
    fn map_collapsed(&self, cx: &mut CallCx<'_>, at: Vpn) -> Result<(), Fail> {
        let mut g = self.lock_shared_over(cx, Some(VpnRange::block_of(at)));
        if self.is_huge(&mut g.cx, at) {
            return Ok(());
        }
        let (vma, object) = g.of_object(at)?;
        let object = Arc::clone(object);
        let (index, rights) = (vma.pgoff_at(at), vma.mapped_rights());
        let locked = vma.flags.contains(VmFlags::LOCKED);
        // A driver may sleep in the window.
        let claim = MmapSharedClaim::new(self, &g, VpnRange::block_of(at));
        drop(g);
        let mut lease = claim.lease(cx);
        let found = object.huge_page(lease.cx.reborrow(), index, sealed::Ours);
        let Some(first) = found else {
            return Err(Fail::Skip); // The page was split meanwhile.
        };
        lease.map_whole(
            at,
            Whole {
                head: first.pfn(),
                first: RawPte::frame(first.pfn(), rights),
                as_one: true,
                locked,
            },
        )
    }
}

impl Lease<'_, rank::Mmap, Sleepable> {
    /// Drops the table of a block, if it maps only parts of the huge page, and maps that as one.
    fn map_whole(&mut self, at: Vpn, how: Whole) -> Result<(), Fail> {
        let mm = self.mm;
        let small = mm.with_leaf_of(&mut self.cx, at, |leaf| check_parts(leaf, at, how.head));
        if let Some(parts) = small {
            parts?;
            let window = self.window(VpnRange::block_of(at), Event::Clear);
            window.drop_table(at, how.head)?;
        }
        let mem = mm.machine().mem();
        let set = with_leaf(mm, &mut self.cx, at, |leaf| set_whole(mem, leaf, at, how));
        match set {
            Ok(true) => {
                mm.note_mapped(&mut self.cx.descend(), how.head, u64::from(HUGE));
                Ok(())
            }
            Ok(false) | Err(_) => Err(Fail::Never),
        }
    }
}
