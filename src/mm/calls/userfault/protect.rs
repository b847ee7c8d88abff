//! `UFFDIO_WRITEPROTECT`.

use super::Userfault;
use crate::mm::{
    calls::change_protection::VmaProtection, entry::uffd_flags::ProtectMode, guard::MmapSharedClaim,
};
use crate::{ctx::CallCx, error::UserfaultError};

impl Userfault {
    /// Write-protects the pages of `[addr, addr + len)`, or lifts their protection and wakes the
    /// accesses that wait there (`mwriteprotect_range`). One window opens over the part of each
    /// VMA, in both directions.
    ///
    /// # Errors
    ///
    /// [`UserfaultError`]. With [`NotRegistered`](UserfaultError::NotRegistered) and
    /// [`InsideHugePage`](UserfaultError::InsideHugePage) the VMAs below the failing one have
    /// changed, and stay so.
    pub fn write_protect(
        &self,
        cx: &mut CallCx<'_>,
        addr: u64,
        len: u64,
        mode: ProtectMode,
    ) -> Result<(), UserfaultError> {
        let (mm, range) = self.begin_answer(addr, len)?;
        let protect = mode.contains(ProtectMode::WP);
        let wakes = !mode.contains(ProtectMode::DONTWAKE);
        if !ProtectMode::all().contains(mode) || (protect && !wakes) {
            return Err(UserfaultError::Mode(mode.bits()));
        }
        let g = mm.lock_shared_over(cx, Some(range));
        self.check_steady()?;
        let missing = Err(UserfaultError::NotRegistered(addr));
        let mut parts = Vec::new();
        let mut result = missing;
        for vma in g.layout.vmas.range(range) {
            if !vma.is_uffd_wp() {
                result = missing;
                break;
            }
            if !vma.is_whole(range.start()) || !vma.is_whole(range.end()) {
                result = Err(UserfaultError::InsideHugePage(addr));
                break;
            }
            let part = vma.range().intersect(range).expect("it overlaps");
            parts.push(VmaProtection::by_userfault(vma, part, protect));
            result = Ok(());
        }
        let claim = MmapSharedClaim::new(&mm, &g, range);
        drop(g);
        let mut lease = claim.lease(cx);
        for part in parts {
            let changed = lease.again().protect(part, &mut false);
            lease.settle_exports();
            changed?;
        }
        result?;
        if !protect && wakes {
            self.0.wake(range);
        }
        Ok(())
    }
}
