//! Faults in private anonymous memory (`do_anonymous_page`), and new frames for private pages.
//!
//! A load maps the zero page, which all of the machine's memory shares; a store gets a frame.

use super::scope::FaultScope;
use crate::mm::{
    entry::{flags::VmFlags, pte::RawPte},
    vma::Vma,
};
use crate::{
    addr::Vpn,
    error::{FaultError, NoMemory},
    frame::{Frame, FrameFlags, Large},
    notifier::Access,
};

/// The first flags of every frame of private anonymous memory.
const NEW_ANON: FrameFlags = FrameFlags::ANON.union(FrameFlags::ANON_EXCLUSIVE);

impl Vma {
    /// Returns the first flags of a frame for private memory of this VMA
    /// (`folio_add_new_anon_rmap`): droppable memory never goes to swap, locked memory is not on
    /// the lists of reclaim.
    pub(in crate::mm) fn new_anon(&self) -> FrameFlags {
        let mut flags = NEW_ANON;
        flags.set(
            FrameFlags::SWAP_BACKED,
            !self.flags.contains(VmFlags::DROPPABLE),
        );
        flags.set(
            FrameFlags::UNEVICTABLE,
            self.flags.contains(VmFlags::LOCKED),
        );
        flags
    }
}

impl<'h> FaultScope<'h> {
    /// Maps the zero page for a read, a new frame for a write (`do_anonymous_page`).
    pub(super) fn fault_anonymous(
        &mut self,
        vma: &Vma,
        at: Vpn,
        access: Access,
        has_leaf: bool,
    ) -> Result<(), FaultError> {
        let mem = self.lease.mm.machine().mem();
        if access == Access::Read {
            let zero = RawPte::zero(mem.zero_pfn(), vma.read_only());
            let missing = vma.flags.contains(VmFlags::UFFD_MISSING);
            self.with_leaf(at, |leaf| {
                let old = leaf.get(at);
                if old.is_vacant() && !missing {
                    leaf.set(at, zero.in_place_of(old));
                }
            })?;
            let handed = self.hand_over_missing(vma, at, access);
            return handed.unwrap_or(Ok(()));
        }
        // The table comes first, as on Linux: it stays where no frame can be allocated.
        if !has_leaf {
            self.with_leaf(at, |_| ())?;
        }
        if self.fault_folio(vma, at)? {
            return Ok(());
        }
        let frame = self.new_anon(vma, at)?;
        if let Some(handed) = self.hand_over_missing(vma, at, access) {
            return handed;
        }
        let pte = RawPte::frame(frame.pfn(), vma.rights()).mkdirty();
        self.install(at, frame, pte)?;
        Ok(())
    }

    /// Allocates a frame for a private page of `vma` (`folio_prealloc`,
    /// `folio_add_new_anon_rmap`).
    pub(in crate::mm) fn new_anon(&mut self, vma: &Vma, at: Vpn) -> Result<Frame<'h>, NoMemory> {
        let mem = self.lease.mm.machine().mem();
        let node = self.layout.anon_of(vma)?;
        let owner = node.owner(vma.pgoff_at(at));
        mem.alloc_as(vma.new_anon(), Some(owner))
            .map_err(|_| NoMemory::Frame)
    }
    /// Makes the frames of a new large page private pages of `vma`, the first one that at `first`.
    pub(super) fn own_large(&mut self, vma: &Vma, first: Vpn, page: Large) -> Result<(), NoMemory> {
        let mem = self.lease.mm.machine().mem();
        let node = self.layout.anon_of(vma)?;
        for (index, pfn) in (vma.pgoff_at(first)..).zip(page.all()) {
            mem.set_flags(pfn, vma.new_anon());
            mem.set_owner(pfn, Some(node.owner(index)));
        }
        Ok(())
    }
}
