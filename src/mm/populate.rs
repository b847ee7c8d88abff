//! Faulting a range in ahead of use: `MAP_POPULATE`, `mlock`, `MADV_POPULATE_READ` and `_WRITE`.

use super::{Mm, flags::VmFlags, guard::Held, vma::Vma};
use crate::{
    addr::{TASK_PAGES, Vpn, VpnRange},
    ctx::{Cx, Sleepable, rank},
    error::FaultError,
    notifier::Access,
};

/// What populating does about a page that cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Errors {
    /// Go on with the next VMA (`MAP_POPULATE`).
    Ignore,
    /// Stop (`mlock`).
    Stop,
}

impl Mm {
    /// `__mm_populate`: faults in what is mapped in `range`, private writable memory for writing. Holes are skipped.
    pub(super) fn populate(
        &self,
        cx: &mut Cx<'_, rank::Idle, Sleepable>,
        range: VpnRange,
        errors: Errors,
    ) -> Result<(), FaultError> {
        let mut g = self.read(cx);
        let mut held = g.held();
        let layout = held.layout;
        for vma in layout.vmas.range(range) {
            let part = vma.range().intersect(range).expect("the VMA overlaps");
            let done = held.populate_vma(vma, part);
            if errors == Errors::Stop {
                done?;
            }
        }
        Ok(())
    }
}

impl Held<'_> {
    /// `populate_vma_page_range`.
    pub(super) fn populate_vma(&mut self, vma: &Vma, part: VpnRange) -> Result<(), FaultError> {
        if vma.flags.contains(VmFlags::LOCKONFAULT) {
            return Ok(());
        }
        // Break COW now rather than at the first write; shared pages are only read in.
        let private_writable = vma.flags & (VmFlags::WRITE | VmFlags::SHARED) == VmFlags::WRITE;
        let access = if private_writable {
            Access::Write
        } else {
            Access::Read
        };
        if !vma.flags.accessible() {
            return Err(FaultError::Denied(part.start().addr()));
        }
        for at in part.iter() {
            self.make_present(vma, at, access)?;
        }
        Ok(())
    }
    /// Faults until an access would go through.
    pub(super) fn make_present(
        &mut self,
        vma: &Vma,
        at: Vpn,
        access: Access,
    ) -> Result<(), FaultError> {
        while !self.is_present(at, access) {
            self.fault(vma, at, access)?;
        }
        // What is populated counts as used (`FOLL_TOUCH`).
        let mm = self.lease.mm;
        mm.with_leaf_of(&mut self.lease.cx, at, |leaf| {
            if let Some(pfn) = leaf.get(at).counted() {
                mm.machine().mem().mark_accessed(pfn);
            }
        });
        Ok(())
    }
    fn is_present(&mut self, at: Vpn, access: Access) -> bool {
        let mm = self.lease.mm;
        let pinned = self.lease.cx.pin();
        let pin = mm.table.pin(pinned.guard());
        mm.table.leaf(at, pin).is_some_and(|leaf| {
            let pte = leaf.peek(at);
            pte.is_present() && (access == Access::Read || pte.may_write())
        })
    }
    /// `faultin_page_range`: `None` in the error is a VMA without the right. Stops at the first hole or fault.
    pub(super) fn populate_range(
        &mut self,
        range: VpnRange,
        access: Access,
    ) -> Result<(), PopulateError> {
        let layout = self.layout;
        let mut at = range.start();
        while at < range.end() {
            let vma = layout.vmas.get(at).ok_or(PopulateError::Hole(at.addr()))?;
            let right = match access {
                Access::Read => VmFlags::READ,
                Access::Write => VmFlags::WRITE,
            };
            if !vma.flags.contains(right) {
                return Err(PopulateError::Denied(at.addr()));
            }
            let part = vma.range().intersect(range).expect("the VMA holds at");
            for page in VpnRange::new(at, part.end()).expect("not empty").iter() {
                self.make_present(vma, page, access)
                    .map_err(PopulateError::Fault)?;
            }
            at = part.end();
        }
        debug_assert!(range.end().0 <= TASK_PAGES);
        Ok(())
    }
}

/// Why [`Held::populate_range`] stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PopulateError {
    Hole(u64),
    Denied(u64),
    Fault(FaultError),
}
