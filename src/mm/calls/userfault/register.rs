//! Registration of memory with a userfaultfd, and its end.

use super::Userfault;
use crate::mm::{
    calls::change_protection::VmaProtection,
    entry::{
        flags::VmFlags,
        uffd_flags::{RegisterMode, UffdFeatures},
    },
    guard::{AfterYield, MmapWriteGuard},
    vma::{
        Vma,
        hugetlb::{OWN_TABLES, SHARES_TABLES},
        userfault::{Context, same_userfault},
    },
};
use crate::{
    addr::{PUD_PAGES, Vpn, VpnRange},
    ctx::CallCx,
    error::UserfaultError,
};
use std::{convert::Infallible, sync::Arc};

impl Userfault {
    /// Registers the mapped memory of `[addr, addr + len)` for the faults of `mode`
    /// (`UFFDIO_REGISTER`). VMAs are split and merged as by `mprotect`; holes are passed over.
    ///
    /// # Errors
    ///
    /// [`UserfaultError`]; nothing is registered then, unless a split failed half-way.
    pub fn register(
        &self,
        cx: &mut CallCx<'_>,
        addr: u64,
        len: u64,
        mode: RegisterMode,
    ) -> Result<(), UserfaultError> {
        let bad = UserfaultError::Mode(mode.bits());
        let mm = self.space()?;
        let modes = [
            (RegisterMode::MISSING, VmFlags::UFFD_MISSING),
            (RegisterMode::WP, VmFlags::UFFD_WP),
            (RegisterMode::MINOR, VmFlags::UFFD_MINOR),
        ];
        let asked = modes.iter().filter(|(asked, _)| mode.contains(*asked));
        let flags = asked.fold(VmFlags::empty(), |all, (_, flag)| all | *flag);
        if mode.is_empty() || !RegisterMode::all().contains(mode) {
            return Err(bad);
        }
        let range = super::check_range(&mm, addr, len)?;
        let mut g = mm.lock_exclusive_some(cx);
        g.claim_range(range);
        let mut found = false;
        for vma in g.layout.vmas.range(range) {
            if !found && !vma.is_whole(range.start()) {
                return Err(UserfaultError::InsideHugePage(addr));
            }
            self.check_kind(vma, flags)?;
            if range.end() <= vma.end() && !vma.is_whole(range.end()) {
                return Err(UserfaultError::InsideHugePage(addr));
            }
            self.check_free(vma)?;
            found = true;
        }
        if !found {
            return Err(UserfaultError::NothingMapped(addr));
        }
        g.each_vma_in(range, |g, start, part| {
            let vma = g.vma(start);
            if vma.is_registered_with(&self.0) && vma.flags.contains(flags) {
                return Ok(start);
            }
            let mut wanted = g.wanted(start);
            wanted.flags = (wanted.flags - VmFlags::UFFD) | flags;
            let context = Arc::clone(&self.0);
            wanted.extras.change(|rare| rare.userfault = Some(context));
            let start = g.modify_as(start, part, wanted)?;
            g.unshare_all_tables(start);
            Ok(start)
        })
    }
    fn check_kind(&self, vma: &Vma, flags: VmFlags) -> Result<(), UserfaultError> {
        let at = vma.start().addr();
        if !vma.may_be_registered(flags, self.0.has(UffdFeatures::WP_ASYNC)) {
            return Err(UserfaultError::Unsuitable(at));
        }
        match vma.flags.contains(VmFlags::MAYWRITE) {
            true => Ok(()),
            false => Err(UserfaultError::Denied(at)),
        }
    }
    fn check_free(&self, vma: &Vma) -> Result<(), UserfaultError> {
        let at = vma.start().addr();
        match vma.userfault() {
            Some(_) if !vma.is_registered_with(&self.0) => Err(UserfaultError::Taken(at)),
            _ => Ok(()),
        }
    }
    /// Ends the registration of `[addr, addr + len)` (`UFFDIO_UNREGISTER`): lifts write protection
    /// in one window a VMA, and wakes the accesses that wait for absent pages.
    ///
    /// # Errors
    ///
    /// [`UserfaultError`]; nothing is changed then, unless a split failed half-way.
    pub fn unregister(
        &self,
        cx: &mut CallCx<'_>,
        addr: u64,
        len: u64,
    ) -> Result<(), UserfaultError> {
        let (mm, range) = self.begin(addr, len)?;
        let asynchronous = self.0.has(UffdFeatures::WP_ASYNC);
        let mut g = mm.lock_exclusive_some(cx);
        g.claim_range(range);
        let mut found = false;
        for vma in g.layout.vmas.range(range) {
            let ends = range.end() <= vma.end() && !vma.is_whole(range.end());
            if (!found && !vma.is_whole(range.start())) || ends {
                return Err(UserfaultError::InsideHugePage(addr));
            }
            let other = vma.userfault().is_some() && !vma.is_registered_with(&self.0);
            if other || !vma.may_be_registered(vma.flags, asynchronous) {
                return Err(UserfaultError::Unsuitable(vma.start().addr()));
            }
            found = true;
        }
        if !found {
            return Err(UserfaultError::NothingMapped(addr));
        }
        g.each_vma_in(range, |g, start, part| {
            let vma = g.vma(start);
            if vma.userfault().is_none() {
                return Ok(start);
            }
            if vma.flags.contains(VmFlags::UFFD_MISSING) {
                self.0.wake(part);
            }
            g.end_registration(start, part)
        })
    }
    /// Closes the userfaultfd: its memory is registered no longer, write protection is lifted, and
    /// every access that waits tries again (`userfaultfd_release`).
    ///
    /// So are the userfaultfds of children about which no handler has read
    /// (`userfaultfd_event_wait_completion`).
    ///
    /// A VMA that cannot be split or merged for want of memory keeps its boundaries.
    pub fn close(self, cx: &mut CallCx<'_>) {
        let mut open = vec![self];
        while let Some(fd) = open.pop() {
            fd.end_registrations(cx);
            open.extend(fd.0.close().into_iter().map(Self));
        }
    }
    /// Ends the registration of all memory.
    fn end_registrations(&self, cx: &mut CallCx<'_>) {
        if let Ok(mm) = self.space() {
            let mut g = mm.lock_exclusive_some(cx);
            g.claim_range(VpnRange::ALL);
            let Ok(()) = g.each_vma_in(VpnRange::ALL, |g, start, range| {
                let ours = g.vma(start).is_registered_with(&self.0);
                let ended = ours.then(|| g.end_registration(start, range));
                Ok::<_, Infallible>(ended.and_then(Result::ok).unwrap_or(start))
            });
        }
    }
}

impl MmapWriteGuard<'_> {
    /// Ends the registration of `part` of the VMA at `start` (`userfaultfd_clear_vma`). Returns the
    /// start of the VMA that holds the part then.
    fn end_registration(&mut self, start: Vpn, part: VpnRange) -> Result<Vpn, UserfaultError> {
        let vma = self.vma(start);
        if vma.is_uffd_wp() {
            let lifted = VmaProtection::by_userfault(vma, part, false);
            self.yield_while(part.pages(), AfterYield::KeepsEditing, &[], |lease| {
                lease.protect(lifted, &mut false)
            })?;
        }
        let mut wanted = self.wanted(start);
        wanted.flags -= VmFlags::UFFD;
        wanted.extras.change(|rare| rare.userfault = None);
        Ok(self.modify_as(start, part, wanted)?)
    }
    /// Opens a window over the tables of the VMA at `start` that mappings of other processes may
    /// share: with marks and minor faults the VMA needs its own (`hugetlb_unshare_all_pmds`).
    fn unshare_all_tables(&mut self, start: Vpn) {
        let vma = self.vma(start);
        let gives_up = vma.flags.contains(SHARES_TABLES) && vma.flags.intersects(OWN_TABLES);
        let tables = VpnRange::new(
            vma.start().align_up(PUD_PAGES),
            vma.end().align_down(PUD_PAGES),
        );
        if let Some(tables) = tables.filter(|_| gives_up) {
            self.yield_while(0, AfterYield::KeepsEditing, &[], |lease| {
                lease.close_tables(tables);
            });
        }
    }
}

impl Vma {
    /// Returns true if the VMA is registered with this userfaultfd.
    pub(super) fn is_registered_with(&self, context: &Arc<Context>) -> bool {
        same_userfault(self.userfault(), Some(context))
    }
    /// Returns true if the VMA may be registered in the ways of `flags` (`vma_can_userfault`):
    /// private anonymous memory, shared memory and huge pages of a pool; memory of other objects
    /// only for write protection that sends no messages.
    fn may_be_registered(&self, flags: VmFlags, asynchronous: bool) -> bool {
        let flags = flags & VmFlags::UFFD;
        let pooled = self.flags.contains(VmFlags::HUGETLB);
        let memory = pooled || self.object().is_some_and(|object| object.is_memory());
        if self
            .flags
            .intersects(VmFlags::DROPPABLE | VmFlags::NONLINEAR)
        {
            return false;
        }
        if flags.contains(VmFlags::UFFD_MINOR) && !memory {
            return false;
        }
        (asynchronous && flags == VmFlags::UFFD_WP) || self.is_anonymous() || memory
    }
}
