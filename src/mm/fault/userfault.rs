//! Faults that userfaultfd handles (`handle_userfault`).
//!
//! Such a fault leaves a message for the handler and ends with [`FaultError::Userfault`]: it holds
//! no lock while it waits. The access repeats it after the answer, or at any time before.

use super::{hugetlb::parts, scope::FaultScope};
use crate::mm::{
    entry::{
        flags::VmFlags,
        pte::RawPte,
        uffd_flags::{PageFaultFlags, UffdFeatures},
    },
    vma::{Vma, userfault::PageFault},
};
use crate::{
    addr::{Vpn, VpnRange},
    error::{FaultError, NoMemory},
    file::{MemoryObject, sealed},
    notifier::Access,
};

impl FaultScope<'_> {
    /// Hands the access over because of `why`, unless the entry is no longer `as_before`: another
    /// thread has answered then, and the access tries again.
    fn hand_over(
        &mut self,
        vma: &Vma,
        (at, access): (Vpn, Access),
        why: PageFaultFlags,
        as_before: impl Fn(RawPte) -> bool,
    ) -> Result<(), FaultError> {
        let context = vma.userfault().expect("the VMA is registered");
        let exact = context.has(UffdFeatures::EXACT_ADDRESS);
        let addr = self.byte.filter(|_| exact).unwrap_or(at.addr());
        let write = match access {
            Access::Write => PageFaultFlags::WRITE,
            Access::Read => PageFaultFlags::empty(),
        };
        let flags = why | write;
        let fault = PageFault { addr, flags };
        let is_first = vma.hand_over(fault)?;
        // An answer wakes after it has changed the entry (`userfaultfd_must_wait`): one that came
        // before the message did not wake this access.
        if as_before(self.look(at)?) {
            return Err(FaultError::Userfault(self.byte.unwrap_or(at.addr())));
        }
        // The message of another access stays: that one is woken by its answer alone.
        if is_first {
            context.withdraw(fault);
        }
        Ok(())
    }
    /// Hands over an access to an absent page of private memory, if the VMA is registered for that.
    /// `None`: the fault goes on.
    pub(super) fn hand_over_missing(
        &mut self,
        vma: &Vma,
        at: Vpn,
        access: Access,
    ) -> Option<Result<(), FaultError>> {
        self.hand_over_unmapped(vma, (at, access), false)
    }
    /// Hands over an access to an absent page of an object, if the VMA is registered for absent
    /// pages that the object lacks, or for those that it has (`shmem_get_folio_gfp`). `None`: the
    /// fault goes on.
    pub(super) fn hand_over_object(
        &mut self,
        vma: &Vma,
        object: &dyn MemoryObject,
        (at, access): (Vpn, Access),
    ) -> Option<Result<(), FaultError>> {
        let index = vma.pgoff_at(at);
        if !vma
            .flags
            .intersects(VmFlags::UFFD_MISSING | VmFlags::UFFD_MINOR)
            || index >= object.pages()
        {
            return None;
        }
        let there = object.has_page(index, sealed::Ours);
        self.hand_over_unmapped(vma, (at, access), there)
    }
    /// Hands over an access to a page that no entry maps, if the VMA is registered for absent pages
    /// and there is none, or for pages of the file and it has this one. `None`: the fault goes on.
    #[inline]
    pub(super) fn hand_over_unmapped(
        &mut self,
        vma: &Vma,
        (at, access): (Vpn, Access),
        has_page: bool,
    ) -> Option<Result<(), FaultError>> {
        let (mode, why) = match has_page {
            true => (VmFlags::UFFD_MINOR, PageFaultFlags::MINOR),
            false => (VmFlags::UFFD_MISSING, PageFaultFlags::empty()),
        };
        vma.flags
            .contains(mode)
            .then(|| self.hand_over(vma, (at, access), why, RawPte::is_vacant))
    }
    /// Prepares a write to a huge page of a pool with the mark, in a VMA that is registered for
    /// that: lifts the protection, or hands the write over (`hugetlb_fault`). The access tries
    /// again.
    pub(super) fn write_to_protected_hugetlb(
        &mut self,
        vma: &Vma,
        page: VpnRange,
    ) -> Result<(), FaultError> {
        if !vma.is_wp_async() {
            let protected = |pte: RawPte| pte.is_present() && pte.is_uffd_wp();
            let at = (page.start(), Access::Write);
            return self.hand_over(vma, at, PageFaultFlags::WP, protected);
        }
        for (part, _) in parts(page) {
            self.with_leaf(part.start(), |leaf| {
                let marked = part.iter().map(|at| (at, leaf.get(at)));
                marked.for_each(|(at, pte)| leaf.set(at, pte.clear_uffd_wp()));
            })?;
        }
        Ok(())
    }
    /// Prepares a write to the page of the entry `seen`, which has the mark of write protection, in
    /// a VMA that is registered for that: lifts the protection of this page, or hands the write
    /// over (`do_wp_page`). Returns the entry that is there then, or `None` if the access must try
    /// again.
    pub(super) fn write_to_protected(
        &mut self,
        vma: &Vma,
        at: Vpn,
        seen: RawPte,
    ) -> Result<Option<RawPte>, FaultError> {
        if !vma.is_wp_async() {
            let why = PageFaultFlags::WP;
            let protected = |pte: RawPte| pte.is_present() && pte.is_uffd_wp();
            self.hand_over(vma, (at, Access::Write), why, protected)?;
            return Ok(None);
        }
        if self.lease.mm.is_huge(&mut self.lease.cx, at) {
            // Other pages of the huge page stay protected.
            self.split(at);
            return Ok(None);
        }
        // No window: the right to write comes later, with the fault.
        let lifted = seen.clear_uffd_wp();
        let same = self.with_leaf(at, |leaf| {
            let same = leaf.get(at) == seen;
            if same {
                leaf.set(at, lifted);
            }
            same
        })?;
        Ok(same.then_some(lifted))
    }
    /// Removes a marker that was left behind when its memory was no longer registered
    /// (`pte_marker_clear`).
    pub(super) fn clear_marker(&mut self, at: Vpn) -> Result<(), NoMemory> {
        self.with_leaf(at, |leaf| {
            if leaf.get(at).is_wp_marker() {
                leaf.set(at, RawPte::NONE);
            }
        })
    }
}
